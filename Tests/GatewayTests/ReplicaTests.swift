import ClusterCore
import Foundation
import Gateway
import GatewayAPI
import GatewayDispatch
import GatewayPipelines
import HTTPTesting
import Hummingbird
import ImageCodec
import Journal
import Scheduling
import Synchronization
import TestSupport
import Testing

/// Several gateways of one journal.
@Suite(.timeLimit(.minutes(1)))
struct ReplicaTests {
  private static func expected(_ prompt: String, steps: Int = 4, seed: UInt64 = 7) -> [UInt8] {
    Toy.expected(prompt: prompt, seed: seed, steps: steps)
  }

  // MARK: Any gateway answers

  @Test func aJobIsFollowedAtAnotherGateway() async throws {
    try await ReplicaCluster.run { cluster in
      let replicas = try await cluster.start(count: 2)
      let denoiser = try await cluster.join(replicas[0], stepTime: .milliseconds(20))
      let ticket = try await replicas[0].dispatcher.submit(ReplicaCluster.request("fox", steps: 20))
      let other = replicas[1].dispatcher
      let events = try #require(try await other.events(of: ticket.id, tenant: .anonymous, after: nil))
      var steps: [Int] = [], ids: [String] = [], image: EncodedImage?
      for await event in events {
        // The end may come from the journal: the owner of a job that has ended does not know it any more.
        if !event.update.isTerminal { ids.append(event.id) }
        if case .progressed(let step, let count, _) = event.update {
          #expect(count == 20)
          steps.append(step)
        }
        if case .finished(let result) = event.update { image = result }
      }
      #expect(image?.array == Self.expected("fox", steps: 20))
      #expect(steps == steps.sorted() && Set(steps).count == steps.count && steps.count > 10)
      // The owner's own numbers: a client may continue at either gateway.
      #expect(ids.allSatisfy { $0.hasPrefix("\(replicas[0].journal.epoch)-") })
      #expect(await denoiser.log.steps == 20)
      #expect(await other.followedJobCount == 0)
    }
  }

  @Test func aClientThatChangesTheGatewayMissesNothingAndGetsNothingTwice() async throws {
    try await ReplicaCluster.run { cluster in
      let replicas = try await cluster.start(count: 3)
      try await cluster.join(replicas[0], stepTime: .milliseconds(15))
      let ticket = try await replicas[0].dispatcher.submit(ReplicaCluster.request("fox", steps: 30))
      var last: String?
      var numbers: [UInt64] = []
      var isOver = false, turn = 0
      while !isOver {
        let dispatcher = replicas[turn % 3].dispatcher
        turn += 1
        guard let events = try await dispatcher.events(of: ticket.id, tenant: .anonymous, after: last) else { break }
        var count = 0
        for await event in events {
          if event.update.isTerminal { isOver = true }
          if case .previewed = event.update { continue }
          last = event.id
          if let position = EventPosition(event.id) { numbers.append(position.number) }
          count += 1
          if count == 5 { break }
        }
      }
      // The first state has the number of the event before.
      #expect(numbers == (0..<UInt64(numbers.count)).map { numbers[0] + $0 })
    }
  }

  @Test func lostMessagesAreAskedForAgain() async throws {
    try await ReplicaCluster.run { cluster in
      cluster.memory.lose(every: 3)
      let replicas = try await cluster.start(count: 2)
      try await cluster.join(replicas[0], stepTime: .milliseconds(10))
      let ticket = try await replicas[0].dispatcher.submit(ReplicaCluster.request("owl", steps: 40))
      let events = try #require(
        try await replicas[1].dispatcher.events(of: ticket.id, tenant: .anonymous, after: nil))
      var image: EncodedImage?, steps: [Int] = []
      for await event in events {
        if case .progressed(let step, _, _) = event.update { steps.append(step) }
        if case .finished(let result) = event.update { image = result }
      }
      #expect(image?.array == Self.expected("owl", steps: 40))
      #expect(steps == steps.sorted() && Set(steps).count == steps.count)
    }
  }

  @Test func stateListsAndResultsAreTheSameAtEveryGateway() async throws {
    try await ReplicaCluster.run { cluster in
      let replicas = try await cluster.start(count: 2)
      try await cluster.join(replicas[0], stepTime: .milliseconds(30))
      let ticket = try await replicas[0].dispatcher.submit(ReplicaCluster.request("cat", steps: 40))
      let other = replicas[1].dispatcher
      try await wait("the other gateway shows steps") {
        try await other.snapshot(of: ticket.id, tenant: .anonymous)?.images[0].step ?? 0 > 2
      }
      let page = try #require(try await other.jobs(of: .anonymous, JobQuery()))
      #expect(page.jobs.map(\.id) == [ticket.id])
      #expect(page.jobs[0].images[0].stage == .denoiser)
      #expect(try await other.snapshot(of: ticket.id, tenant: TenantID("else")) == nil)
      #expect(try await other.events(of: ticket.id, tenant: TenantID("else"), after: nil) == nil)
      await other.waitForEnd(of: ticket.id, tenant: .anonymous, atMost: .seconds(30))
      #expect(try await other.result(of: ticket.id, index: 0)?.array == Self.expected("cat", steps: 40))
    }
  }

  @Test func aJobIsCancelledAtAnotherGateway() async throws {
    try await ReplicaCluster.run { cluster in
      let replicas = try await cluster.start(count: 2)
      try await cluster.join(replicas[0], stepTime: .milliseconds(50))
      let ticket = try await replicas[0].dispatcher.submit(ReplicaCluster.request("cat", steps: 50, count: 2))
      let other = replicas[1].dispatcher
      try await other.cancel(ticket.id, image: 1, tenant: .anonymous, reason: Status(.cancelled, "skipped"))
      try await wait("one image is cancelled") {
        try await other.snapshot(of: ticket.id, tenant: .anonymous)?.images[1].isTerminal == true
      }
      #expect(try await other.snapshot(of: ticket.id, tenant: .anonymous)?.images[0].isTerminal == false)
      try await other.cancel(ticket.id, tenant: TenantID("else"), reason: Status(.cancelled, "not theirs"))
      #expect(try await other.snapshot(of: ticket.id, tenant: .anonymous)?.images[0].isTerminal == false)
      try await other.cancel(ticket.id, tenant: .anonymous, reason: Status(.cancelled, "not wanted"))
      let images = try #require(try await other.snapshot(of: ticket.id, tenant: .anonymous)).images
      guard case .failed(let status) = images[0].outcome else { throw Status(.internal, "not cancelled") }
      #expect(status.code == .cancelled && status.message == "not wanted")
    }
  }

  @Test func oneKeyIsOneJobAtAllGateways() async throws {
    try await ReplicaCluster.run { cluster in
      let replicas = try await cluster.start(count: 3)
      for replica in replicas { try await cluster.join(replica) }
      for round in 0..<5 {
        let request = try ReplicaCluster.request("fox \(round)", key: "key-\(round)")
        // At a time, so that the journal decides.
        let tickets = try await withThrowingTaskGroup(of: JobTicket.self) { group in
          for replica in replicas { group.addTask { try await replica.dispatcher.submit(request) } }
          var tickets: [JobTicket] = []
          for try await ticket in group { tickets.append(ticket) }
          return tickets
        }
        #expect(Set(tickets.map(\.id)).count == 1)
        #expect(tickets.count { $0.isNew } == 1)
        for ticket in tickets { #expect(try await ticket.results()[0].array == Self.expected("fox \(round)")) }
        // Together with one that is new.
        let both = try await replicas[round % 3].dispatcher.submit([
          request, try ReplicaCluster.request("new \(round)", key: "new-\(round)"),
        ])
        #expect(both.map(\.isNew) == [false, true])
      }
      let reused = try ReplicaCluster.request("something else", key: "key-0")
      for replica in replicas {
        await #expect(throws: Status.self) { try await replica.dispatcher.submit(reused) }
      }
    }
  }

  // MARK: Adoption

  @Test func jobsOfAnEndedOwnerContinueElsewhere() async throws {
    try await ReplicaCluster.run { cluster in
      let replicas = try await cluster.start(count: 2)
      try await cluster.join(replicas[0], stepTime: .milliseconds(40))
      let second = try await cluster.join(replicas[1])
      let ticket = try await replicas[0].dispatcher.submit(ReplicaCluster.request("elk", steps: 30, count: 2))
      let events = try #require(
        try await replicas[1].dispatcher.events(of: ticket.id, tenant: .anonymous, after: nil))
      var isStalled = false, images: [Int: EncodedImage] = [:], endCount = 0
      for await event in events {
        if case .progressed(let step, _, _) = event.update, step == 10, !isStalled {
          isStalled = true
          cluster.stall(replicas[0])
        }
        if case .finished(let image) = event.update {
          images[event.index] = image
          endCount += 1
        }
      }
      #expect(isStalled && endCount == 2)
      #expect(images[0]?.array == Self.expected("elk", steps: 30))
      #expect(images[1]?.array == Self.expected("elk", steps: 30, seed: 8))
      #expect(cluster.memory.owner(of: ticket.id) == replicas[1].journal.epoch)
      // From the checkpoint.
      #expect(await second.log.firstSteps.contains { $0 >= 5 })
      // What the first one writes on its return is refused, and it ends.
      cluster.memory.setCut(replicas[0].journal.epoch, false)
      await #expect(throws: JournalError.fenced(epoch: replicas[0].journal.epoch)) {
        try await replicas[0].running.value
      }
      #expect(await !replicas[0].dispatcher.isOpen)
      await #expect(throws: Status.self) { try await replicas[0].dispatcher.submit(ReplicaCluster.request("late")) }
    }
  }

  @Test func nothingIsAcceptedWhileTheJournalDoesNotAnswer() async throws {
    try await ReplicaCluster.run { cluster in
      let replica = try await cluster.start { $0.journalLease = .seconds(1) }
      try await cluster.join(replica)
      cluster.memory.setCut(replica.journal.epoch, true)
      try await wait("the gateway notices") { await replica.dispatcher.isSuspended }
      do {
        _ = try await replica.dispatcher.submit(ReplicaCluster.request("fox"))
        Issue.record("a job was accepted")
      } catch let error as Status {
        #expect(error.code == .unavailable && error.retryAfterSeconds != nil)
      }
      try await cluster.app(replica).test(.live) { client in
        let (status, _) = try await client.get("/readyz")
        #expect(status == .serviceUnavailable)
      }
      cluster.memory.setCut(replica.journal.epoch, false)
      try await wait("the journal is back") { await !replica.dispatcher.isSuspended }
      // On a busy machine the next extension may be late as well.
      var ticket: JobTicket?
      try await wait("a job is accepted") {
        ticket = try? await replica.dispatcher.submit(ReplicaCluster.request("fox"))
        return ticket != nil
      }
      #expect(try await ticket?.results()[0].array == Self.expected("fox"))
    }
  }

  // MARK: Handing over

  @Test func aGatewayThatEndsHandsItsJobsOver() async throws {
    try await ReplicaCluster.run { cluster in
      let replicas = try await cluster.start(count: 2)
      try await cluster.join(replicas[0], stepTime: .milliseconds(40))
      try await cluster.join(replicas[1])
      let first = replicas[0].dispatcher
      // One that ends with its connection, and one that does not.
      let attached = try await first.submit(ReplicaCluster.request("ant", steps: 30, isDetached: false))
      let detached = try await first.submit(ReplicaCluster.request("bee", steps: 30))
      try await wait("it has begun") {
        try await first.snapshot(of: attached.id, tenant: .anonymous)?.images[0].step ?? 0 > 3
      }
      #expect(await first.handOver())
      #expect(await first.attachedImageCount == 0)
      #expect(await first.attachedRemoteImageCount == 1)
      async let image = attached.results()[0]
      await first.waitUntilUnwatched(atMost: .seconds(30))
      #expect(await first.attachedRemoteImageCount == 0)
      #expect(try await image.array == Self.expected("ant", steps: 30))
      #expect(try await detached.results()[0].array == Self.expected("bee", steps: 30))
      #expect(cluster.memory.owner(of: detached.id) == replicas[1].journal.epoch)
      // It still answers.
      #expect(try await first.result(of: detached.id, index: 0) != nil)
      await #expect(throws: Status.self) { try await first.submit(ReplicaCluster.request("late")) }
      // Its end is none by force.
      replicas[0].running.cancel()
      try await replicas[0].running.value
    }
  }

  @Test func theLastGatewayHandsNothingOver() async throws {
    try await ReplicaCluster.run { cluster in
      let replica = try await cluster.start()
      #expect(await !replica.dispatcher.handOver())
      #expect(await replica.dispatcher.isOpen)
    }
  }

  // MARK: Limits

  @Test func bytesOfImagesAreLimitedForAllGatewaysTogether() async throws {
    try await ReplicaCluster.run { cluster in
      let replicas = try await cluster.start(count: 2) { $0.maxTenantInputBytes = 40_000 }
      try await cluster.join(replicas[0], stepTime: .milliseconds(100))
      var request = try ReplicaCluster.request("fox", steps: 50)
      request.inputs = [
        InputImage(
          RasterImage(width: 64, height: 64, pixels: [UInt8](repeating: 1, count: 64 * 64 * 3)), role: .image)
      ]
      for _ in 0..<2 { _ = try await replicas[0].dispatcher.submit(request) }
      try await wait("the other gateway knows") {
        await replicas[1].dispatcher.inputBytesElsewhere(of: .anonymous) == 2 * 64 * 64 * 3
      }
      _ = try await replicas[1].dispatcher.submit(request)
      await #expect(throws: Status.self) { _ = try await replicas[1].dispatcher.submit(request) }
    }
  }

  /// What a gateway counts, another one takes from the tenant's minute when it has heard of it.
  @Test func requestsAreCountedForAllGatewaysTogether() async throws {
    final class Rates: RequestRates {
      let state = Mutex((spent: [String: UInt64](), elsewhere: [String: UInt64]()))
      var spent: [String: UInt64] { state.withLock(\.spent) }
      func noteSpentElsewhere(_ counts: [String: UInt64]) {
        state.withLock { state in for (tenant, count) in counts { state.elsewhere[tenant, default: 0] += count } }
      }
    }
    let rates = (0..<2).map { _ in Rates() }
    try await ReplicaCluster.run { cluster in
      let replicas = try await cluster.start(count: 2)
      for (replica, rates) in zip(replicas, rates) { await replica.dispatcher.share(rates) }
      // Counts from before the first note are of another minute.
      try await wait("the other gateway knows of requests") {
        rates[0].state.withLock { $0.spent["acme", default: 0] += 1 }
        return rates[1].state.withLock { $0.elsewhere["acme", default: 0] } > 0
      }
      let last = rates[0].spent["acme"]!
      try await wait("and of no more than there were") {
        rates[1].state.withLock { (1...last).contains($0.elsewhere["acme"]!) && $0.elsewhere.count == 1 }
      }
      #expect(rates[0].state.withLock { $0.elsewhere.isEmpty })
    }
  }
}
