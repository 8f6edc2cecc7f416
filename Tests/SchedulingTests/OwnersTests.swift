import ClusterCore
import Scheduling
import Testing

extension Bench {
  /// One of several owners of a journal.
  init(owner: Int64, _ configure: (inout SchedulingConfiguration) -> Void = { _ in }) {
    self.init()
    var configuration = SchedulingConfiguration()
    configuration.strayGrace = .seconds(30)
    configure(&configuration)
    scheduler = Scheduler(configuration: configuration, owner: owner)
  }

  /// A job whose owner has ended while attempt `number` was at step `completedSteps`.
  fileprivate mutating func orphan(_ id: String, number: UInt32 = 1, completedSteps: Int = 2) -> RestoredImageJob {
    let embeddings = RestoredTask(index: 0, attemptNumber: 1, output: payload(), numericsClass: "fp32")
    let checkpoint = completedSteps > 0 ? Checkpoint(completedSteps: completedSteps, latents: payload()) : nil
    let denoise = RestoredTask(index: 1, attemptNumber: number, checkpoint: checkpoint, numericsClass: "fp32")
    return RestoredImageJob(submission: submission(id), tasks: [embeddings, denoise])
  }
}

private func claims(_ effects: [Effect]) -> [WorkerID: [AttemptID]] {
  effects.reduce(into: [:]) { if case .claim(let attempts, let worker) = $1 { $0[worker, default: []] += attempts } }
}

private let noCredits = Status(.resourceExhausted, "all 1 credits are in use")

@Suite("Jobs that change hands")
struct AdoptionTests {
  @Test func anAttemptThatAWorkerClaimsContinues() throws {
    var bench = Bench(owner: 2)
    let (_, denoiser, _) = bench.joinAll()
    let bf16 = bench.join(.denoiser, numericsClass: "bf16").worker
    let adopted = bench.send(.adopted([bench.orphan("a")]))
    #expect(offers(adopted).isEmpty)
    // Only workers that could run it are asked.
    #expect(claims(adopted) == [denoiser: [attempt("a", 1, 1)]])
    #expect(claims(adopted)[bf16] == nil)
    // One that comes later is asked as well.
    let late = bench.join(.denoiser)
    #expect(claims(late.effects) == [late.worker: [attempt("a", 1, 1)]])
    // It registers again on its connection.
    bench.nextWorker += 1
    var registration = bench.registration(
      .denoiser, id: bench.nextWorker, name: "denoiser-\(denoiser.number)", running: [attempt("a", 1, 1)])
    registration.keepsConnection = true
    let effects = bench.send(.workerRegistered(registration))
    #expect(cancels(effects).isEmpty && offers(effects).isEmpty && claims(effects).isEmpty)
    try bench.step((Offer(attempt("a", 1, 1)), registration.id), 3)
    #expect(offers(bench.send(.tick, after: .seconds(6))).isEmpty)
    let decode = offers(try bench.complete((Offer(attempt("a", 1, 1)), registration.id))).first
    #expect(decode?.offer.attempt == attempt("a", 2, 4097) || decode == nil)
  }

  @Test func whatNoWorkerClaimsIsOfferedAgainFromItsCheckpoint() throws {
    var bench = Bench(owner: 2)
    _ = bench.joinAll()
    let job = bench.orphan("a")
    bench.send(.adopted([job]))
    #expect(offers(bench.send(.tick, after: .seconds(4))).isEmpty)
    let offer = try #require(offers(bench.send(.tick, after: .seconds(1))).first?.offer)
    // In a block of numbers that its earlier owner cannot have used.
    #expect(offer.attempt == attempt("a", 1, 4097))
    #expect(offer.resume == job.tasks[1].checkpoint)
    // Who comes with the old attempt now is too late.
    let (_, effects) = bench.join(.denoiser, running: [attempt("a", 1, 1)])
    #expect(cancels(effects) == [attempt("a", 1, 1)])
  }

  /// Otherwise the next owner, should this one end at once, would use the same numbers.
  @Test func anAdoptersNumbersAreDurableBeforeTheyAreOffered() throws {
    var bench = Bench(owner: 2)
    _ = bench.joinAll()
    bench.journalsAtOnce = false
    bench.send(.adopted([bench.orphan("a")]))
    let place = TaskID(job: ImageJobID("a"), index: 1)
    #expect(bench.entries == [.attemptStarted(attempt("a", 1, 4097), places: [place])])
    #expect(offers(bench.send(.tick, after: .seconds(6))).isEmpty)
    let full = Status(.resourceExhausted, "full", resource: .storage)
    #expect(offers(bench.send(.journalRefused(JournalSequence(1), full))).isEmpty)
    #expect(offers(bench.send(.tick, after: .seconds(1))).isEmpty)
    #expect(bench.entries.count == 2)
    let durable = bench.send(.journalled(through: JournalSequence(2)))
    #expect(offers(durable).map(\.offer.attempt) == [attempt("a", 1, 4097)])
    // It need not be written again.
    #expect(bench.entries.count == 2)
  }

  @Test func theNextOwnerTakesTheNextBlock() throws {
    var bench = Bench(owner: 1)
    _ = bench.joinAll()
    bench.send(.adopted([bench.orphan("a", number: 4097)]))
    #expect(offers(bench.send(.tick, after: .seconds(6))).first?.offer.attempt == attempt("a", 1, 8193))
  }

  @Test func jobsOfItsOwnComeFirstAndAreNumberedFromOne() throws {
    var bench = Bench(owner: 7)
    #expect(offers(bench.submit("b")).isEmpty)
    bench.send(.adopted([RestoredImageJob(submission: bench.submission("a"))]))
    let encoder = bench.join(.textEncoder)
    #expect(offers(encoder.effects).map(\.offer.attempt) == [attempt("b", 0, 1)])
    let next = try bench.complete(offers(encoder.effects).first)
    #expect(offers(next).map(\.offer.attempt) == [attempt("a", 0, 4097)])
  }

  @Test func aJobThatIsHereIsNotAdopted() {
    var bench = Bench(owner: 2)
    bench.submit("a")
    let job = bench.orphan("a")
    let effects = bench.send(.adopted([job]))
    #expect(effects.allSatisfy { if case .release = $0 { true } else { false } } && effects.count == 2)
    #expect(bench.held.isEmpty)
  }

  @Test func aJobWithoutNumbersFails() {
    var bench = Bench(owner: 2)
    let effects = bench.send(.adopted([bench.orphan("a", number: .max)]))
    #expect(failure(effects, of: "a")?.code == .internal)
    #expect(bench.held.isEmpty)
  }

  /// Its gateway has ended, and the job is not adopted yet.
  @Test func anAttemptOfAnUnknownJobIsLeftAloneUntilItsJobComes() throws {
    var bench = Bench(owner: 2)
    let (worker, effects) = bench.join(.denoiser, running: [attempt("a", 1, 1)])
    #expect(cancels(effects).isEmpty)
    #expect(bench.scheduler.status(now: bench.now).workers[0].freeCredits == 0)
    bench.send(.workerReported(worker, WorkerReport(running: [attempt("a", 1, 1)])), after: .seconds(5))
    let adopted = bench.send(.adopted([bench.orphan("a")]))
    #expect(claims(adopted).isEmpty && offers(adopted).isEmpty && cancels(adopted).isEmpty)
    try bench.step((Offer(attempt("a", 1, 1)), worker), 3)
    #expect(bench.scheduler.status(now: bench.now).workers[0].running == [attempt("a", 1, 1)])
  }

  @Test func aStrayIsStoppedAfterAWhile() throws {
    var bench = Bench(owner: 2) { $0.lease = .seconds(1000) }
    let (worker, _) = bench.join(.denoiser, running: [attempt("a", 1, 1)])
    #expect(cancels(bench.send(.tick, after: .seconds(29))).isEmpty)
    #expect(cancels(bench.send(.tick, after: .seconds(1))) == [attempt("a", 1, 1)])
    #expect(cancels(bench.send(.tick, after: .seconds(1))).isEmpty)
    bench.send(.taskFailed(attempt("a", 1, 1), by: worker, Status(.cancelled, "stopped")))
    #expect(bench.scheduler.status(now: bench.now).workers[0].freeCredits == 1)
  }

  @Test func whatRunsForAJobThatEndedHereIsNoStray() throws {
    var bench = Bench(owner: 2)
    bench.submit("a")
    bench.send(.imageCancelled(ImageJobID("a"), reason: Status(.cancelled, "enough")))
    #expect(cancels(bench.join(.denoiser, running: [attempt("a", 1, 1)]).effects) == [attempt("a", 1, 1)])
  }

  @Test func everythingIsDroppedWhenTheJobsAreNoLongerItsOwn() throws {
    var bench = Bench(owner: 2)
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a")
    try bench.step(denoise, 1)
    bench.journalsAtOnce = false
    bench.submit("b")
    let count = bench.entries.count
    let effects = bench.send(.disowned(Status(.unavailable, "another gateway has the jobs")))
    #expect(effects.filter { if case .disowned = $0 { true } else { false } }.count == 2)
    #expect(cancels(effects).isEmpty && bench.entries.count == count && bench.held.isEmpty)
    #expect(bench.send(.journalled(through: JournalSequence(UInt64(count)))).isEmpty)
    #expect(rejection(bench.submit("c"))?.code == .unavailable)
    // What its workers say is of no use any more.
    let late = bench.payload()
    #expect(bench.send(.taskFinished(denoise.offer.attempt, by: denoise.worker, output: late)) == [.release(late)])
    #expect(bench.send(.adopted([bench.orphan("d")])).count == 2)
    #expect(bench.held.isEmpty)
  }
}

extension Offer {
  fileprivate init(_ attempt: AttemptID) {
    self.init(
      attempt: attempt, job: attempt.task.job, index: attempt.task.index, inputs: [], resume: nil, deadline: nil)
  }
}

@Suite("Workers of several gateways")
struct SharedWorkerTests {
  @Test func afterARefusalOtherFreeWorkersAreTriedAndNotThisOneUntilItReports() throws {
    var bench = Bench(owner: 1)
    let busy = bench.join(.textEncoder, credits: 4).worker
    let first = try #require(offers(bench.submit("a")).first)
    #expect(first.worker == busy)
    let other = bench.join(.textEncoder).worker
    let second = bench.send(.taskFailed(first.offer.attempt, by: busy, noCredits))
    // One refusal says that none of its four credits is free.
    #expect(offers(second).map(\.worker) == [other])
    #expect(offers(bench.submit("b")).isEmpty)
    let report = bench.send(.workerReported(busy, WorkerReport(running: [], foreignCount: 3)))
    #expect(offers(report).map(\.worker) == [busy])
  }

  @Test func refusalsPoisonNoJobAndDoNotLoop() throws {
    var bench = Bench(owner: 1) {
      $0.maxAttempts = 1
      $0.maxWorkerFaults = 1
      $0.lease = .seconds(100_000)
    }
    let worker = bench.join(.textEncoder).worker
    bench.submit("a")
    var lastNumber: UInt32 = 0
    var count = 0
    let start = bench.now
    while count < 5000 {
      guard
        let offer = offers(bench.send(.workerReported(worker, WorkerReport(running: [])), after: .milliseconds(100)))
          .first?.offer ?? (count == 0 ? Offer(attempt("a", 0, 1)) : nil)
      else { continue }
      #expect(offer.attempt.number > lastNumber)
      lastNumber = offer.attempt.number
      count += 1
      let refused = bench.send(.taskFailed(offer.attempt, by: worker, noCredits))
      #expect(failure(refused, of: "a") == nil && offers(refused).isEmpty)
    }
    // Once a second from the tenth on.
    #expect(bench.now - start > .seconds(4900))
    #expect(lastNumber > 5000)
    #expect(bench.scheduler.status(now: bench.now).workers[0].state == .ready)
    let last = try #require(
      offers(bench.send(.workerReported(worker, WorkerReport(running: [])), after: .seconds(2))).first)
    #expect(offers(try bench.complete(last)).isEmpty)
  }
}

@Suite("Which owner gets a worker")
struct YieldingTests {
  /// A bench whose only denoiser has just become free, with one job that waits for it.
  private func freed(_ others: OwnerLoad) throws -> (bench: Bench, offers: [Offer]) {
    var bench = Bench(owner: 1) { $0.yieldTime = .milliseconds(250) }
    _ = bench.joinAll()
    let first = try bench.bringToDenoiser("a")
    let encode = offers(bench.submit("b")).first
    try bench.complete(encode)
    bench.send(.othersChanged([2: others]))
    let freed = try bench.complete(first)
    return (bench, offers(freed).map(\.offer).filter { $0.index == 1 })
  }

  private func waiting(_ waitSeconds: Double, tenant: TenantID = .anonymous) -> OwnerLoad {
    OwnerLoad(tenants: [TenantLoad(tenant: tenant, openJobs: 1, waitingJobs: 1, waitSeconds: waitSeconds)])
  }

  @Test func aWorkerThatIsFreeAgainIsLeftToTheOwnerThatHasWaitedLonger() throws {
    var (bench, offered) = try freed(waiting(100))
    #expect(offered.isEmpty)
    #expect(offers(bench.send(.tick, after: .milliseconds(200))).filter { $0.offer.index == 1 }.isEmpty)
    // It was not wanted.
    let late = offers(bench.send(.tick, after: .milliseconds(50)))
    #expect(late.filter { $0.offer.index == 1 }.map(\.offer.job.text) == ["b"])
  }

  @Test func otherwiseItIsTakenAtOnce() throws {
    #expect(try freed(waiting(1)).offers.map(\.job.text) == ["b"])
    #expect(try freed(OwnerLoad()).offers.map(\.job.text) == ["b"])
    // Batch jobs come later however long they wait.
    let batch = TenantLoad(tenant: .anonymous, openJobs: 1, waitingBatchJobs: 1, waitSeconds: 500)
    #expect(try freed(OwnerLoad(tenants: [batch])).offers.map(\.job.text) == ["b"])
  }

  @Test func ownersBeginWithDifferentWorkers() {
    var chosen: Set<WorkerID> = []
    for owner in Int64(1)...8 {
      var bench = Bench(owner: owner)
      for _ in 0..<16 { bench.join(.textEncoder) }
      chosen.formUnion(offers(bench.submit("a")).map(\.worker))
    }
    #expect(chosen.count > 4)
    var alone = Bench()
    for _ in 0..<16 { alone.join(.textEncoder) }
    #expect(offers(alone.submit("a")).map(\.worker) == [WorkerID(1)])
  }
}

@Suite("Loads of other owners")
struct OwnerLoadTests {
  private func load(_ tenant: String, openJobs: Int, served: Double = 0) -> OwnerLoad {
    OwnerLoad(tenants: [TenantLoad(tenant: TenantID(tenant), openJobs: openJobs, served: served)])
  }

  @Test func jobsOfAllOwnersCountTowardsTheLimits() {
    var bench = Bench(owner: 1) { $0.maxJobs = 10 }
    bench.send(.tenantsChanged([Tenant(id: TenantID("t"), policy: TenantPolicy(maxJobs: 3))]))
    bench.send(.othersChanged([2: load("t", openJobs: 2), 3: load("u", openJobs: 6), 1: load("x", openJobs: 99)]))
    func submit(_ id: String, _ tenant: String) -> Status? {
      var submission = bench.submission(id)
      submission.tenant = TenantID(tenant)
      return rejection(bench.send(.imagesSubmitted([submission])))
    }
    #expect(submit("a", "t") == nil)
    #expect(submit("b", "t")?.message.contains("3 of 3") == true)
    #expect(submit("c", "u") == nil)
    #expect(submit("d", "u")?.message.contains("10 of 10") == true)
    // What the other ones do not have any more does not count.
    bench.send(.othersChanged([3: load("u", openJobs: 1)]))
    #expect(submit("e", "t") == nil)
  }

  @Test func itsOwnLoadIsBounded() {
    var bench = Bench(owner: 1) { $0.maxJobs = 1000 }
    for number in 0..<300 {
      var submission = bench.submission("j\(number)")
      submission.tenant = TenantID("t\(number)")
      bench.send(.imagesSubmitted([submission]))
    }
    bench.submit("one more")
    let load = bench.scheduler.load(now: bench.now + .seconds(7))
    #expect(load.tenants.count == OwnerLoad.maxTenants)
    #expect(load.openJobs == 301)
    #expect(load.tenants.allSatisfy { $0.waitingJobs == 1 && $0.waitSeconds == 7 })
  }

  @Test func whatOthersServeCountsTowardsATenantsShare() throws {
    var bench = Bench(owner: 1) { $0.encodeAheadJobs = 100 }
    bench.join(.textEncoder, credits: 64)
    bench.join(.vaeDecoder, credits: 64)
    bench.send(.othersChanged([2: load("a", openJobs: 5)]))
    var queue: [(offer: Offer, worker: WorkerID)] = []
    for number in 1...8 {
      for tenant in ["b", "a"] {
        var submission = bench.submission("\(tenant)\(number)")
        submission.tenant = TenantID(tenant)
        queue += offers(bench.send(.imagesSubmitted([submission])))
      }
    }
    // The other owner has begun four jobs of tenant a.
    bench.send(.othersChanged([2: load("a", openJobs: 5, served: 4 * 4 * 16)]))
    let (denoiser, _) = bench.join(.denoiser)
    var order: [String] = []
    while order.count < 8, !queue.isEmpty {
      let next = queue.remove(at: queue.firstIndex { $0.worker != denoiser } ?? 0)
      if next.worker == denoiser { order.append(next.offer.job.text) }
      queue += offers(try bench.complete(next, after: .milliseconds(1)))
    }
    #expect(order.prefix(5).count { $0.hasPrefix("b") } >= 4, "\(order)")
    #expect(order.suffix(3).count { $0.hasPrefix("a") } >= 1, "\(order)")
    let served = bench.scheduler.load(now: bench.now).tenants.map(\.served).reduce(0, +)
    // The ninth has begun as well.
    #expect(served == Double(9 * 4 * 16))
  }

  /// What a tenant had while no other one waited is not held against it.
  @Test func idleTimeIsNotSavedUpAcrossOwners() throws {
    var bench = Bench(owner: 1) { $0.encodeAheadJobs = 100 }
    bench.send(.othersChanged([2: load("a", openJobs: 1)]))
    bench.send(.othersChanged([2: load("a", openJobs: 1, served: 1e6)]))
    _ = bench.joinAll()
    bench.send(.othersChanged([2: load("a", openJobs: 1, served: 1e6)]))
    func queue(_ id: String) {
      var submission = bench.submission(id)
      submission.tenant = TenantID(String(id.prefix(1)))
      bench.send(.imagesSubmitted([submission]))
    }
    for id in ["x1", "a1", "b1", "b2", "a2", "b3"] { queue(id) }
    let load = bench.scheduler.load(now: bench.now)
    #expect(load.openJobs == 6)
  }

  @Test func implausibleLoadsCountAsNone() {
    let load = TenantLoad(
      tenant: TenantID("a"), openJobs: -1, waitingJobs: -1, waitingBatchJobs: -1, waitSeconds: .nan, served: -.infinity)
    #expect(load == TenantLoad(tenant: TenantID("a"), openJobs: 0))
    let large = TenantLoad(tenant: TenantID("a"), openJobs: .max)
    #expect(OwnerLoad(tenants: [large, large], otherJobs: .max).openJobs == 1 << 40)
  }
}
