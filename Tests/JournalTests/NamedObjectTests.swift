import Foundation
import Journal
import Objects
import PostgreSQLJournal
import Testing

/// Rows that name objects, of every engine.
@Suite("Objects in the journal", .timeLimit(.minutes(3)))
struct NamedObjectTests {
  private static func named(_ payload: StoredPayload, _ name: String, _ byteCount: Int = 5000) -> StoredPayload {
    var payload = payload
    (payload.bytes, payload.object) = (Data(), StoredObject(name: name, byteCount: byteCount))
    return payload
  }

  private static func dead(_ store: any ObjectNamingJournalStore) throws -> [String] {
    try store.deadObjects(limit: 100).map(\.name).sorted()
  }

  @Test(arguments: Engine.all) func namesLiveAndDieWithTheirRows(engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try #require(try journal.open() as? any ObjectNamingJournalStore)
    let first = try store.lastPayloadID() + 1
    var job = Sample.job("a", images: 2)
    job.inputs = [StoredInput(digest: "d", bytes: Data(), object: StoredObject(name: "in", byteCount: 70))]
    try store.apply([
      .admit(job), Sample.progress("a", steps: 1, Self.named(Sample.payload(first), "c1")),
      Sample.progress("a", steps: 2, Self.named(Sample.payload(first + 1), "c2")),
    ])
    #expect(try Self.dead(store) == ["c1"])
    #expect(try store.objects(after: nil, limit: 10).map(\.name) == ["c2", "in"])
    #expect(try store.objects(after: "c2", limit: 10) == [StoredObject(name: "in", byteCount: 70)])
    #expect(try store.objects(after: nil, limit: 1).map(\.name) == ["c2"])
    #expect(try store.objectBytes() == 10_070)
    #expect(try store.namedObjects(among: ["c1", "c2", "in", "x"]) == ["c2", "in"])
    #expect(try store.hasPayload(first + 1) && !store.hasPayload(first) && store.hasInput("d") && !store.hasInput("e"))
    // What comes late, and what is there already.
    try store.apply([
      Sample.progress("a", steps: 1, Self.named(Sample.payload(first + 2), "late")),
      Sample.progress("a", 1, steps: 2, Self.named(Sample.payload(first + 1), "again")),
    ])
    #expect(try Self.dead(store) == ["again", "c1", "late"])
    try store.apply([Sample.progress("a", 1, task: 2, steps: 2, Sample.payload(first + 1))])
    let open = try store.openJobs().jobs
    #expect(open[0].record.job.inputs[0].object == StoredObject(name: "in", byteCount: 70))
    #expect(open[0].images.flatMap(\.progress).compactMap(\.payload.object?.name) == ["c2", "c2", "c2"])
    // Bytes in a row stay there.
    try store.apply([Sample.progress("a", 1, task: 3, steps: 1, Sample.payload(first + 3))])
    try store.apply([Sample.progress("a", 1, task: 4, steps: 1, Self.named(Sample.payload(first + 3), "second"))])
    #expect(try Self.dead(store).contains("second"))
    try store.apply([
      Sample.finish("a", 0, Self.named(Sample.payload(first + 4), "r", 123_456)), Sample.fail("a", 1),
    ])
    #expect(try Self.dead(store) == ["again", "c1", "c2", "in", "late", "second"])
    #expect(
      try store.record(of: "a", tenant: nil)?.outcomes[0] == .finished(byteCount: 123_456, promptTokens: 7))
    #expect(try store.result(of: ImageReference(job: "a", index: 0))?.object?.name == "r")
    #expect(try store.problems() == [])
    try store.forgetDeadObjects(["again", "c1", "c2", "in", "x"])
    #expect(try Self.dead(store) == ["late", "second"])
    #expect(try store.forgetOldJobs(nowMs: 1 << 50) == 1)
    #expect(try Self.dead(store) == ["late", "r", "second"])
    #expect(try store.objects(after: nil, limit: 10).isEmpty)
  }

  @Test(arguments: Engine.all) func aRefusedChangeKillsNoName(engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try #require(try journal.open() as? any ObjectNamingJournalStore)
    try store.apply([.admit(Sample.job("a"))])
    let first = try store.lastPayloadID() + 1
    #expect(throws: JournalError.self) {
      try store.apply([
        Sample.finish("a", Self.named(Sample.payload(first), "r")), .admit(Sample.job("a")),
      ])
    }
    #expect(try Self.dead(store).isEmpty && store.objects(after: nil, limit: 1).isEmpty)
    #expect(store.objectSpace.count == 16 && store.objectSpace.allSatisfy(\.isHexDigit))
  }

  @Test(arguments: Engine.all) func everythingComesBackFromFiles(engine: Engine) throws {
    try withFolder { folder in
      let journal = try engine.journal()
      defer { journal.close() }
      func wrapped() throws -> any JournalStore {
        let base = try #require(try journal.open() as? any ObjectNamingJournalStore)
        var rules = ObjectRules()
        rules.threshold = 1000
        return try ObjectJournal.open(
          base, objects: FileObjectStore(directory: "\(folder)/\(base.objectSpace)"), rules: rules)
      }
      let store = try wrapped()
      let first = try store.lastPayloadID() + 1
      var job = Sample.job("a", images: 30)
      job.inputs = [Sample.input(1), Sample.input(2)]
      let writer = JournalWriter(store) { _ in }
      writer.enqueue(.init(sequence: 1, changes: [.admit(job)]))
      for index in 0..<20 {
        let payload = Sample.payload(first + UInt64(index), 2000 + index)
        writer.enqueue(.init(sequence: UInt64(index + 2), changes: [Sample.finish("a", index, payload)]))
      }
      for index in 20..<30 {
        let payload = Sample.payload(first + UInt64(index), 2000 + index)
        writer.enqueue(.init(sequence: UInt64(index + 2), changes: [Sample.progress("a", index, steps: 1, payload)]))
      }
      writer.stop()
      #expect(try store.problems() == [])
      if let shared = store as? any SharedJournalStore { try shared.releaseLease() }
      store.close()
      let again = try wrapped()
      let open = try (again as? any SharedJournalStore)?.adoptJobs(limit: 10) ?? again.openJobs()
      #expect(open.damaged.isEmpty)
      #expect(Set(open.jobs[0].record.job.inputs) == [Sample.input(1), Sample.input(2)])
      #expect(
        open.jobs[0].images.flatMap(\.progress).map(\.payload)
          == (20..<30).map { Sample.payload(first + UInt64($0), 2000 + $0) })
      for index in 0..<20 {
        #expect(
          try again.result(of: ImageReference(job: "a", index: index))
            == Sample.payload(first + UInt64(index), 2000 + index))
      }
      try again.apply((20..<30).map { Sample.fail("a", $0) })
      func count() -> Int {
        (FileManager.default.enumerator(atPath: folder)?.compactMap { $0 as? String } ?? []).filter { $0.count > 80 }
          .count
      }
      #expect(try eventually(again) { count() == 20 })
      #expect(try eventually(again, nowMs: 1 << 50) { count() == 0 })
      #expect(try again.problems() == [])
      again.close()
    }
  }

  private func eventually(_ store: any JournalStore, nowMs: Int64 = 3_000, _ condition: () -> Bool) throws -> Bool {
    for _ in 0..<500 {
      try store.forgetOldJobs(nowMs: nowMs)
      if condition() { return true }
      usleep(20_000)
    }
    return false
  }
}
