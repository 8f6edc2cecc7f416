import ClusterCore
import Foundation
import Journal
import PostgreSQLJournal
import TestSupport
import Testing

/// What several owners of one journal may do.
@Suite("A journal that several gateways share", .enabled(if: PostgreSQLServer.programs != nil), .timeLimit(.minutes(3)))
struct SharedJournalTests {
  @Test func jobsGoFromAnOwnerThatIsGoneToAnother() async throws {
    let database = try TestDatabase()
    let (first, second) = (try database.open(leaseSeconds: 1), try database.open(leaseSeconds: 30))
    defer { for store in [first, second] { store.close() } }
    #expect((first.epoch, second.epoch) == (1, 2))
    try first.apply((0..<5).map { .admit(Sample.job("\($0)", images: 2)) })
    try first.apply([Sample.progress("0", steps: 3, Sample.payload(first.lastPayloadID() + 1))])
    #expect(try second.openJobs().jobs.isEmpty && second.adoptJobs(limit: 10).jobs.isEmpty)
    #expect(try second.owner(of: "0") == 1 && second.owner(of: "none") == nil)
    #expect(try second.renewLease(note: Data([2])).map(\.epoch) == [1, 2])
    #expect(try first.renewLease(note: Data([1])).map(\.note) == [Data([1]), Data([2])])
    try await Task.sleep(for: .seconds(1.2))
    // An owner that renews its own notices that a lease is over.
    #expect(try second.renewLease(note: Data()).map(\.epoch) == [2])
    var messages = second.messages.makeAsyncIterator()
    #expect(await messages.next() == .lookForJobs)
    // Until somebody ends it, it may still write.
    try first.apply([Sample.fail("4"), Sample.fail("4", 1)])
    let adopted = try second.adoptJobs(limit: 3)
    #expect(adopted.jobs.map(\.record.job.id) == ["0", "1", "2"])
    #expect(adopted.jobs[0].images[0].progress.map(\.completedSteps) == [3])
    #expect(try second.adoptJobs(limit: 10).jobs.map(\.record.job.id) == ["3"])
    #expect(try second.openJobs().jobs.map(\.record.job.id) == ["0", "1", "2", "3"])
    #expect(try second.owner(of: "3") == 2)
    let before = try Snapshot(second)
    #expect(throws: JournalError.fenced(epoch: 1)) { try first.apply([Sample.fail("0")]) }
    #expect(throws: JournalError.fenced(epoch: 1)) { try first.renewLease(note: Data()) }
    #expect(throws: JournalError.fenced(epoch: 1)) { try first.send(Data([1]), to: nil) }
    #expect(throws: JournalError.fenced(epoch: 1)) { try first.adoptJobs(limit: 1) }
    #expect(throws: JournalError.fenced(epoch: 1)) { try first.dueDeliveries(nowMs: 1, limit: 1) }
    #expect(try Snapshot(second) == before)
    #expect(try second.problems() == [])
  }

  @Test func aLeaseThatIsReleasedIsAnnounced() async throws {
    let database = try TestDatabase()
    let (first, second) = (try database.open(), try database.open())
    defer { for store in [first, second] { store.close() } }
    try first.apply([.admit(Sample.job("a"))])
    try await listens(first, second)
    try first.releaseLease()
    var messages = second.messages.makeAsyncIterator()
    #expect(await messages.next() == .lookForJobs)
    #expect(try second.adoptJobs(limit: 10).jobs.map(\.record.job.id) == ["a"])
    #expect(throws: JournalError.fenced(epoch: 1)) { try first.apply([.admit(Sample.job("b"))]) }
  }

  @Test func messagesReachWhomTheyAreFor() async throws {
    let database = try TestDatabase()
    let stores = try (0..<3).map { _ in try database.open() }
    defer { for store in stores { store.close() } }
    for store in stores.dropFirst() { try await listens(stores[0], store) }
    let large = Data((0..<PostgreSQLJournalStore.maxMessageBytes).map { UInt8(truncatingIfNeeded: $0) })
    try stores[0].send(large, to: 2)
    try stores[0].send(Data([7]), to: nil)
    try stores[1].send(Data(), to: 1)
    var (first, second, third) = (
      stores[0].messages.makeAsyncIterator(), stores[1].messages.makeAsyncIterator(),
      stores[2].messages.makeAsyncIterator()
    )
    #expect(await second.next() == .message(from: 1, large))
    #expect(await second.next() == .message(from: 1, Data([7])))
    #expect(await third.next() == .message(from: 1, Data([7])))
    #expect(await first.next() == .message(from: 2, Data()))
    #expect(throws: JournalError.self) { try stores[0].send(large + [0], to: 2) }
  }

  /// Waits until messages of `sender` reach `receiver`, and takes them.
  private func listens(_ sender: PostgreSQLJournalStore, _ receiver: PostgreSQLJournalStore) async throws {
    var messages = receiver.messages.makeAsyncIterator()
    let probe = Task {
      while !Task.isCancelled {
        try sender.send(Data("probe".utf8), to: receiver.epoch)
        try await Task.sleep(for: .milliseconds(20))
      }
    }
    _ = await messages.next()
    probe.cancel()
    _ = await probe.result
    try sender.send(Data("last".utf8), to: receiver.epoch)
    while let message = await messages.next(), message != .message(from: sender.epoch, Data("last".utf8)) {}
  }

  @Test func twoOwnersShareImagesThatJobsBeginWith() throws {
    let database = try TestDatabase()
    let stores = try (0..<2).map { _ in try database.open() }
    defer { for store in stores { store.close() } }
    for (number, store) in stores.enumerated() {
      var job = Sample.job("\(number)", key: "k\(number)")
      job.inputs = [Sample.input(1), Sample.input(2)]
      try store.apply([.admit(job)])
    }
    // A key is one tenant's, at whichever owner.
    #expect { try stores[1].apply([.admit(Sample.job("x", key: "k0"))]) } throws: {
      if case .some(.duplicate) = $0 as? JournalError { true } else { false }
    }
    // A job of another owner is not one's own to end.
    try stores[0].apply([Sample.fail("1")])
    #expect(try stores[1].openJobs().jobs.count == 1)
    DispatchQueue.concurrentPerform(iterations: 2) { number in
      #expect(throws: Never.self) { try stores[number].apply([Sample.fail("\(number)")]) }
    }
    #expect(try stores[0].space().usedBytes == 10 && stores[0].problems() == [])
  }

  @Test func aDeliveryIsOneOwnersToAttempt() throws {
    let database = try TestDatabase()
    let stores = try (0..<2).map { _ in try database.open() }
    defer { for store in stores { store.close() } }
    for id in ["a", "b"] {
      var job = Sample.job(id)
      job.webhooks = [Sample.webhook()]
      try stores[0].apply([.admit(job), Sample.fail(id, atMs: 5)])
    }
    #expect(try stores[0].dueDeliveries(nowMs: 10, limit: 1).map(\.delivery.number) == [1])
    #expect(try stores[1].dueDeliveries(nowMs: 10, limit: 5).map(\.delivery.number) == [2])
    #expect(try stores[1].dueDeliveries(nowMs: 10, excluding: [2], limit: 5) == [])
    let pending = try stores[1].pendingDeliveries(nowMs: 10)
    #expect(pending.count == 2 && pending.nextAtMs ?? 0 > 1_000_000_000_000)
    // An owner that is gone attempts nothing any more.
    try stores[0].releaseLease()
    #expect(try stores[1].dueDeliveries(nowMs: 10, excluding: [2], limit: 5).map(\.delivery.number) == [1])
    try stores[1].apply([.attempted(DeliveryAttempt(delivery: 1, atMs: 11, status: 200))])
    #expect(try stores[1].webhooks(of: "a")[0].deliveries[0].state == .delivered)
  }
}
