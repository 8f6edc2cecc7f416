import ClusterCore
import Foundation
import GRDB
import Journal
import PostgreSQLJournal
import Synchronization
import TestSupport
import Testing

/// Journals as streams that every engine reads.
@Suite("Dumps of journals", .timeLimit(.minutes(3)))
struct ArchiveTests {
  /// Jobs of all kinds: open and ended, with everything that a job can have.
  private static func fill(_ store: any JournalStore, prefix: String = "") throws {
    for number in 0..<32 { try store.apply(WriterTests.batch(number)) }
    var job = Sample.job("\(prefix)tagged", tenant: "u", images: 3, key: "k")
    (job.model, job.tags, job.webhooks) = (
      "toy/model", ["a", "ä\u{1F600}"], [Sample.webhook(), Sample.webhook(["x"])]
    )
    job.inputs = [Sample.input(7, 0), Sample.input(8, 300_000)]
    job.deadlineAtMs = nil
    try store.apply([.admit(job)])
    // One payload of two images, a checkpoint, an attempt, a failure, and deliveries in every state.
    let image = ImageReference(job: job.id, index: 0)
    try store.apply([
      Sample.progress(job.id, 0, task: 0, steps: nil, Sample.payload(900)),
      Sample.progress(job.id, 1, task: 0, steps: nil, Sample.payload(900)),
      Sample.progress(job.id, 0, steps: 4, Sample.payload(901, 0)), .attempt(image, task: 1, number: .max),
      .fail(ImageReference(job: job.id, index: 2), Status(.cancelled, "no", field: nil), atMs: 5),
      .attempted(DeliveryAttempt(delivery: 1, atMs: 9, status: 503, error: "busy", nextAtMs: 99)),
      .attempted(DeliveryAttempt(delivery: 2, atMs: 9, status: 204)),
    ])
  }

  private static func dump(_ archive: any JournalArchive) throws -> Data {
    let bytes = Mutex(Data())
    _ = try JournalDump.write(archive) { part in bytes.withLock { $0 += part } }
    return bytes.withLock { $0 }
  }

  @discardableResult
  private static func load(_ dump: Data, _ archive: any JournalArchive) throws -> Int {
    let place = Mutex(0)
    return try JournalDump.read(archive) { count in
      place.withLock { place in
        defer { place = min(dump.count, place + count) }
        return dump[place..<min(dump.count, place + count)]
      }
    }
  }

  /// From each engine to each: jobs, results, tags and deliveries are the same, and so is the next dump.
  @Test(arguments: Engine.all, Engine.all) func nothingIsLostOnTheWay(_ from: Engine, _ to: Engine) throws {
    let (source, target) = (try from.journal(), try to.journal())
    defer { for journal in [source, target] { journal.close() } }
    let store = try source.open()
    try Self.fill(store)
    let before = try Snapshot(store)
    let dump = try Self.dump(source.archive(store))
    let empty = try target.emptyArchive()
    #expect(try Self.load(dump, empty) == before.records.count)
    #expect(try Self.dump(empty) == dump)
    let again = try target.openAgain()
    #expect(try Snapshot(again) == before)
    #expect(try again.problems() == [])
    var query = JobQuery()
    query.tags = ["ä\u{1F600}"]
    #expect(try again.page(query, tenant: "u")?.records.map(\.job.model) == ["toy/model"])
    #expect(try again.job(ofKey: "k", tenant: "u")?.job == "tagged")
    // It continues: new payloads have other numbers than those that came.
    #expect(try again.lastPayloadID() >= 901)
    try again.apply([.admit(Sample.job("new")), Sample.finish("new", Sample.payload(again.lastPayloadID() + 1))])
    #expect(try again.record(of: "new", tenant: nil)?.number ?? 0 > before.records[0].number)
  }

  @Test(arguments: Engine.all) func aDumpThatIsCutOrDamagedIsRefused(_ engine: Engine) throws {
    let (source, target) = (try Engine.sqlite.journal(), try engine.journal())
    defer { for journal in [source, target] { journal.close() } }
    let store = try source.open()
    try Self.fill(store)
    let dump = try Self.dump(source.archive(store))
    let empty = try target.emptyArchive()
    var random = TestRandom("damaged dumps")
    for _ in 0..<20 {
      let place = Int.random(in: 0..<dump.count, using: &random)
      var damaged = dump
      damaged[place] ^= UInt8.random(in: 1...255, using: &random)
      for bytes in [dump.prefix(place), damaged, dump + [0]] {
        #expect { try Self.load(Data(bytes), empty) } throws: { error in
          if case .some(.corrupt(let what)) = error as? JournalError { what.contains("dump") } else { false }
        }
      }
    }
    #expect { try Self.load(dump.prefix(dump.count / 2), empty) } throws: {
      "\($0)".contains(#/at byte \d+, record \d+, of or behind job \w+/#)
    }
    #expect(try target.openAgain().counts().all == 0)
  }

  @Test(arguments: Engine.all) func jobsThatAreThereAreNotTakenAgain(_ engine: Engine) throws {
    let (source, other, target) = (try Engine.sqlite.journal(), try Engine.sqlite.journal(), try engine.journal())
    defer { for journal in [source, other, target] { journal.close() } }
    let (store, second) = (try source.open(), try other.open())
    try Self.fill(store)
    try second.apply([.admit(Sample.job("later", images: 1)), Sample.finish("later", Sample.payload(5_000))])
    let empty = try target.emptyArchive()
    try Self.load(Self.dump(source.archive(store)), empty)
    #expect { try Self.load(Self.dump(source.archive(store)), empty) } throws: {
      if case .some(.duplicate) = $0 as? JournalError { true } else { false }
    }
    // New ones come behind those that are there.
    #expect(try Self.load(Self.dump(other.archive(second)), empty) == 1)
    let again = try target.openAgain()
    #expect(try again.records(tenant: nil, before: nil, limit: 2).map(\.job.id) == ["later", "tagged"])
    #expect(try again.problems() == [])
  }

  @Test(.enabled(if: PostgreSQLServer.programs != nil)) func noGatewayMayHaveItOpen() throws {
    let (source, database) = (try Engine.sqlite.journal(), try TestDatabase())
    defer { source.close() }
    let dump = try Self.dump(source.archive(try source.open()))
    let store = try database.open()
    defer { store.close() }
    try store.apply([.admit(Sample.job("a"))])
    let archive = try PostgreSQLArchive(database.settings)
    for attempt in [{ _ = try Self.load(dump, archive) }, { try archive.migrate(to: 0, acceptsLoss: true) }] {
      #expect { try attempt() } throws: { if case .some(.inUse) = $0 as? JournalError { true } else { false } }
    }
    // Reading needs no lock.
    #expect(try Self.dump(archive).count > dump.count && archive.problems() == [])
  }

  // MARK: Versions of the schema

  @Test(.enabled(if: PostgreSQLServer.programs != nil)) func theSchemaGoesBackOnlyWithoutLoss() throws {
    let database = try TestDatabase()
    let store = try database.open()
    try store.apply([.admit(Sample.job("a"))])
    try store.releaseLease()
    store.close()
    let archive = try PostgreSQLArchive(database.settings)
    #expect(try archive.schemaVersion() == (1, 1))
    #expect { try archive.migrate(to: 0, acceptsLoss: false) } throws: { "\($0)".contains("no place for 1 jobs") }
    #expect(throws: JournalError.self) { try archive.migrate(to: 9, acceptsLoss: true) }
    try archive.migrate(to: 0, acceptsLoss: true)
    #expect(try archive.schemaVersion().found == nil)
    try archive.migrate(to: 1, acceptsLoss: false)
    #expect(try archive.schemaVersion().found == 1 && archive.problems() == [])
  }

  @Test func anEmbeddedSchemaGoesBackOnlyWithoutLoss() throws {
    try withFolder { folder in
      let path = folder + "/j"
      var job = Sample.job("a", request: #"{"card":{"modelID":"toy/model"}}"#)
      (job.model, job.webhooks) = ("toy/model", [Sample.webhook()])
      do {
        let store = try SQLiteJournalStore(path: path)
        defer { store.close() }
        try store.apply([.admit(job)])
        #expect(try store.schemaVersion() == (5, 5))
        #expect { try store.migrate(to: 2, acceptsLoss: false) } throws: { "\($0)".contains("no place for 1 webhooks") }
        #expect(try store.schemaVersion().found == 5)
        try store.migrate(to: 2, acceptsLoss: true)
        #expect(try store.schemaVersion().found == 2)
      }
      // The next opening takes it forward again.
      let store = try SQLiteJournalStore(path: path)
      defer { store.close() }
      #expect(try store.schemaVersion().found == 5 && store.problems() == [])
      #expect(try store.openJobs().jobs.map(\.record.job.model) == ["toy/model"])
    }
  }
}

extension TestJournal {
  /// What hands the rows of `store` over, while it is open.
  func archive(_ store: any JournalStore) throws -> any JournalArchive {
    if let store = store as? SQLiteJournalStore { return store }
    return try postgresArchive()
  }
}
