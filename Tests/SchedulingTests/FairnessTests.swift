import Scheduling
import Testing

@Suite("Tenants and priorities")
struct FairnessTests {
  /// Jobs in the order in which the only denoiser takes them, with the tenant as the first letter of their names.
  private func served(_ bench: inout Bench, count: Int) throws -> [String] {
    var order: [String] = []
    var queue =
      offers(bench.join(.textEncoder, credits: 64).effects) + offers(bench.join(.vaeDecoder, credits: 64).effects)
    let (denoiser, effects) = bench.join(.denoiser)
    queue += offers(effects)
    while order.count < count, !queue.isEmpty {
      // Everything else is fast: the denoiser is what they wait for.
      let index = queue.firstIndex { $0.worker != denoiser } ?? 0
      let next = queue.remove(at: index)
      if next.worker == denoiser { order.append(next.offer.job.text) }
      queue += offers(try bench.complete(next, after: .milliseconds(1)))
    }
    return order
  }

  private func submit(_ bench: inout Bench, _ id: String, steps: Int = 4, priority: JobPriority = .interactive)
    -> [Effect]
  {
    var submission = bench.submission(id, steps: steps)
    submission.tenant = TenantID(String(id.prefix(1)))
    submission.priority = priority
    return bench.send(.imagesSubmitted([submission]))
  }

  @Test func whoAsksForMuchDoesNotDelayTheOthers() throws {
    var bench = Bench { $0.encodeAheadJobs = 100 }
    for number in 1...6 { _ = submit(&bench, "a\(number)") }
    for id in ["b1", "b2"] { _ = submit(&bench, id) }
    #expect(try served(&bench, count: 8) == ["a1", "b1", "a2", "b2", "a3", "a4", "a5", "a6"])
  }

  @Test func sharesFollowTheWeights() throws {
    var bench = Bench { $0.encodeAheadJobs = 100 }
    bench.send(.tenantsChanged([Tenant(id: TenantID("a"), policy: TenantPolicy(weight: 3))]))
    for number in 1...16 { for tenant in ["a", "b"] { _ = submit(&bench, "\(tenant)\(number)") } }
    let first = try served(&bench, count: 16)
    #expect(first.count { $0.hasPrefix("a") } == 12)
  }

  @Test func sharesCountTheWorkNotTheJobs() throws {
    var bench = Bench { $0.encodeAheadJobs = 100 }
    for number in 1...10 {
      _ = submit(&bench, "a\(number)", steps: 20)
      _ = submit(&bench, "b\(number)", steps: 5)
    }
    let first = try served(&bench, count: 10)
    // Four short jobs for each long one.
    #expect(first.count { $0.hasPrefix("a") } == 2)
  }

  @Test func whoPausedDoesNotSaveUp() throws {
    var bench = Bench { $0.encodeAheadJobs = 100 }
    for number in 1...8 { _ = submit(&bench, "a\(number)") }
    #expect(try served(&bench, count: 4) == ["a1", "a2", "a3", "a4"])
    for number in 1...3 { _ = submit(&bench, "b\(number)") }
    let (_, effects) = bench.join(.denoiser, credits: 8)
    #expect(offers(effects).isEmpty == false)
    let begun = offers(effects).map(\.offer.job.text)
    #expect(begun.prefix(3).count { $0.hasPrefix("b") } <= 2, "\(begun)")
  }

  @Test func aTenantsQueueIsBounded() {
    var bench = Bench()
    bench.send(.tenantsChanged([Tenant(id: TenantID("a"), policy: TenantPolicy(maxJobs: 2))]))
    for id in ["a1", "a2", "b1", "b2", "b3"] { #expect(rejection(submit(&bench, id)) == nil) }
    let refused = rejection(submit(&bench, "a3"))
    #expect(refused?.resource == .tenantQueue)
    #expect(refused?.message.contains("2 of 2") == true)
    bench.send(.tenantsChanged([Tenant(id: TenantID("a"), policy: TenantPolicy(maxJobs: 3))]))
    #expect(rejection(submit(&bench, "a3")) == nil)
  }

  @Test func batchJobsComeAfterInteractiveOnesUntilTheyHaveWaitedLong() throws {
    var bench = Bench { $0.encodeAheadJobs = 100 }
    _ = submit(&bench, "a1", priority: .batch)
    let interactive = submit(&bench, "b1")
    #expect(events(interactive, of: "b1") == [.queued(position: 1, secondsLeft: nil)])
    #expect(events(interactive, of: "a1") == [.queued(position: 2, secondsLeft: nil)])
    // After its patience is over it is in the queue where it came.
    let patience = bench.scheduler.configuration.batchPatience
    let aged = bench.send(.tick, after: patience)
    #expect(events(aged, of: "a1") == [.queued(position: 1, secondsLeft: nil)])
    _ = submit(&bench, "c1")
    #expect(try served(&bench, count: 3) == ["a1", "b1", "c1"])
  }

  @Test func whatWasBegunComesFirst() throws {
    var bench = Bench { $0.encodeAheadJobs = 100 }
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a")
    bench.send(.workerLeft(denoise.worker, reason: "crash"))
    for number in 1...3 { _ = submit(&bench, "b\(number)") }
    #expect(offers(bench.join(.denoiser).effects).map(\.offer.job.text) == ["a"])
  }

  @Test func weightsThatAreNoneAreTheSmallest() {
    for weight in [0, -1, Double.nan, .infinity] { #expect(TenantPolicy(weight: weight).weight == 0.001) }
  }
}

@Suite("Slow and sleeping processes")
struct PaceTests {
  private func progress(_ bench: inout Bench, _ offer: (offer: Offer, worker: WorkerID), step: Int, seconds: Double)
    -> [Effect]
  {
    let report = StepReport(completedSteps: step, stepSeconds: seconds, checkpoint: bench.payload())
    return bench.send(.taskProgressed(offer.offer.attempt, by: offer.worker, report), after: .seconds(seconds))
  }

  /// A fast denoiser that has shown its pace, and a slow one that has a job of its own.
  private func slowAndFast(_ factor: Double?) throws -> (Bench, slow: (offer: Offer, worker: WorkerID), fast: WorkerID)
  {
    var bench = Bench {
      $0.slowWorkerFactor = factor
      $0.lease = .seconds(10_000)
    }
    _ = bench.joinAll()
    let first = try bench.bringToDenoiser("a", steps: 2)
    _ = progress(&bench, first, step: 1, seconds: 1)
    let slow = bench.join(.denoiser, name: "slow").worker
    let second = try bench.bringToDenoiser("b", steps: 8)
    #expect(second.worker == slow)
    bench.send(.taskAccepted(second.offer.attempt, by: slow))
    try bench.complete(first)
    return (bench, second, first.worker)
  }

  @Test func aSlowWorkersTaskIsMovedIfThatIsConfigured() throws {
    var (bench, slow, fast) = try slowAndFast(3)
    _ = progress(&bench, slow, step: 1, seconds: 10)
    let moved = bench.send(.tick)
    #expect(cancels(moved) == [slow.offer.attempt])
    let offer = try #require(offers(moved).first)
    #expect(offer.worker == fast && offer.offer.resume?.completedSteps == 1)
    // And stays there.
    #expect(cancels(bench.send(.tick, after: .seconds(1))).isEmpty)
  }

  @Test(arguments: [nil, 20.0]) func otherwiseItStays(factor: Double?) throws {
    var (bench, slow, _) = try slowAndFast(factor)
    _ = progress(&bench, slow, step: 1, seconds: 10)
    #expect(cancels(bench.send(.tick)).isEmpty)
  }

  @Test func aFirstStepIsJudgedByTheWorkersEarlierOnes() throws {
    var bench = Bench {
      $0.lease = .seconds(100_000)
      $0.stepLimit = .seconds(5)
    }
    _ = bench.joinAll()
    let first = try bench.bringToDenoiser("a", steps: 4)
    for step in 1...3 { _ = progress(&bench, first, step: step, seconds: 2) }
    try bench.complete(first)
    let second = try bench.bringToDenoiser("b", steps: 4)
    bench.send(.taskAccepted(second.offer.attempt, by: second.worker))
    // Eight times two seconds, instead of an hour.
    #expect(cancels(bench.send(.tick, after: .seconds(15))).isEmpty)
    #expect(cancels(bench.send(.tick, after: .seconds(2))) == [second.offer.attempt])
  }

  @Test func aGatewayThatSleptBlamesNoWorker() throws {
    var bench = Bench()
    _ = bench.joinAll()
    let denoise = try bench.bringToDenoiser("a", steps: 4)
    try bench.step(denoise, 1)
    bench.send(.tick)
    // SIGSTOP, a suspended machine: what workers sent waits to be read.
    let woken = bench.send(.tick, after: .seconds(3600))
    #expect(woken.isEmpty)
    #expect(bench.scheduler.status(now: bench.now).workers.count == 3)
    // From now on silence counts again.
    for _ in 0..<21 { bench.send(.tick, after: .seconds(1)) }
    #expect(bench.scheduler.status(now: bench.now).workers.isEmpty)
  }
}
