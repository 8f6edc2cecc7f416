import ClusterCore
import Scheduling
import Testing

@Suite("Idle workers make half of the predictions of guided steps")
struct AssistanceTests {
  /// A guided job at a denoiser that has made its first step, and another denoiser that is idle.
  private struct Pair {
    var bench: Bench
    let denoise: (offer: Offer, worker: WorkerID)
    let other: WorkerID

    init(
      negativePrompt: String? = "no", assists: Bool = true, numericsClass: String = "fp32", name: String? = nil,
      configure: (inout SchedulingConfiguration) -> Void = { _ in }
    ) throws {
      bench = Bench(configure)
      let encoder = bench.join(.textEncoder, credits: 2).worker
      _ = bench.join(.denoiser, assists: true)
      _ = bench.join(.vaeDecoder)
      var effects = bench.submit("a", prompt: "yes", negativePrompt: negativePrompt)
      for encode in offers(effects) {
        #expect(encode.worker == encoder)
        effects = try bench.complete(encode)
      }
      denoise = try #require(offers(effects).first)
      bench.send(.taskAccepted(denoise.offer.attempt, by: denoise.worker))
      other = bench.join(.denoiser, name: name, numericsClass: numericsClass, assists: assists).worker
      _ = try bench.step(denoise, 1)
    }

    /// The offer that a tick brings.
    mutating func assist() -> (offer: Offer, worker: WorkerID)? { offers(bench.send(.tick, after: .seconds(1))).first }

    /// The same, accepted.
    mutating func assisted() throws -> (offer: Offer, worker: WorkerID) {
      let offered = self.assist(), assist = try #require(offered)
      bench.send(.taskAccepted(assist.offer.attempt, by: assist.worker))
      return assist
    }

    /// Why the attempt has no assistant any more, according to `effects`.
    func lost(_ effects: [Effect]) -> String? {
      for case .assistantLost(denoise.offer.attempt, at: denoise.worker, let reason) in effects { return reason }
      return nil
    }
  }

  @Test func anIdleWorkerAssistsUntilTheTaskIsDone() throws {
    var pair = try Pair()
    let assist = try pair.assisted()
    #expect(assist.worker == pair.other)
    #expect(assist.offer.attempt.task == pair.denoise.offer.attempt.task)
    #expect(assist.offer.attempt.assistance > 0)
    #expect(assist.offer.inputs == pair.denoise.offer.inputs)
    #expect(assist.offer.resume == nil)
    #expect(pair.assist() == nil, "one assistant is enough")

    // Each knows the other by its own name for the attempt; no other worker has a part in it.
    let scheduler = pair.bench.scheduler
    let toAssistant = try #require(scheduler.partner(of: pair.denoise.offer.attempt, at: pair.denoise.worker))
    #expect(toAssistant == (assist.offer.attempt, pair.other))
    #expect(
      try #require(scheduler.partner(of: assist.offer.attempt, at: pair.other)) == (
        pair.denoise.offer.attempt, pair.denoise.worker
      ))
    #expect(scheduler.partner(of: assist.offer.attempt, at: pair.denoise.worker) == nil)
    #expect(scheduler.partner(of: pair.denoise.offer.attempt, at: pair.other) == nil)

    let effects = try pair.bench.complete(pair.denoise)
    #expect(cancels(effects) == [assist.offer.attempt])
    #expect(pair.lost(effects) == nil)
    pair.bench.send(.taskFailed(assist.offer.attempt, by: pair.other, Status(.cancelled, "over")))
    #expect(pair.bench.scheduler.status(now: pair.bench.now).workers.allSatisfy { $0.stage != .denoiser || $0.isFree })
  }

  @Test func theAssistantsAnswersAreNotTheTasks() throws {
    var pair = try Pair()
    let assist = try pair.assisted(), attempt = assist.offer.attempt
    let latents = pair.bench.payload()
    #expect(
      pair.bench.send(
        .taskProgressed(attempt, by: pair.other, StepReport(completedSteps: 3, stepSeconds: 1, checkpoint: latents)))
        == [.release(latents)])
    #expect(pair.bench.scheduler.waiter(for: attempt) == nil)
    let output = pair.bench.payload()
    let effects = pair.bench.send(.taskFinished(attempt, by: pair.other, output: output))
    #expect(effects.contains(.release(output)))
    #expect(events(effects, of: "a").isEmpty)
  }

  @Test(arguments: ["unguided", "short", "class", "old", "off"])
  func noWorkerAssists(why: String) throws {
    var pair = try Pair(
      negativePrompt: why == "unguided" ? nil : "no", assists: why != "old",
      numericsClass: why == "class" ? "bf16" : "fp32"
    ) {
      if why == "short" { $0.assistedStepDuration = .seconds(2) }
      if why == "off" { $0.assistedStepDuration = nil }
    }
    #expect(pair.assist() == nil)
  }

  @Test func theLastStepIsMadeAlone() throws {
    var pair = try Pair()
    try pair.bench.step(pair.denoise, 3)
    #expect(pair.assist() == nil)
  }

  /// Tasks come first: the assistant is released for one that waits.
  @Test func aTaskThatWaitsTakesTheAssistant() throws {
    var pair = try Pair()
    let assist = try pair.assisted()
    var effects = pair.bench.submit("b")
    effects = try pair.bench.complete(offers(effects).first)
    #expect(cancels(effects) == [assist.offer.attempt])
    #expect(pair.lost(effects) == "the assistant has a task of its own")
    #expect(offers(effects).isEmpty)
    effects = pair.bench.send(.taskFailed(assist.offer.attempt, by: pair.other, Status(.cancelled, "over")))
    #expect(offers(effects).first?.worker == pair.other)
    #expect(offers(effects).first?.offer.attempt == attempt("b", 1, 1))
    #expect(pair.assist() == nil)
  }

  /// It costs the attempt nothing but the step that runs, and the same worker is not asked again for it.
  @Test func aLostAssistantCostsNoAttempt() throws {
    var pair = try Pair(name: "other")
    _ = try pair.assisted()
    let effects = pair.bench.send(.workerLeft(pair.other, reason: "crash"))
    #expect(pair.lost(effects)?.contains("crash") == true)
    #expect(events(effects, of: "a").isEmpty)
    _ = pair.bench.join(.denoiser, name: "other", assists: true)
    #expect(pair.assist() == nil)
    let third = pair.bench.join(.denoiser, assists: true).worker
    #expect(pair.assist()?.worker == third)
    try pair.bench.step(pair.denoise, 2)
    #expect(!(try pair.bench.complete(pair.denoise)).isEmpty)
  }

  /// The assistant gets the task itself, from the last checkpoint.
  @Test func theAssistantTakesOverALostWorkersTask() throws {
    var pair = try Pair()
    let assist = try pair.assisted()
    let latents = try pair.bench.step(pair.denoise, 2)
    var effects = pair.bench.send(.workerLeft(pair.denoise.worker, reason: "crash"))
    #expect(cancels(effects) == [assist.offer.attempt])
    effects = pair.bench.send(.taskFailed(assist.offer.attempt, by: pair.other, Status(.cancelled, "over")))
    let second = try #require(offers(effects).first)
    #expect(second.worker == pair.other)
    #expect(second.offer.attempt == attempt("a", 2, 2))
    #expect(second.offer.resume == Checkpoint(completedSteps: 2, latents: latents))
  }

  /// A worker that comes back with an assistance, to this gateway or the next, lets go of it: it does not hold the
  /// task.
  @Test func anAssistanceIsNotTakenOver() throws {
    var pair = try Pair(name: "other")
    let assist = try pair.assisted()
    let (again, effects) = pair.bench.join(
      .denoiser, name: "other", assists: true, running: [assist.offer.attempt])
    #expect(effects.contains { if case .cancel(assist.offer.attempt, at: again, _) = $0 { true } else { false } })
    #expect(pair.lost(effects) != nil)
    #expect(!(try pair.bench.complete(pair.denoise)).isEmpty)
  }

  /// An assistance does not end by itself, so it is cancelled until the worker has let go of it.
  @Test func aLostCancelIsRepeated() throws {
    var pair = try Pair()
    let assist = try pair.assisted()
    #expect(cancels(try pair.bench.complete(pair.denoise)) == [assist.offer.attempt])
    let report = WorkerReport(running: [assist.offer.attempt])
    #expect(cancels(pair.bench.send(.workerReported(pair.other, report))) == [assist.offer.attempt])
    pair.bench.send(.taskFailed(assist.offer.attempt, by: pair.other, Status(.cancelled, "over")))
    #expect(cancels(pair.bench.send(.workerReported(pair.other, WorkerReport(running: [])))).isEmpty)
  }

  @Test func aWorkerThatDrainsAssistsNoMore() throws {
    var pair = try Pair()
    let assist = try pair.assisted()
    #expect(cancels(pair.bench.send(.workerDraining(pair.other))) == [assist.offer.attempt])
  }
}

extension WorkerStatus {
  fileprivate var stage: StageName { registration.stage }
  fileprivate var isFree: Bool { freeCredits == registration.credits }
}
