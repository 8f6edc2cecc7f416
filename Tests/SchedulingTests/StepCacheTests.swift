import ClusterCore
import Scheduling
import Testing

@Suite("Jobs with a step cache")
struct StepCacheTests {
  /// What a step cache keeps is computed again: a checkpoint may be of an earlier step than the progress that brings
  /// it.
  @Test func aCheckpointMayBeOfAnEarlierStep() throws {
    var bench = Bench()
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a", steps: 9)
    func report(_ steps: Int, checkpoint: Int?) -> (latents: Payload?, effects: [Effect]) {
      let latents = checkpoint.map { _ in bench.payload() }
      let report = StepReport(
        completedSteps: steps, stepSeconds: 1, checkpoint: latents, checkpointSteps: checkpoint)
      let event = Event.taskProgressed(denoise.offer.attempt, by: denoise.worker, report)
      return (latents, bench.send(event, after: .seconds(1)))
    }
    let first = report(4, checkpoint: 3)
    #expect(
      events(first.effects, of: "a").contains {
        if case .progressed(completedSteps: 4, stepCount: 9, secondsLeft: _) = $0 { true } else { false }
      })
    // The same again, and an older one, are no progress.
    for older in [3, 2] {
      let again = report(9 - older, checkpoint: older)
      #expect(again.effects.contains(.release(try #require(again.latents))))
    }
    let other = bench.join(.denoiser).worker
    let second = try #require(offers(bench.send(.workerLeft(denoise.worker, reason: "crash"))).first)
    #expect(second.worker == other)
    #expect(second.offer.resume == Checkpoint(completedSteps: 3, latents: try #require(first.latents)))
    // It is behind what was shown, and that is no reason not to hear it.
    try bench.step(second, 4)
    let kept = bench.entries.compactMap { entry -> Int? in
      if case .checkpointed(_, let checkpoint, _) = entry { checkpoint.completedSteps } else { nil }
    }
    #expect(kept == [3, 4])
  }

  /// With a step cache an attempt may begin with steps that take no time: they do not say how long others may take.
  @Test(arguments: [false, true]) func stepsMayBeUneven(_ isUneven: Bool) throws {
    var bench = Bench {
      $0.lease = .seconds(10_000)
      $0.stepLimit = .seconds(60)
    }
    _ = bench.joinAll()
    var job = bench.submission("a", steps: 9)
    var tasks = job.plan.tasks
    for index in tasks.indices where tasks[index].stepCount > 0 { tasks[index].hasUnevenSteps = isUneven }
    job.plan = ImageJobPlan(tasks)
    let encode = offers(bench.send(.imagesSubmitted([job]))).first
    let denoise = try #require(offers(try bench.complete(encode)).first)
    bench.send(.taskAccepted(denoise.offer.attempt, by: denoise.worker))
    let report = StepReport(completedSteps: 1, stepSeconds: 0.001)
    bench.send(.taskProgressed(denoise.offer.attempt, by: denoise.worker, report), after: .milliseconds(1))
    let isRevoked = bench.send(.tick, after: .seconds(100)).contains {
      if case .cancel(denoise.offer.attempt, at: _, reason: _) = $0 { true } else { false }
    }
    #expect(isRevoked != isUneven)
  }
}
