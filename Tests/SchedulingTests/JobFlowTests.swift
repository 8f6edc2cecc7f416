import ClusterCore
import Scheduling
import Testing

@Suite("A job's way through the stages")
struct JobFlowTests {
  @Test func goesThroughEveryStageWithTheOutputsOfTheOneBefore() throws {
    var bench = Bench()
    let (encoder, denoiser, decoder) = bench.joinAll(credits: 2)
    let submitted = bench.submit("a", negativePrompt: "")
    let encodes = offers(submitted)
    #expect(encodes.map(\.worker) == [encoder, encoder])
    #expect(encodes.map(\.offer.attempt) == [attempt("a", 0, 1), attempt("a", 1, 1)])
    #expect(events(submitted, of: "a").contains(.queued(position: 1, secondsLeft: nil)))

    // The negative prompt comes back first; the denoiser still gets the prompt first.
    try bench.complete(encodes[1])
    let negative = bench.nextPayload
    let denoise = offers(try bench.complete(encodes[0]))
    #expect(denoise.map(\.worker) == [denoiser])
    #expect(denoise[0].offer.inputs.map(\.id) == [bench.nextPayload, negative])
    #expect(denoise[0].offer.resume == nil)

    let decode = offers(try bench.complete(denoise[0]))
    #expect(decode.map(\.worker) == [decoder])
    #expect(decode[0].offer.inputs.map(\.id) == [bench.nextPayload])

    let finished = try bench.complete(decode[0])
    #expect(events(finished, of: "a") == [.finished(output: Payload(id: bench.nextPayload, byteCount: 100))])
    #expect(finished.last == .release(Payload(id: bench.nextPayload, byteCount: 100)))
    // Only the cache still holds something: the two encoded prompts.
    #expect(bench.held.count == 2)
    #expect(bench.scheduler.status(now: bench.now).startedImages == 0)
  }

  @Test func tellsProgressWithTheTimeThatIsLeft() throws {
    var bench = Bench()
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a", steps: 10)
    bench.send(.taskAccepted(denoise.offer.attempt, by: denoise.worker))
    let report = StepReport(completedSteps: 1, stepSeconds: 2)
    let effects = bench.send(.taskProgressed(denoise.offer.attempt, by: denoise.worker, report), after: .seconds(2))
    #expect(events(effects, of: "a") == [.progressed(completedSteps: 1, stepCount: 10, secondsLeft: 18)])
  }

  /// Several denoisings of one image count as one row of steps.
  @Test func stepsOfSeveralTasksAreCountedThrough() throws {
    var bench = Bench()
    let (_, denoiser, _) = bench.joinAll()
    let plan = ImageJobPlan([
      TaskPlan(stage: .denoiser, stepCount: 3, cost: 3), TaskPlan(stage: .denoiser, inputs: [0], stepCount: 4, cost: 4),
      TaskPlan(stage: .vaeDecoder, inputs: [1]),
    ])
    let submission = ImageJobSubmission(id: ImageJobID("a"), model: model, plan: plan)
    var offered = offers(bench.send(.imagesSubmitted([submission])))
    for (steps, before) in [(3, 0), (4, 3)] {
      let denoise = try #require(offered.first)
      #expect(denoise.worker == denoiser)
      bench.send(.taskAccepted(denoise.offer.attempt, by: denoise.worker))
      for step in 1...steps {
        let report = StepReport(completedSteps: step, stepSeconds: 1)
        let effects = bench.send(.taskProgressed(denoise.offer.attempt, by: denoise.worker, report), after: .seconds(1))
        guard
          case .progressed(completedSteps: let done, stepCount: 7, let secondsLeft)? = events(effects, of: "a").first
        else {
          Issue.record("\(effects)")
          return
        }
        #expect(done == before + step)
        // The second task's pace is known from the first.
        if before > 0 { #expect(secondsLeft == Double(steps - step)) }
      }
      offered = offers(try bench.complete(denoise))
    }
  }

  @Test func implausibleStepTimesAreMeasuredHere() throws {
    for seconds in [Double.nan, .infinity, -1, 1e300] {
      var bench = Bench()
      _ = bench.joinAll()
      let denoise = try bench.bringToDenoiser("a", steps: 3)
      let report = StepReport(completedSteps: 1, stepSeconds: seconds)
      let effects = bench.send(.taskProgressed(denoise.offer.attempt, by: denoise.worker, report), after: .seconds(5))
      #expect(events(effects, of: "a") == [.progressed(completedSteps: 1, stepCount: 3, secondsLeft: 10)])
    }
  }

  @Test func stepsOnlyGrowAndStayWithinTheirNumber() throws {
    var bench = Bench()
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a", steps: 4)
    try bench.step(denoise, 2)
    for steps in [2, 1, 0, -1, 5, Int.max] {
      let latents = bench.payload()
      let report = StepReport(completedSteps: steps, stepSeconds: 1, checkpoint: latents)
      let effects = bench.send(.taskProgressed(denoise.offer.attempt, by: denoise.worker, report))
      #expect(effects == [.release(latents)])
    }
  }

  @Test func jobsAreServedInTheOrderOfTheirSubmission() throws {
    var bench = Bench()
    let (_, denoiser, _) = bench.joinAll()
    for id in ["a", "b", "c"] { bench.submit(id) }
    var order: [ImageJobID] = []
    var queue: [(offer: Offer, worker: WorkerID)] = [
      (
        Offer(attempt: attempt("a", 0, 1), job: ImageJobID("a"), index: 0, inputs: [], resume: nil, deadline: nil),
        WorkerID(1)
      )
    ]
    while !queue.isEmpty {
      let next = queue.removeFirst()
      if next.worker == denoiser { order.append(next.offer.attempt.task.job) }
      queue += offers(try bench.complete(next))
    }
    #expect(order.map(\.text) == ["a", "b", "c"])
  }

  @Test func positionsShrinkAsJobsBeginAndEnd() throws {
    var bench = Bench()
    _ = bench.joinAll()
    #expect(events(bench.submit("a"), of: "a").last == .queued(position: 1, secondsLeft: nil))
    #expect(events(bench.submit("b"), of: "b") == [.queued(position: 2, secondsLeft: nil)])
    #expect(events(bench.submit("c"), of: "c") == [.queued(position: 3, secondsLeft: nil)])
    let cancelled = bench.send(.imageCancelled(ImageJobID("b"), reason: Status(.cancelled, "enough")))
    #expect(events(cancelled, of: "c") == [.queued(position: 2, secondsLeft: nil)])
    let encoded = bench.send(.taskFinished(attempt("a", 0, 1), by: WorkerID(1), output: bench.payload()))
    #expect(events(encoded, of: "a") == [.started(.denoiser, isMain: true, attempt: 1)])
    #expect(events(encoded, of: "c").contains(.queued(position: 1, secondsLeft: nil)))
  }

  @Test func waitingTimesComeFromWhatWasMeasured() throws {
    var bench = Bench()
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a", steps: 2)
    try bench.step(denoise, 1, after: .seconds(1))
    try bench.step(denoise, 2, after: .seconds(1))
    let decode = offers(try bench.complete(denoise, after: .zero)).first
    try bench.complete(decode, after: .seconds(3))
    let b = events(bench.submit("b", steps: 2), of: "b")
    // One second to encode the prompt, two steps of 1 s each, then 3 s to decode.
    #expect(b.last == .queued(position: 1, secondsLeft: 6, secondsToStart: 1))
    let c = events(bench.submit("c", steps: 4), of: "c")
    // Its prompt is encoded meanwhile.
    #expect(c.last == .queued(position: 2, secondsLeft: 10, secondsToStart: 3))
  }

  @Test func onlySoManyPromptsAreEncodedAhead() throws {
    var bench = Bench { $0.encodeAheadJobs = 2 }
    bench.join(.textEncoder, credits: 10)
    var offered: [(offer: Offer, worker: WorkerID)] = []
    for id in ["a", "b", "c", "d"] { offered += offers(bench.submit(id)) }
    #expect(offered.map(\.offer.attempt.task.job.text) == ["a", "b"])
    for offer in offered { #expect(offers(try bench.complete(offer)).isEmpty) }
    // A denoiser takes "a", so "c" is now among the first two that wait.
    let (_, effects) = bench.join(.denoiser)
    #expect(offers(effects).map(\.offer.attempt.task.job.text) == ["a", "c"])
  }

  @Test func moreAreEncodedWhenDenoisersAreFree() {
    var bench = Bench { $0.encodeAheadJobs = 2 }
    bench.join(.textEncoder, credits: 10)
    bench.join(.denoiser)
    bench.join(.denoiser, credits: 2)
    var offered: [(offer: Offer, worker: WorkerID)] = []
    for id in ["a", "b", "c", "d", "e"] { offered += offers(bench.submit(id)) }
    #expect(offered.map(\.offer.attempt.task.job.text) == ["a", "b", "c", "d"], "one for each denoiser, and two")
  }
}

@Suite("Encoded prompts are shared")
struct SharingTests {
  @Test func oneEncodingServesAllWhoWaitForIt() throws {
    var bench = Bench()
    _ = bench.joinAll(credits: 4)
    let encode = offers(bench.submit("a", prompt: "cat"))
    #expect(encode.count == 1)
    #expect(offers(bench.submit("b", prompt: "cat")).isEmpty)
    let denoises = offers(try bench.complete(encode[0]))
    #expect(denoises.map(\.offer.attempt.task.job.text) == ["a", "b"])
    #expect(denoises[0].offer.inputs == denoises[1].offer.inputs)
    // And later ones find it in the cache.
    let later = offers(bench.submit("c", prompt: "cat"))
    #expect(later.map(\.offer.attempt.task) == [TaskID(job: ImageJobID("c"), index: 1)])
    #expect(later[0].offer.inputs == denoises[0].offer.inputs)
    #expect(bench.scheduler.status(now: bench.now).cacheHits == 1)
  }

  @Test func aPromptThatEqualsTheNegativeOneIsEncodedOnce() throws {
    var bench = Bench()
    _ = bench.joinAll(credits: 4)
    let encode = offers(bench.submit("a", prompt: "cat", negativePrompt: "cat"))
    #expect(encode.count == 1)
    let denoise = offers(try bench.complete(encode[0]))
    #expect(denoise.first?.offer.inputs.count == 2)
    #expect(Set(denoise.first?.offer.inputs ?? []).count == 1)
  }

  @Test func othersStillGetItWhenTheFirstIsCancelled() throws {
    var bench = Bench()
    _ = bench.joinAll(credits: 4)
    let encode = offers(bench.submit("a", prompt: "cat"))
    bench.submit("b", prompt: "cat")
    let cancelled = bench.send(.imageCancelled(ImageJobID("a"), reason: Status(.cancelled, "enough")))
    #expect(cancels(cancelled).isEmpty)
    // It keeps its name, but a further attempt is made for a job that is still there.
    let again = offers(bench.send(.taskFailed(encode[0].offer.attempt, by: encode[0].worker, Status(.internal, "no"))))
    #expect(again.map(\.offer.attempt) == [attempt("a", 0, 2)])
    #expect(again.map(\.offer.job.text) == ["b"])
    #expect(offers(try bench.complete(again[0])).map(\.offer.attempt.task.job.text) == ["b"])
  }

  @Test func otherWeightsDoNotShare() {
    var bench = Bench()
    let other = ModelIdentity(id: model.id, fingerprint: "f2")
    bench.join(.textEncoder, credits: 2)
    bench.join(.textEncoder, credits: 2, model: other)
    #expect(offers(bench.submit("a", prompt: "cat")).count == 1)
    #expect(offers(bench.submit("b", prompt: "cat", model: other)).count == 1)
  }

  @Test func theCacheKeepsTheLatestWithinItsBytes() throws {
    var bench = Bench { $0.maxCacheBytes = 250 }
    _ = bench.joinAll(credits: 8)
    for id in ["a", "b"] { try bench.complete(offers(bench.submit(id, prompt: id)).first) }
    for id in ["a2", "a3"] { #expect(offers(bench.submit(id, prompt: "a")).first?.offer.attempt.task.index == 1) }
    // "b" is the one not used for longest; "c" needs its place.
    try bench.complete(offers(bench.submit("c", prompt: "c")).first)
    #expect(bench.scheduler.status(now: bench.now).cacheBytes == 200)
    #expect(offers(bench.submit("a4", prompt: "a")).first?.offer.attempt.task.index == 1)
    #expect(offers(bench.submit("b2", prompt: "b")).first?.offer.attempt.task.index == 0)
    // What is too large is used, but not kept.
    try bench.complete(offers(bench.submit("d", prompt: "d")).first, bytes: 251)
    #expect(bench.scheduler.status(now: bench.now).cacheBytes <= 250)
  }
}
