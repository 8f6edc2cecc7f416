import ClusterCore
import Foundation
import Journal
import PostgreSQLJournal
import Synchronization
import TestSupport
import Testing

/// What was confirmed stays, whatever happens to gateways and servers; and nothing is made twice.
@Suite(
  "Faults of gateways and servers of PostgreSQL", .serialized, .enabled(if: PostgreSQLServer.programs != nil),
  .timeLimit(.minutes(3)))
struct ServerFaultTests {
  private static let keepsAll: JournalLimits = {
    var limits = JournalLimits()
    limits.retentionSeconds = 1 << 40
    return limits
  }()

  /// A writer that writes the series of batches while faults happen, and what has come of it.
  private final class Writing: Sendable {
    let store: PostgreSQLJournalStore
    private let outcomes = Outcomes()
    private let writer: JournalWriter
    private let isStopping = Mutex(false)
    private let count = Mutex(0)
    private let stopped = DispatchSemaphore(value: 0)

    init(_ store: PostgreSQLJournalStore) {
      self.store = store
      let outcomes = outcomes
      writer = JournalWriter(store) { outcomes.append($0) }
      Thread { [self] in
        while !isStopping.withLock({ $0 }) {
          let number = count.withLock { $0 }
          if number - durable < 400 {
            writer.enqueue(.init(sequence: UInt64(number + 1), changes: WriterTests.batch(number)))
            count.withLock { $0 += 1 }
          }
          usleep(500)
        }
        stopped.signal()
      }.start()
    }

    /// Batches that are confirmed.
    var durable: Int {
      if case .durable(let number) = outcomes.all.last { Int(number) } else { 0 }
    }

    /// Waits until so many more batches are confirmed.
    func advance(by batches: Int) async throws {
      let goal = durable + batches
      try await until("\(batches) more batches are confirmed") { self.durable >= goal }
    }

    /// Writes what is left; returns how many batches there were.
    func stop() async throws -> Int {
      isStopping.withLock { $0 = true }
      stopped.wait()
      let all = count.withLock { $0 }
      try await until("all batches are confirmed") { self.durable >= all }
      writer.stop()
      #expect(!outcomes.all.contains { if case .refused = $0 { true } else { false } })
      return all
    }
  }

  /// What is in `store` is what the first `count` batches make.
  private func expect(_ store: any JournalStore, has count: Int) throws {
    let mirror = try SQLiteJournalStore(path: nil, limits: Self.keepsAll)
    for number in 0..<count { try mirror.apply(WriterTests.batch(number)) }
    #expect(try Snapshot(store).unnumbered == Snapshot(mirror).unnumbered)
    #expect(try store.problems() == [])
  }

  @Test func nothingConfirmedIsLostWhenTheServerIsKilled() async throws {
    let server = try PostgreSQLServer()
    let store = try TestDatabase(server).open(leaseSeconds: 60, limits: Self.keepsAll)
    defer { store.close() }
    let writing = Writing(store)
    for _ in 0..<3 {
      try await writing.advance(by: 60)
      server.kill()
      try await Task.sleep(for: .milliseconds(50))
      try server.start()
    }
    let count = try await writing.stop()
    print("journal: PostgreSQL was killed 3 times in \(count) changes")
    try expect(store, has: count)
  }

  @Test func nothingConfirmedIsLostWhenTheGatewayIsKilled() async throws {
    let database = try TestDatabase()
    let acknowledgements = NSTemporaryDirectory() + "acknowledged-\(UInt64.random(in: 0 ... .max))"
    defer { try? FileManager.default.removeItem(atPath: acknowledgements) }
    let mirror = try SQLiteJournalStore(path: nil, limits: Self.keepsAll)
    var written = 0
    var random = TestRandom("killed gateways")
    for kills in 1...8 {
      let delay = UInt32.random(in: 0...250_000, using: &random)
      await #expect(processExitsWith: .signal(SIGKILL)) {
        [
          url = database.server.url as String, schema = database.schema as String, start = written as Int,
          delay = delay as UInt32, acknowledgements = acknowledgements as String
        ] in
        var settings = PostgreSQLSettings(url: url), limits = JournalLimits()
        (settings.schema, limits.retentionSeconds) = (schema, 1 << 40)
        let store = try PostgreSQLJournalStore(settings, limits: limits)
        _ = try store.adoptJobs(limit: .max)
        try WriterTests.writeUntilKilled(
          store, from: start, killAfterMicroseconds: delay, acknowledgements: acknowledgements)
      }
      let acknowledged = notedNumber(in: acknowledgements) ?? written
      // Its lease is over; what the server is still at of its last write is ended.
      _ = try database.sql("UPDATE owners SET lease_until = now() - interval '1 second'")
      let store = try database.open(limits: Self.keepsAll)
      _ = try store.adoptJobs(limit: .max)
      let found = try Snapshot(store, limit: 4).unnumbered
      #expect(try store.problems() == [])
      try store.releaseLease()
      store.close()
      while written < acknowledged {
        try mirror.apply(WriterTests.batch(written))
        written += 1
      }
      var isFound = try Snapshot(mirror, limit: 4).unnumbered == found
      while !isFound, written < acknowledged + 500 {
        try mirror.apply(WriterTests.batch(written))
        written += 1
        isFound = try Snapshot(mirror, limit: 4).unnumbered == found
      }
      try #require(isFound, "after \(kills) kills the journal is no beginning of what was written")
    }
    print("journal: 8 gateways were killed in \(written) changes")
    #expect(written > 8)
  }

  // MARK: Commits whose outcome is not known

  /// A server whose commits wait for a replica that does not exist, and then do not any more.
  @Test(arguments: [false, true]) func aCommitThatHangsIsMadeOnce(isCancelled: Bool) async throws {
    let server = try PostgreSQLServer()
    let database = try TestDatabase(server)
    var settings = database.settings
    (settings.statementSeconds, settings.patienceSeconds) = (1, 0.5)
    let store = try PostgreSQLJournalStore(settings, limits: Self.keepsAll)
    defer { store.close() }
    try store.apply([.admit(Sample.job("a", images: 3))])
    try server.sql("ALTER SYSTEM SET synchronous_standby_names = 'ghost'")
    try server.sql("SELECT pg_reload_conf()")
    let changes = [Sample.finish("a", 0, Sample.payload(1)), .admit(Sample.job("b", key: "k"))]
    let canceller = Task {
      guard isCancelled else { return }
      // A commit that is cancelled is made, but no replica has it: it is not confirmed.
      try await until("the commit waits") {
        (try? server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")) == "1"
      }
      try server.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    }
    #expect {
      try store.apply(changes)
    } throws: {
      if case .some(.unavailable) = $0 as? JournalError { true } else { false }
    }
    _ = await canceller.result
    try server.sql("ALTER SYSTEM RESET synchronous_standby_names")
    try server.sql("SELECT pg_reload_conf()")
    try await until("the same changes and another one are made") {
      (try? store.apply(changes + [Sample.fail("a", 1)])) != nil
    }
    #expect(try store.counts() == (open: 2, all: 2) && store.job(ofKey: "k", tenant: "t")?.job == "b")
    #expect(try store.openJobs().jobs.map(\.images.count) == [1, 1])
    #expect(try store.problems() == [])
  }

  // MARK: Fail-over

  private static func url(_ servers: PostgreSQLServer...) -> String {
    "host=\(servers.map(\.folder).joined(separator: ",")) port=\(servers.map { "\($0.port)" }.joined(separator: ",")) "
      + "user=journal dbname=postgres"
  }

  @Test func nothingConfirmedIsLostWhenASynchronousReplicaTakesOver() async throws {
    let primary = try PostgreSQLServer()
    let replica = try PostgreSQLServer(replicaOf: primary)
    try primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'replica'")
    try primary.sql("SELECT pg_reload_conf()")
    try await until("the replica is synchronous") {
      (try? primary.sql("SELECT sync_state FROM pg_stat_replication")) == "sync"
    }
    var settings = PostgreSQLSettings(url: Self.url(primary, replica))
    settings.leaseSeconds = 60
    let store = try PostgreSQLJournalStore(settings, limits: Self.keepsAll)
    defer { store.close() }
    let writing = Writing(store)
    try await writing.advance(by: 100)
    primary.kill()
    try replica.promote()
    try await writing.advance(by: 100)
    try expect(store, has: try await writing.stop())
  }

  /// An asynchronous replica that lags loses what it has not got: that is the promise of such a server, not of the
  /// journal. What is there is a beginning, and an opening that the new server does not know of must not write.
  @Test func anAsynchronousReplicaLosesTheEnd() async throws {
    let primary = try PostgreSQLServer()
    let replica = try PostgreSQLServer(replicaOf: primary)
    var settings = PostgreSQLSettings(url: Self.url(primary, replica))
    settings.leaseSeconds = 60
    let store = try PostgreSQLJournalStore(settings, limits: Self.keepsAll)
    defer { store.close() }
    for number in 0..<40 { try store.apply(WriterTests.batch(number)) }
    let position = try primary.sql("SELECT pg_current_wal_lsn()")
    try await until("the replica has it") {
      (try? replica.sql("SELECT pg_last_wal_replay_lsn() >= '\(position)'")) == "t"
    }
    replica.stop()
    for number in 40..<60 { try store.apply(WriterTests.batch(number)) }
    let late = try PostgreSQLJournalStore(settings, limits: Self.keepsAll)
    defer { late.close() }
    primary.kill()
    try replica.start()
    try replica.promote()
    // After failures there is a pause before the next attempt at a connection.
    try await until("the new server is found") { (try? store.counts()) != nil }
    try expect(store, has: 40)
    try store.apply(WriterTests.batch(40))
    try expect(store, has: 41)
    #expect(throws: JournalError.fenced(epoch: late.epoch)) { try late.apply([.admit(Sample.job("late"))]) }
    // The number of the opening that was lost may come again; the two are still different ones.
    let again = try PostgreSQLJournalStore(settings, limits: Self.keepsAll)
    defer { again.close() }
    #expect(throws: JournalError.fenced(epoch: late.epoch)) { try late.apply([.admit(Sample.job("late"))]) }
    try again.apply([.admit(Sample.job("new"))])
  }

  // MARK: Servers that are not right

  @Test func aServerThatLosesWhatItConfirmsIsRefused() throws {
    let server = try PostgreSQLServer(["fsync = off"])
    #expect { try TestDatabase(server).open() } throws: { "\($0)".contains("fsync = off") }
  }

  @Test func passwordsAreNeverShown() throws {
    for url in [
      "postgresql://user:hunter2@127.0.0.1:1/x", "host=127.0.0.1 port=1 password=hunter2",
      "postgresql://a:hunter2%zz@x",
      "password=hunter2 nonsense",
    ] {
      #expect { try PostgreSQLJournalStore(PostgreSQLSettings(url: url)) } throws: { !"\($0)".contains("hunter2") }
    }
  }
}
