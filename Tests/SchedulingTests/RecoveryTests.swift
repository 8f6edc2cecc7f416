import ClusterCore
import Scheduling
import Testing

@Suite("Lost workers, failed attempts")
struct RecoveryTests {
  @Test func aLostDenoiserCostsOneStep() throws {
    var bench = Bench()
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a")
    let other = bench.join(.denoiser).worker
    try bench.step(denoise, 1)
    let latents = try bench.step(denoise, 2)
    let effects = bench.send(.workerLeft(denoise.worker, reason: "crash"))
    let second = try #require(offers(effects).first)
    #expect(second.worker == other)
    #expect(second.offer.attempt == attempt("a", 1, 2))
    #expect(second.offer.resume == Checkpoint(completedSteps: 2, latents: latents))
    #expect(second.offer.inputs == denoise.offer.inputs)
    #expect(
      events(effects, of: "a").contains {
        if case .retrying(.denoiser, let why) = $0 { why.message.contains("crash") } else { false }
      })

    // The first attempt's answers come too late: they change nothing.
    let late = bench.payload()
    #expect(bench.send(.taskFinished(denoise.offer.attempt, by: denoise.worker, output: late)) == [.release(late)])
    #expect(bench.send(.taskFailed(denoise.offer.attempt, by: denoise.worker, Status(.invalidArgument, "no"))).isEmpty)
    try bench.step(second, 3)
    #expect(offers(try bench.complete(second)).first?.offer.attempt == attempt("a", 2, 1))
  }

  @Test func aSilentWorkerIsLostWhenItsLeaseEnds() throws {
    var bench = Bench { $0.lease = .seconds(20) }
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a")
    bench.send(.workerReported(denoise.worker, WorkerReport(running: [denoise.offer.attempt])), after: .seconds(15))
    let alive = bench.send(.tick, after: .seconds(15))
    #expect(!alive.contains(.worker(denoise.worker, .gone(reason: "no message for 15 s"))))
    let effects = bench.send(.tick, after: .seconds(6))
    #expect(effects.contains(.worker(denoise.worker, .gone(reason: "no message for 21 s"))))
    #expect(offers(bench.join(.denoiser).effects).first?.offer.attempt == attempt("a", 1, 2))
  }

  @Test func resumesOnlyWithinTheSameNumericsClass() throws {
    var bench = Bench()
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a")
    try bench.step(denoise, 1)
    bench.send(.workerLeft(denoise.worker, reason: "crash"))
    #expect(offers(bench.join(.denoiser, numericsClass: "bf16").effects).isEmpty)
    #expect(offers(bench.join(.denoiser, numericsClass: "fp32").effects).first?.offer.attempt == attempt("a", 1, 2))
  }

  @Test func withoutACheckpointAnyClassMayBeginAgain() throws {
    var bench = Bench()
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a")
    bench.send(.workerLeft(denoise.worker, reason: "crash"))
    #expect(offers(bench.join(.denoiser, numericsClass: "bf16").effects).first?.offer.attempt == attempt("a", 1, 2))
  }

  @Test func onlyWorkersWithTheJobsWeightsServeIt() throws {
    var bench = Bench()
    let other = ModelIdentity(id: model.id, fingerprint: "f2")
    bench.join(.textEncoder, model: other)
    #expect(offers(bench.submit("a")).isEmpty)
    let encode = offers(bench.join(.textEncoder).effects).first
    bench.join(.denoiser, model: other)
    #expect(offers(try bench.complete(encode)).isEmpty)
    #expect(offers(bench.join(.denoiser).effects).count == 1)
  }

  @Test(arguments: StatusCode.allCases.filter { !$0.allowsAnotherAttempt })
  func whatAnotherAttemptCannotChangeIsFinal(code: StatusCode) throws {
    var bench = Bench()
    _ = bench.joinAll()
    let encode = try #require(offers(bench.submit("a")).first)
    let why = Status(code, "the prompt has 2000 tokens, the limit is 1024", field: "prompt")
    let effects = bench.send(.taskFailed(encode.offer.attempt, by: encode.worker, why))
    #expect(events(effects, of: "a") == [.failed(why)])
    #expect(bench.scheduler.status(now: bench.now).workers[0].freeCredits == 1)
    #expect(bench.held.isEmpty)
  }

  @Test func aFinalFailureReachesEveryJobThatWaited() throws {
    var bench = Bench()
    _ = bench.joinAll()
    let encode = try #require(offers(bench.submit("a", prompt: "cat")).first)
    bench.submit("b", prompt: "cat")
    let why = Status(.invalidArgument, "no")
    let effects = bench.send(.taskFailed(encode.offer.attempt, by: encode.worker, why))
    #expect(failure(effects, of: "a") == why)
    #expect(failure(effects, of: "b") == why)
  }

  /// The stage blames the field of its own message; each job has its own name for it, also where jobs share the task.
  @Test func aFinalFailureBlamesTheFieldOfEachJob() throws {
    var bench = Bench()
    _ = bench.joinAll()
    let encodes = offers(bench.submit("a", prompt: "cat", negativePrompt: "long"))
    bench.submit("b", prompt: "long")
    bench.submit("c", prompt: "long", negativePrompt: "long")
    let encode = try #require(encodes.first { $0.offer.index == 1 } ?? offers(try bench.complete(encodes.first)).first)
    #expect(encode.offer.index == 1)
    let why = Status(.invalidArgument, "prompt has 2000 tokens; the limit is 1024", field: "prompt")
    let effects = bench.send(.taskFailed(encode.offer.attempt, by: encode.worker, why))
    #expect(
      failure(effects, of: "a")
        == Status(.invalidArgument, "negative_prompt has 2000 tokens; the limit is 1024", field: "negative_prompt"))
    #expect(failure(effects, of: "b") == why)
    #expect(failure(effects, of: "c") == why)
    // What blames no field, or says it in other words, is passed on as it is.
    let other = try #require(offers(bench.submit("d", prompt: "cat", negativePrompt: "more")).first)
    let vague = bench.send(.taskFailed(other.offer.attempt, by: other.worker, Status(.invalidArgument, "no")))
    #expect(failure(vague, of: "d") == Status(.invalidArgument, "no"))
  }

  @Test func retriesWithPausesAndThenFailsWithTheReasons() throws {
    var bench = Bench {
      $0.maxAttempts = 4
      $0.retryDelay = .seconds(1)
      $0.maxWorkerFaults = 100
    }
    let (encoder, _, _) = bench.joinAll()
    bench.submit("a")
    for (number, pause) in [(1, 0), (2, 1), (3, 2)] {
      let why = Status(.internal, "reason \(number)")
      var effects = bench.send(.taskFailed(attempt("a", 0, UInt32(number)), by: encoder, why))
      #expect(events(effects, of: "a").first == .retrying(.textEncoder, why))
      if pause > 0 {
        #expect(offers(effects).isEmpty)
        #expect(offers(bench.send(.tick, after: .milliseconds(pause * 1000 - 1))).isEmpty)
        effects = bench.send(.tick, after: .milliseconds(1))
      }
      #expect(offers(effects).first?.offer.attempt == attempt("a", 0, UInt32(number + 1)))
    }
    let last = bench.send(.taskFailed(attempt("a", 0, 4), by: encoder, Status(.internal, "reason 4")))
    let failed = try #require(failure(last, of: "a"))
    #expect(failed.code == .internal)
    for number in 1...4 { #expect(failed.message.contains("reason \(number)")) }
  }

  @Test func theLastStepIsNoCheckpoint() throws {
    var bench = Bench()
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a", steps: 4)
    try bench.step(denoise, 3)
    try bench.step(denoise, 4)
    bench.send(.workerLeft(denoise.worker, reason: "crash"))
    #expect(offers(bench.join(.denoiser).effects).first?.offer.resume?.completedSteps == 3)
  }

  @Test func aNewCheckpointForgivesEarlierFailures() throws {
    var bench = Bench {
      $0.maxAttempts = 2
      $0.maxWorkerFaults = 100
    }
    _ = bench.joinAll()
    var denoise = try bench.bringToDenoiser("a", steps: 4)
    for step in 1...3 {
      try bench.step(denoise, step)
      let effects = bench.send(.taskFailed(denoise.offer.attempt, by: denoise.worker, Status(.internal, "again")))
      denoise = try #require(offers(effects).first)
      #expect(denoise.offer.resume?.completedSteps == step)
    }
    #expect(
      failure(bench.send(.taskFailed(denoise.offer.attempt, by: denoise.worker, Status(.internal, "again"))), of: "a")
        != nil)
  }

  @Test(arguments: [StatusCode.resourceExhausted, .unavailable])
  func aWorkerWithoutCapacityIsLeftAloneUntilItReports(code: StatusCode) {
    var bench = Bench {
      $0.maxAttempts = 1
      $0.maxWorkerFaults = 1
    }
    let (encoder, _, _) = bench.joinAll()
    bench.submit("a")
    let refused = bench.send(.taskFailed(attempt("a", 0, 1), by: encoder, Status(code, "no credits")))
    #expect(failure(refused, of: "a") == nil)
    #expect(offers(refused).isEmpty)
    #expect(bench.scheduler.status(now: bench.now).workers[0].state == .ready)
    let effects = bench.send(.workerReported(encoder, WorkerReport(running: [], foreignCount: 0)))
    #expect(offers(effects).map(\.offer.attempt) == [attempt("a", 0, 2)])
    // Once it has accepted, the same is a failure.
    bench.send(.taskAccepted(attempt("a", 0, 2), by: encoder))
    #expect(
      failure(bench.send(.taskFailed(attempt("a", 0, 2), by: encoder, Status(code, "no memory"))), of: "a") != nil)
  }

  @Test func prefersAWorkerThatHasNotFailedWithTheTask() throws {
    var bench = Bench()
    let (bad, _, _) = bench.joinAll()
    let encode = try #require(offers(bench.submit("a")).first)
    #expect(encode.worker == bad)
    let good = bench.join(.textEncoder).worker
    bench.submit("b")
    // The good one is busy with "b": "a" waits for it rather than go back.
    #expect(offers(bench.send(.taskFailed(encode.offer.attempt, by: bad, Status(.internal, "no")))).isEmpty)
    let freed = bench.send(.taskFinished(attempt("b", 0, 1), by: good, output: bench.payload()))
    #expect(offers(freed).contains { $0.worker == good && $0.offer.attempt == attempt("a", 0, 2) })
  }

  @Test func aWorkerThatKeepsFailingPauses() throws {
    var bench = Bench {
      $0.maxWorkerFaults = 2
      $0.quarantine = .seconds(10)
      $0.retryDelay = .zero
      $0.lease = .seconds(1000)
    }
    let (bad, _, _) = bench.joinAll()
    bench.submit("a")
    bench.send(.taskFailed(attempt("a", 0, 1), by: bad, Status(.internal, "no")))
    let second = bench.send(.taskFailed(attempt("a", 0, 2), by: bad, Status(.internal, "no")))
    #expect(
      second.contains {
        if case .worker(bad, .quarantined(let until, _)) = $0 { until == bench.now + .seconds(10) } else { false }
      })
    #expect(offers(second).isEmpty)
    #expect(bench.scheduler.status(now: bench.now).workers[0].state == .quarantined)
    #expect(
      bench.scheduler.status(now: bench.now).missingStages(
        of: model, for: .textToImage, stages: [.textEncoder, .denoiser, .vaeDecoder]) == [.textEncoder])
    let after = bench.send(.tick, after: .seconds(10))
    #expect(offers(after).first?.offer.attempt == attempt("a", 0, 3))
    // A success makes it a worker like any other.
    bench.send(.taskFinished(attempt("a", 0, 3), by: bad, output: bench.payload()))
    bench.submit("b")
    #expect(
      !bench.send(.taskFailed(attempt("b", 0, 1), by: bad, Status(.internal, "no"))).contains {
        if case .worker(_, .quarantined) = $0 { true } else { false }
      })
  }

  @Test func aDrainingWorkerFinishesAndGetsNothingNew() throws {
    var bench = Bench()
    let (encoder, _, _) = bench.joinAll(credits: 2)
    let encode = offers(bench.submit("a")).first
    bench.send(.workerDraining(encoder))
    #expect(offers(bench.submit("b")).isEmpty)
    #expect(bench.scheduler.status(now: bench.now).workers[0].state == .draining)
    #expect(offers(try bench.complete(encode)).map(\.offer.attempt) == [attempt("a", 1, 1)])
    let gone = bench.send(.workerLeft(encoder, reason: "drained"))
    #expect(gone == [.worker(encoder, .gone(reason: "drained"))])
    #expect(offers(bench.join(.textEncoder).effects).count == 1)
  }

  @Test func whatADrainingWorkerGivesUpDoesNotCountAsFailure() throws {
    var bench = Bench { $0.maxAttempts = 1 }
    let (encoder, _, _) = bench.joinAll()
    bench.submit("a")
    bench.send(.workerDraining(encoder))
    let effects = bench.send(.taskFailed(attempt("a", 0, 1), by: encoder, Status(.unavailable, "shutting down")))
    #expect(failure(effects, of: "a") == nil)
    #expect(offers(bench.join(.textEncoder).effects).first?.offer.attempt == attempt("a", 0, 2))
  }

  @Test func anOfferThatIsNotAcceptedIsMadeAgain() throws {
    var bench = Bench {
      $0.acceptLimit = .seconds(5)
      $0.lease = .seconds(1000)
    }
    let (encoder, _, _) = bench.joinAll()
    let other = bench.join(.textEncoder).worker
    bench.submit("a")
    let effects = bench.send(.tick, after: .seconds(6))
    #expect(cancels(effects) == [attempt("a", 0, 1)])
    #expect(offers(effects).map(\.worker) == [other])
    // The silent attempt holds the credit until reports show that it does not run.
    #expect(bench.scheduler.status(now: bench.now).workers[0].freeCredits == 0)
    bench.send(.workerReported(encoder, WorkerReport(running: [])), after: .seconds(100))
    bench.send(.workerReported(encoder, WorkerReport(running: [])), after: .seconds(100))
    #expect(bench.scheduler.status(now: bench.now).workers[0].freeCredits == 1)
  }

  @Test func aStepThatTakesFarLongerThanTheOthersIsGivenUp() throws {
    var bench = Bench {
      $0.stepLimit = .seconds(10)
      $0.stepSlowdown = 5
      $0.lease = .seconds(1000)
    }
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a")
    let other = bench.join(.denoiser).worker
    // Slow from the beginning, but steady: 5 × 4 s.
    try bench.step(denoise, 1, after: .seconds(4))
    bench.send(
      .taskProgressed(
        denoise.offer.attempt, by: denoise.worker,
        StepReport(completedSteps: 2, stepSeconds: 4, checkpoint: bench.payload())),
      after: .seconds(4))
    #expect(offers(bench.send(.tick, after: .seconds(20))).isEmpty)
    let effects = bench.send(.tick, after: .seconds(1))
    #expect(cancels(effects) == [denoise.offer.attempt])
    #expect(offers(effects).map(\.worker) == [other])
    #expect(offers(effects).first?.offer.resume?.completedSteps == 2)
  }
}

@Suite("Sessions and reports")
struct SessionTests {
  @Test func aWorkerThatRegistersAgainKeepsWhatItRuns() throws {
    var bench = Bench()
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a")
    try bench.step(denoise, 1)
    let (again, effects) = bench.join(.denoiser, name: "denoiser-2", running: [denoise.offer.attempt])
    #expect(offers(effects).isEmpty)
    #expect(cancels(effects).isEmpty)
    #expect(events(effects, of: "a").isEmpty)
    #expect(effects.contains(.worker(denoise.worker, .gone(reason: "worker denoiser-2 registered again"))))
    // Answers count under the new session only.
    let stale = bench.payload()
    #expect(bench.send(.taskFinished(denoise.offer.attempt, by: denoise.worker, output: stale)) == [.release(stale)])
    #expect(offers(try bench.complete((denoise.offer, again))).map(\.offer.attempt) == [attempt("a", 2, 1)])
  }

  @Test func aWorkerThatRegistersAgainWithoutItsTaskLosesIt() throws {
    var bench = Bench()
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a")
    let (again, effects) = bench.join(.denoiser, name: "denoiser-2")
    #expect(effects.contains(.worker(denoise.worker, .gone(reason: "worker denoiser-2 registered again"))))
    let second = try #require(offers(effects).first ?? offers(bench.send(.tick)).first)
    #expect(second.worker == again)
    #expect(second.offer.attempt == attempt("a", 1, 2))
  }

  @Test func aWorkerMayRegisterAgainAndAgain() throws {
    var bench = Bench { $0.maxAttempts = 1 }
    let (encoder, _, _) = bench.joinAll()
    bench.submit("a")
    var newest = encoder
    for number in 2...5 {
      let (session, effects) = bench.join(.textEncoder, name: "text-encoder-1")
      // The process lives: no failure is counted.
      #expect(failure(effects, of: "a") == nil)
      #expect(offers(effects).map(\.offer.attempt) == [attempt("a", 0, UInt32(number))])
      newest = session
    }
    // On the same connection the offer is still on its way.
    bench.nextWorker += 1
    var registration = bench.registration(.textEncoder, id: bench.nextWorker, name: "text-encoder-1")
    registration.keepsConnection = true
    let effects = bench.send(.workerRegistered(registration))
    #expect(
      effects == [
        .worker(newest, .gone(reason: "worker text-encoder-1 registered again")), .worker(registration.id, .joined),
      ])
    bench.send(.taskAccepted(attempt("a", 0, 5), by: registration.id))
    let finished = bench.send(.taskFinished(attempt("a", 0, 5), by: registration.id, output: bench.payload()))
    #expect(offers(finished).map(\.offer.attempt) == [attempt("a", 1, 1)])
  }

  /// Found by the simulator (seed 6490).
  @Test func anOfferThatWasRevokedOnItsWayStillHoldsTheCredit() throws {
    var bench = Bench()
    let (encoder, _, _) = bench.joinAll()
    bench.submit("a")
    bench.submit("b")
    bench.send(.imageCancelled(ImageJobID("a"), reason: Status(.cancelled, "enough")))
    bench.nextWorker += 1
    var registration = bench.registration(.textEncoder, id: bench.nextWorker, name: "text-encoder-\(encoder.number)")
    registration.keepsConnection = true
    #expect(offers(bench.send(.workerRegistered(registration))).isEmpty)
    let freed = bench.send(.taskFailed(attempt("a", 0, 1), by: registration.id, Status(.cancelled, "cancelled")))
    #expect(offers(freed).map(\.offer.attempt) == [attempt("b", 0, 1)])
  }

  /// Found by the simulator (seed 12725).
  @Test func aWorkerIsBelievedToRunNoMoreThanItsCredits() throws {
    var bench = Bench()
    let (_, denoiser, _) = bench.joinAll(credits: 2)
    let first = try bench.bringToDenoiser("a")
    let second = try bench.bringToDenoiser("b")
    #expect(first.worker == denoiser && second.worker == denoiser)
    let running = [first.offer.attempt, second.offer.attempt]
    let (_, effects) = bench.join(.denoiser, name: "denoiser-\(denoiser.number)", credits: 1, running: running)
    #expect(cancels(effects) == [second.offer.attempt])
  }

  @Test func aWorkerBackFromALostLeaseContinuesUnlessAnotherHasTheTask() throws {
    var bench = Bench()
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a")
    bench.send(.workerLeft(denoise.worker, reason: "lease"))
    let (again, effects) = bench.join(.denoiser, name: "denoiser-2", running: [denoise.offer.attempt])
    #expect(offers(effects).isEmpty)
    try bench.step((denoise.offer, again), 1)

    bench.send(.workerLeft(again, reason: "lease"))
    let other = bench.join(.denoiser).worker
    let (third, back) = bench.join(.denoiser, name: "denoiser-2", running: [denoise.offer.attempt])
    #expect(cancels(back) == [denoise.offer.attempt])
    #expect(bench.scheduler.status(now: bench.now).workers.last?.freeCredits == 0)
    let late = bench.payload()
    #expect(bench.send(.taskFinished(denoise.offer.attempt, by: third, output: late)) == [.release(late)])
    #expect(bench.scheduler.status(now: bench.now).workers.last?.freeCredits == 1)
    let second = Offer(
      attempt: attempt("a", 1, 2), job: ImageJobID("a"), index: 1, inputs: [], resume: nil, deadline: nil)
    #expect(offers(try bench.complete((second, other))).count == 1)
  }

  @Test func foreignTasksHoldCredits() throws {
    var bench = Bench()
    var registration = bench.registration(.textEncoder, id: 9, credits: 1)
    registration.foreignCount = 1
    bench.send(.workerRegistered(registration))
    #expect(offers(bench.submit("a")).isEmpty)
    let effects = bench.send(.workerReported(WorkerID(9), WorkerReport(running: [], foreignCount: 0)))
    #expect(offers(effects).count == 1)
  }

  @Test func anAnswerThatIsLostIsNoticedByItsReports() throws {
    var bench = Bench()
    let (encoder, _, _) = bench.joinAll()
    bench.submit("a")
    bench.send(.taskAccepted(attempt("a", 0, 1), by: encoder))
    #expect(offers(bench.send(.workerReported(encoder, WorkerReport(running: [])), after: .seconds(5))).isEmpty)
    // A report that names it starts the count again.
    bench.send(.workerReported(encoder, WorkerReport(running: [attempt("a", 0, 1)])))
    #expect(offers(bench.send(.workerReported(encoder, WorkerReport(running: [])), after: .seconds(5))).isEmpty)
    // Reports that come at once, after the gateway has slept, count once.
    #expect(offers(bench.send(.workerReported(encoder, WorkerReport(running: [])))).isEmpty)
    let effects = bench.send(.workerReported(encoder, WorkerReport(running: [])), after: .seconds(5))
    #expect(offers(effects).first?.offer.attempt == attempt("a", 0, 2))
  }

  @Test func anUnknownAttemptIsStopped() {
    var bench = Bench()
    let encoder = bench.join(.textEncoder, credits: 2).worker
    let effects = bench.send(.workerReported(encoder, WorkerReport(running: [attempt("x", 0, 3)])))
    #expect(cancels(effects) == [attempt("x", 0, 3)])
    #expect(bench.scheduler.status(now: bench.now).workers[0].freeCredits == 1)
    #expect(bench.send(.workerReported(encoder, WorkerReport(running: [attempt("x", 0, 3)]))).isEmpty)
    bench.send(.taskFailed(attempt("x", 0, 3), by: encoder, Status(.cancelled, "stopped")))
    #expect(bench.scheduler.status(now: bench.now).workers[0].freeCredits == 2)
  }

  @Test func eventsOfUnknownSessionsChangeNothing() {
    var bench = Bench()
    let unknown = WorkerID(77)
    let payload = bench.payload()
    #expect(bench.send(.taskFinished(attempt("a", 0, 1), by: unknown, output: payload)) == [.release(payload)])
    #expect(bench.send(.taskAccepted(attempt("a", 0, 1), by: unknown)).isEmpty)
    #expect(bench.send(.workerReported(unknown, WorkerReport(running: [attempt("a", 0, 1)]))).isEmpty)
    #expect(bench.send(.workerDraining(unknown)).isEmpty)
    #expect(bench.send(.workerLeft(unknown, reason: "?")).isEmpty)
  }

  /// While a cluster is upgraded, workers of the version before ignore what they do not know.
  @Test func aTaskGoesToWorkersThatServeItsPipeline() throws {
    var bench = Bench()
    bench.join(.denoiser)
    let plan = ImageJobPlan([TaskPlan(stage: .denoiser, stepCount: 2, pipeline: .imageToImage)])
    let submitted = bench.send(.imagesSubmitted([ImageJobSubmission(id: ImageJobID("a"), model: model, plan: plan)]))
    #expect(offers(submitted).isEmpty)
    var registration = bench.registration(.denoiser, id: 7)
    registration.pipelines = [.textToImage, .imageToImage]
    let joined = bench.send(.workerRegistered(registration))
    #expect(offers(joined).map(\.worker) == [WorkerID(7)])
    // Nor does an earlier session of the other kind get it back.
    var old = bench.registration(.denoiser, id: 8, running: [attempt("a", 0, 1)])
    old.name = "denoiser-7"
    #expect(offers(bench.send(.workerRegistered(old))).isEmpty)
    // Tasks that need nothing of it go to either.
    #expect(offers(bench.submit("b", steps: 2)).isEmpty)
  }

  @Test func readinessNamesWhatIsMissing() {
    var bench = Bench()
    bench.join(.textEncoder)
    bench.join(.denoiser, model: ModelIdentity(id: model.id, fingerprint: "f2"))
    bench.join(.vaeDecoder)
    let stages: [StageName] = [.textEncoder, .denoiser, .vaeDecoder]
    func missing(for pipeline: PipelineName = .textToImage) -> [StageName] {
      bench.scheduler.status(now: bench.now).missingStages(of: model, for: pipeline, stages: stages)
    }
    #expect(missing() == [.denoiser])
    bench.join(.denoiser)
    #expect(missing() == [])
    #expect(missing(for: .imageToImage) == stages)
    #expect(bench.scheduler.status(now: bench.now).models.count == 2)
  }
}
