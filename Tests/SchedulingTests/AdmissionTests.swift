import ClusterCore
import Scheduling
import Testing

@Suite("Admission, deadlines, cancellation")
struct AdmissionTests {
  @Test func aFullQueueRefusesAndSaysWhenToComeBack() throws {
    var bench = Bench { $0.maxJobs = 2 }
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a", steps: 10)
    try bench.step(denoise, 1)
    bench.submit("b")
    let refused = bench.submit("c")
    #expect(events(refused, of: "c").isEmpty)
    let failure = try #require(rejection(refused))
    #expect(failure.code == .resourceExhausted)
    #expect(failure.message.contains("2 of 2"))
    bench.send(.imageCancelled(ImageJobID("b"), reason: Status(.cancelled, "enough")))
    #expect(rejection(bench.submit("c")) == nil)
  }

  @Test func jobsOfOneRequestAreAdmittedTogetherOrNotAtAll() {
    var bench = Bench { $0.maxJobs = 2 }
    let three = ["a", "b", "c"].map { bench.submission($0) }
    let effects = bench.send(.imagesSubmitted(three))
    #expect(effects.count == 3)
    #expect(rejection(effects)?.code == .resourceExhausted)
    #expect(bench.scheduler.status(now: bench.now).queuedImages == 0)
    #expect(rejection(bench.send(.imagesSubmitted(Array(three.prefix(2))))) == nil)
    #expect(bench.scheduler.status(now: bench.now).queuedImages == 2)
  }

  @Test func anIdIsNotUsedTwice() {
    var bench = Bench()
    bench.submit("a")
    let again = bench.submit("a")
    #expect(rejection(again)?.code == .alreadyExists)
    #expect(failure(again, of: "a") == nil)
    let twins = [bench.submission("b"), bench.submission("b")]
    #expect(rejection(bench.send(.imagesSubmitted(twins)))?.code == .alreadyExists)
  }

  @Test func aDeadlineEndsTheJobWhereverItIs() throws {
    var bench = Bench()
    let deadline = Instant(sinceZero: .seconds(60))
    bench.submit("early", deadline: deadline)
    let early = bench.send(.tick, after: .seconds(60))
    #expect(failure(early, of: "early")?.code == .deadlineExceeded)
    #expect(failure(early, of: "early")?.message.contains("waited for a text-encoder") == true)
    #expect(rejection(bench.submit("late", deadline: deadline))?.code == .deadlineExceeded)

    bench = Bench()
    _ = bench.joinAll()
    let encode = offers(bench.submit("a", deadline: deadline)).first
    #expect(encode?.offer.deadline == deadline)
    let denoise = offers(try bench.complete(encode)).first
    try bench.step(denoise, 2)
    bench.send(.workerReported(WorkerID(2), WorkerReport(running: [attempt("a", 1, 1)])), after: .seconds(50))
    let effects = bench.send(.tick, after: .seconds(10))
    #expect(failure(effects, of: "a")?.message.contains("after 2 of 4 steps") == true)
    #expect(cancels(effects) == [attempt("a", 1, 1)])
  }

  @Test func aSharedTaskHasTheLatestDeadlineOfItsWaiters() {
    var bench = Bench()
    bench.submit("a", prompt: "cat", deadline: Instant(sinceZero: .seconds(10)))
    bench.submit("b", prompt: "cat", deadline: Instant(sinceZero: .seconds(20)))
    #expect(offers(bench.join(.textEncoder).effects).first?.offer.deadline == Instant(sinceZero: .seconds(20)))
    bench.submit("c", prompt: "dog", deadline: Instant(sinceZero: .seconds(10)))
    bench.submit("d", prompt: "dog")
    #expect(offers(bench.join(.textEncoder).effects).first?.offer.deadline == nil)
  }

  @Test(arguments: 0..<6) func aJobCanBeCancelledInEveryPhase(phase: Int) throws {
    var bench = Bench()
    let reason = Status(.cancelled, "enough")
    let workers = bench.joinAll()
    var expectedCancel: AttemptID?
    if phase == 0 {
      bench = Bench()
      bench.submit("a")
    } else {
      var last = offers(bench.submit("a")).first
      expectedCancel = attempt("a", 0, 1)
      if phase >= 2 { last = offers(try bench.complete(last)).first; expectedCancel = attempt("a", 1, 1) }
      if phase >= 3 { try bench.step(last, 2) }
      if phase == 4 {
        // Between two attempts: nothing runs.
        bench.send(.workerLeft(workers.denoiser, reason: "crash"))
        expectedCancel = nil
      }
      if phase == 5 { last = offers(try bench.complete(last)).first; expectedCancel = attempt("a", 2, 1) }
    }
    let effects = bench.send(.imageCancelled(ImageJobID("a"), reason: reason))
    #expect(events(effects, of: "a") == [.failed(reason)])
    #expect(cancels(effects) == [expectedCancel].compactMap { $0 })
    // Nothing but the cached prompt is kept, and nothing more is said of the job.
    #expect(bench.held.count == (phase >= 2 ? 1 : 0))
    #expect(bench.send(.imageCancelled(ImageJobID("a"), reason: reason)).isEmpty)
    for wait in 0..<3 { #expect(events(bench.send(.tick, after: .seconds(wait)), of: "a").isEmpty) }
  }

  @Test func aCancelledAttemptKeepsItsCreditUntilTheWorkerLetsGo() throws {
    var bench = Bench()
    let (_, denoiser, _) = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a")
    bench.send(.imageCancelled(ImageJobID("a"), reason: Status(.cancelled, "enough")))
    let encode = offers(bench.submit("b")).first
    #expect(offers(try bench.complete(encode)).isEmpty)
    let freed = bench.send(.taskFailed(denoise.offer.attempt, by: denoiser, Status(.cancelled, "stopped")))
    #expect(offers(freed).map(\.offer.attempt) == [attempt("b", 1, 1)])
    // The same when it finishes all the same.
    bench.send(.imageCancelled(ImageJobID("b"), reason: Status(.cancelled, "enough")))
    let output = bench.payload()
    let late = bench.send(.taskFinished(attempt("b", 1, 1), by: denoiser, output: output))
    #expect(late == [.release(output)])
    #expect(bench.scheduler.status(now: bench.now).workers[1].freeCredits == 1)
  }
}
