import ClusterCore
import Scheduling
import Testing

private let diskFull = Status(.resourceExhausted, "the disk is full", resource: .storage)

@Suite("What the journal must know first")
struct JournalTests {
  /// A bench whose journal answers when the test says so, with one worker of each stage.
  private func slowBench(run: UInt32 = 0) -> Bench {
    var bench = Bench(run: run)
    _ = bench.joinAll()
    bench.journalsAtOnce = false
    return bench
  }

  @Test func aJobBeginsAndIsAcknowledgedWhenItIsDurable() {
    var bench = slowBench()
    let submitted = bench.submit("a")
    #expect(submitted == [.journal(JournalSequence(1), .imagesAdmitted([bench.submission("a")]))])
    #expect(bench.send(.tick, after: .seconds(5)).isEmpty)
    let durable = bench.send(.journalled(through: JournalSequence(1)))
    #expect(durable.first == .admitted(ImageJobID("a")))
    #expect(offers(durable).map(\.offer.attempt) == [attempt("a", 0, 1)])
  }

  @Test func withoutSpaceAJobIsRefused() {
    var bench = slowBench()
    bench.submit("a")
    #expect(bench.send(.journalRefused(JournalSequence(1), diskFull)) == [.rejected(ImageJobID("a"), diskFull)])
    #expect(bench.scheduler.status(now: bench.now).unadmittedImages == 0)
    bench.submit("a")
    #expect(bench.send(.journalled(through: JournalSequence(2))).first == .admitted(ImageJobID("a")))
  }

  @Test func jobsThatAreNotDurableCountTowardsTheLimit() {
    var bench = Bench { $0.maxJobs = 2 }
    bench.journalsAtOnce = false
    bench.submit("a")
    bench.submit("b")
    #expect(rejection(bench.submit("c"))?.resource == .queue)
    #expect(rejection(bench.submit("a"))?.code == .alreadyExists)
  }

  @Test func aJobThatIsCancelledOnItsWayToTheJournalNeverBegins() {
    var bench = slowBench()
    let reason = Status(.cancelled, "enough")
    bench.submit("a")
    #expect(bench.send(.imageCancelled(ImageJobID("a"), reason: reason)).isEmpty)
    let durable = bench.send(.journalled(through: JournalSequence(1)))
    #expect(
      durable == [.admitted(ImageJobID("a")), .journal(JournalSequence(2), .imageFailed(ImageJobID("a"), reason))])
    #expect(events(bench.send(.journalled(through: JournalSequence(2))), of: "a") == [.failed(reason)])
  }

  @Test func clientsAreNotifiedOfAnEndWhenItIsDurable() throws {
    var bench = Bench()
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a")
    let decode = offers(try bench.complete(denoise)).first
    bench.journalsAtOnce = false
    let finished = try bench.complete(decode)
    let output = Payload(id: bench.nextPayload, byteCount: 100)
    let sequence = JournalSequence(UInt64(bench.entries.count))
    #expect(finished.contains(.journal(sequence, .imageFinished(ImageJobID("a"), output: output))))
    #expect(events(finished, of: "a").isEmpty)
    #expect(bench.held.contains(output.id))
    // A cancel comes too late: the end is decided.
    #expect(bench.send(.imageCancelled(ImageJobID("a"), reason: Status(.cancelled, "enough"))).isEmpty)
    let effects = bench.send(.journalled(through: sequence))
    #expect(effects == [.image(ImageJobID("a"), .finished(output: output)), .release(output)])
  }

  @Test func anEndThatTheJournalRefusesIsHeldAndWrittenAgain() throws {
    var bench = Bench { $0.lease = .seconds(1000) }
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a")
    let decode = offers(try bench.complete(denoise)).first
    bench.journalsAtOnce = false
    try bench.complete(decode)
    let refused = bench.send(.journalRefused(JournalSequence(UInt64(bench.entries.count)), diskFull))
    #expect(refused == [.image(ImageJobID("a"), .held(diskFull))])
    var pauses: [Duration] = []
    for _ in 0..<8 {
      let start = bench.now
      let count = bench.entries.count
      while bench.entries.count == count { bench.send(.tick, after: .milliseconds(250)) }
      pauses.append(bench.now - start)
      #expect(bench.send(.journalRefused(JournalSequence(UInt64(bench.entries.count)), diskFull)).isEmpty)
    }
    #expect(pauses == [0.5, 1, 2, 4, 8, 15, 15, 15].map { .seconds($0) })
    while bench.scheduler.status(now: bench.now).pendingEntries == 0 { bench.send(.tick, after: .seconds(1)) }
    let effects = bench.send(.journalled(through: JournalSequence(UInt64(bench.entries.count))))
    #expect(events(effects, of: "a").map(\.isTerminal) == [true])
  }

  @Test func outputsAreJournalledForAllWhoWaitForThem() throws {
    var bench = Bench()
    _ = bench.joinAll(credits: 4)
    let encode = offers(bench.submit("a", prompt: "cat")).first
    bench.submit("b", prompt: "cat")
    try bench.complete(encode)
    let places = [TaskID(job: ImageJobID("a"), index: 0), TaskID(job: ImageJobID("b"), index: 0)]
    let output = Payload(id: bench.nextPayload, byteCount: 100)
    #expect(bench.entries.contains(.taskFinished(places: places, output: output, numericsClass: "fp32")))
    // Who finds it in the cache needs it after a restart as well.
    bench.submit("c", prompt: "cat")
    let place = TaskID(job: ImageJobID("c"), index: 0)
    #expect(bench.entries.contains(.taskFinished(places: [place], output: output, numericsClass: "fp32")))
  }

  @Test func oneCheckpointAtATimeIsOnItsWayAndTheLatestFollows() throws {
    var bench = Bench()
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a", steps: 9)
    bench.journalsAtOnce = false
    let known = bench.entries.count
    for step in 1...4 { try bench.step(denoise, step) }
    #expect(checkpoints(bench, since: known) == [1])
    bench.send(.journalled(through: JournalSequence(UInt64(bench.entries.count))))
    #expect(checkpoints(bench, since: known) == [1, 4])
    // One that is refused is left out; the job continues.
    bench.send(.journalRefused(JournalSequence(UInt64(bench.entries.count)), diskFull))
    #expect(checkpoints(bench, since: known) == [1, 4])
    try bench.step(denoise, 5)
    #expect(checkpoints(bench, since: known) == [1, 4, 5])
  }

  @Test func aCheckpointComesAfterTheInputsThatLedToIt() throws {
    var bench = slowBench()
    bench.submit("a")
    bench.send(.journalled(through: JournalSequence(1)))
    let encoded = bench.send(.taskFinished(attempt("a", 0, 1), by: WorkerID(1), output: bench.payload()))
    let denoise = try #require(offers(encoded).first)
    let place = TaskID(job: ImageJobID("a"), index: 0)
    let output = Payload(id: bench.nextPayload, byteCount: 100)
    let entry = JournalEntry.taskFinished(places: [place], output: output, numericsClass: "fp32")
    let index = try #require(bench.entries.firstIndex(of: entry))
    bench.send(.journalRefused(JournalSequence(UInt64(index + 1)), diskFull))
    let count = bench.entries.count
    try bench.step(denoise, 1)
    #expect(bench.entries[count] == entry)
    #expect(checkpoints(bench, since: count) == [1])
  }

  @Test func aJournalThatIsBehindSlowsEverythingDown() throws {
    var bench = Bench { $0.maxJournalEntries = 2 }
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a", steps: 9)
    bench.journalsAtOnce = false
    for id in ["b", "c"] { #expect(rejection(bench.submit(id)) == nil) }
    let refused = rejection(bench.submit("d"))
    #expect(refused?.code == .unavailable && refused?.message.contains("2 entries") == true)
    let count = bench.entries.count
    try bench.step(denoise, 1)
    #expect(bench.entries.count == count)
  }

  private func checkpoints(_ bench: Bench, since count: Int) -> [Int] {
    bench.entries[count...].compactMap {
      if case .checkpointed(_, let checkpoint, _) = $0 { checkpoint.completedSteps } else { nil }
    }
  }
}

@Suite("After a restart")
struct RestartTests {
  /// What the journal knows of a job that lost its gateway after `completedSteps` steps.
  private func restored(
    _ bench: inout Bench, _ id: String, completedSteps: Int, steps: Int = 4, attemptNumber: UInt32 = 1
  )
    -> RestoredImageJob
  {
    let embeddings = RestoredTask(index: 0, attemptNumber: 1, output: bench.payload(), numericsClass: "fp32")
    let checkpoint = completedSteps > 0 ? Checkpoint(completedSteps: completedSteps, latents: bench.payload()) : nil
    let denoise = RestoredTask(index: 1, attemptNumber: attemptNumber, checkpoint: checkpoint, numericsClass: "fp32")
    return RestoredImageJob(submission: bench.submission(id, steps: steps), tasks: [embeddings, denoise])
  }

  @Test func aJobResumesAfterItsLastStepWithinItsClass() {
    var bench = Bench(run: 1)
    let job = restored(&bench, "a", completedSteps: 2)
    #expect(offers(bench.send(.restored([job]))).isEmpty)
    // Time for its worker to come back.
    bench.send(.tick, after: .seconds(5))
    #expect(offers(bench.join(.denoiser, numericsClass: "bf16").effects).isEmpty)
    let offer = offers(bench.join(.denoiser).effects).first?.offer
    #expect(offer?.attempt == attempt("a", 1, 4097))
    #expect(offer?.resume == job.tasks[1].checkpoint)
    #expect(offer?.inputs == job.tasks[0].output.map { [$0] })
  }

  @Test func theAttemptThatStillRunsIsTakenOver() throws {
    var bench = Bench(run: 1)
    let job = restored(&bench, "a", completedSteps: 2)
    bench.send(.restored([job]))
    let other = bench.join(.denoiser)
    #expect(offers(other.effects).isEmpty)
    let (worker, effects) = bench.join(.denoiser, name: "survivor", running: [attempt("a", 1, 1)])
    #expect(cancels(effects).isEmpty && offers(effects).isEmpty)
    let report = StepReport(completedSteps: 3, stepSeconds: 1, checkpoint: bench.payload())
    let progressed = bench.send(.taskProgressed(attempt("a", 1, 1), by: worker, report))
    #expect(events(progressed, of: "a").count == 1)
    bench.send(.taskFinished(attempt("a", 1, 1), by: worker, output: bench.payload()))
    #expect(offers(bench.join(.vaeDecoder).effects).map(\.offer.attempt) == [attempt("a", 2, 4097)])
  }

  @Test(arguments: [UInt32(2), 7]) func anAttemptThatTheJournalDoesNotKnowIsStopped(number: UInt32) {
    var bench = Bench(run: 1)
    let job = restored(&bench, "a", completedSteps: 2)
    bench.send(.restored([job]))
    let (worker, effects) = bench.join(.denoiser, running: [attempt("a", 1, number)])
    #expect(cancels(effects) == [attempt("a", 1, number)])
    let late = bench.payload()
    #expect(bench.send(.taskFinished(attempt("a", 1, number), by: worker, output: late)) == [.release(late)])
  }

  @Test func numbersOfAttemptsNeverComeAgain() {
    for (run, expected) in [
      (UInt32(0), UInt32(1)), (1, 4097), (5, 20481), (Scheduler.maxRun, Scheduler.maxRun * 4096 + 1),
    ] {
      var bench = Bench(run: run)
      bench.join(.textEncoder)
      #expect(offers(bench.submit("a")).map(\.offer.attempt.number) == [expected])
    }
  }

  @Test func aCheckpointWithoutTheInputsThatLedToItIsNotUsed() throws {
    var bench = Bench(run: 1)
    var job = restored(&bench, "a", completedSteps: 2)
    let lost = try #require(job.tasks.removeFirst().output)
    bench.held.remove(lost.id)
    let latents = try #require(job.tasks[0].checkpoint).latents
    #expect(bench.send(.restored([job])).contains(.release(latents)))
    _ = bench.join(.denoiser, running: [attempt("a", 1, 1)])
    let encode = offers(bench.join(.textEncoder).effects).first
    let denoise = offers(try bench.complete(encode)).first
    #expect(denoise == nil)
    let freed = bench.send(.taskFailed(attempt("a", 1, 1), by: WorkerID(1), Status(.cancelled, "cancelled")))
    #expect(offers(freed).map(\.offer.resume) == [nil])
  }

  @Test func implausibleCheckpointsAreNotUsed() {
    for steps in [-1, 0, 4, 5, Int.max] {
      var bench = Bench(run: 1)
      var job = restored(&bench, "a", completedSteps: 1)
      job.tasks[1].checkpoint?.completedSteps = steps
      job.tasks.append(RestoredTask(index: 99, attemptNumber: .max, output: bench.payload(), numericsClass: "fp32"))
      bench.send(.restored([job]))
      bench.send(.tick, after: .seconds(5))
      let offer = offers(bench.join(.denoiser).effects).first?.offer
      #expect(offer?.attempt.number == 4097 && offer?.resume == nil)
    }
  }

  @Test func whatWasDoneIsNotDoneAgain() throws {
    var bench = Bench(run: 1)
    _ = bench.joinAll()
    // The latents are finished, and the journal has forgotten the embeddings.
    let latents = bench.payload()
    let job = RestoredImageJob(
      submission: bench.submission("a"),
      tasks: [RestoredTask(index: 1, attemptNumber: 1, output: latents, numericsClass: "fp32")])
    let decode = offers(bench.send(.restored([job])))
    #expect(decode.map(\.offer.inputs) == [[latents]])
    let finished = try bench.complete(decode.first)
    #expect(events(finished, of: "a").contains { $0.isTerminal })
    #expect(bench.held.isEmpty)
  }

  @Test func jobsComeBackInTheirOrderAndMayBeMoreThanTheLimit() {
    var bench = Bench(run: 1) { $0.maxJobs = 2 }
    bench.send(.restored(["a", "b", "c"].map { RestoredImageJob(submission: bench.submission($0)) }))
    #expect(rejection(bench.submit("d"))?.code == .resourceExhausted)
    let effects = bench.join(.textEncoder, credits: 3).effects
    #expect(offers(effects).map(\.offer.job.text) == ["a", "b", "c"])
  }

  @Test func aDeadlineThatPassedMeanwhileEndsTheJob() {
    var bench = Bench(run: 1)
    let late = bench.submission("a", deadline: Instant(sinceZero: .seconds(-3)))
    bench.send(.restored([RestoredImageJob(submission: late)]))
    #expect(failure(bench.send(.tick), of: "a")?.code == .deadlineExceeded)
  }
}
