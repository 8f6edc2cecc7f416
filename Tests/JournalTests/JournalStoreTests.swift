import ClusterCore
import Foundation
import GRDB
import Journal
import TestSupport
import Testing

@Suite("The journal")
struct JournalStoreTests {
  @Test(arguments: Engine.all) func aJobIsThereAfterAReopening(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    try store.apply([.admit(Sample.job("a", images: 2, key: "k"))])
    try store.apply([
      Sample.progress("a", task: 0, steps: nil, Sample.payload(1)), Sample.progress("a", steps: 3, Sample.payload(2)),
    ])
    try store.apply([Sample.fail("a", 1)])
    for number: UInt32 in [1, 4097] {
      try store.apply([.attempt(ImageReference(job: "a", index: 0), task: 1, number: number)])
    }
    let before = try Snapshot(store)
    let again = try journal.reopen(store)
    #expect(try Snapshot(again) == before)
    #expect((store.epoch, again.epoch) == (1, 2))
    let job = try #require(try again.openJobs().jobs.first)
    #expect(job.record.job.request == Data("a cat".utf8))
    #expect(job.record.outcomes == [.open, .failed(Status(StatusCode(rawValue: 13)!, "no", field: "prompt"))])
    #expect(job.images.map(\.progress.count) == [2])
    #expect(
      job.images[0].progress[0]
        == StoredProgress(task: 0, completedSteps: nil, payload: Sample.payload(1), numericsClass: "avx512"))
    #expect(job.images[0].progress[1].completedSteps == 3)
    #expect(job.images[0].attempts == [1: 4097])
    #expect(try again.lastPayloadID() == (engine == .sqlite ? 2 : 2 << 36))
    let key = try #require(try again.job(ofKey: "k", tenant: "t"))
    #expect(key.job == "a" && key.digest == Data("digest of k".utf8))
    #expect(try again.job(ofKey: "k", tenant: "another") == nil)
  }

  @Test func whatIsInItIsPrivate() throws {
    try withFolder { folder in
      let path = "\(folder)/state/journal"
      _ = try SQLiteJournalStore(path: path)
      for file in [path, path + ".lock"] {
        let mode = try FileManager.default.attributesOfItem(atPath: file)[.posixPermissions] as? Int
        #expect(mode == 0o600)
      }
    }
  }

  @Test(arguments: Engine.all) func onlyTheNewestCheckpointIsKept(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    try store.apply([.admit(Sample.job("a"))])
    for steps in [1, 2, 5, 4] { try store.apply([Sample.progress("a", steps: steps, Sample.payload(UInt64(steps)))]) }
    #expect(try store.openJobs().jobs[0].images[0].progress.map(\.payload) == [Sample.payload(5)])
    try store.apply([Sample.progress("a", steps: nil, Sample.payload(6))])
    #expect(try store.openJobs().jobs[0].images[0].progress.map(\.completedSteps) == [nil])
    try store.apply([Sample.finish("a", Sample.payload(7, 500))])
    #expect(try store.openJobs().jobs.isEmpty)
    #expect(try store.result(of: ImageReference(job: "a", index: 0)) == Sample.payload(7, 500))
    #expect(try store.record(of: "a", tenant: "t")?.outcomes == [.finished(byteCount: 500, promptTokens: 7)])
    #expect(try store.record(of: "a", tenant: "t")?.endedAtMs == 2_000)
    #expect(try store.problems() == [])
  }

  @Test(arguments: Engine.all) func whatComesAfterTheEndChangesNothing(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    try store.apply([.admit(Sample.job("a")), Sample.finish("a", Sample.payload(1))])
    let before = try Snapshot(store)
    try store.apply([
      Sample.fail("a"), Sample.finish("a", Sample.payload(2)), Sample.progress("a", steps: 1, Sample.payload(3)),
      Sample.fail("unknown"), Sample.finish("a", 9, Sample.payload(4)),
    ])
    #expect(try Snapshot(store) == before)
    #expect(try store.problems() == [])
  }

  @Test(arguments: Engine.all) func aSharedOutputStaysUntilItsLastImageEnds(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    try store.apply([.admit(Sample.job("a", images: 2))])
    try store.apply((0..<2).map { Sample.progress("a", $0, task: 0, steps: nil, Sample.payload(1)) })
    try store.apply([Sample.finish("a", 0, Sample.payload(2))])
    #expect(try store.openJobs().jobs[0].images.map(\.progress.count) == [1])
    try store.apply([Sample.finish("a", 1, Sample.payload(3))])
    #expect(try store.problems() == [])
    #expect(try journal.column("SELECT count(*) FROM payloads") == ["2"])
  }

  @Test(arguments: Engine.all) func changesAreMadeTogetherOrNotAtAll(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    try store.apply([.admit(Sample.job("a", key: "k"))])
    for job in [Sample.job("a"), Sample.job("b", key: "k")] {
      #expect { try store.apply([.admit(Sample.job("c")), .admit(job)]) } throws: {
        if case .some(.duplicate) = $0 as? JournalError { true } else { false }
      }
    }
    #expect(try store.records(tenant: nil, before: nil, limit: 10).map(\.job.id) == ["a"])
    // Another tenant may use the same key.
    try store.apply([.admit(Sample.job("b", tenant: "u", key: "k"))])
    #expect(try store.job(ofKey: "k", tenant: "u")?.job == "b")
  }

  @Test(arguments: Engine.all) func jobsAreOfTheirTenantOnly(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    for number in 0..<2 { try store.apply([.admit(Sample.job("\(number)", tenant: number % 2 == 0 ? "t" : "u"))]) }
    #expect(try store.record(of: "1", tenant: "t") == nil)
    #expect(try store.record(of: "1", tenant: nil) != nil)
  }

  @Test(arguments: Engine.all) func valuesAreBounded(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    for job in [
      Sample.job("a", request: String(repeating: "x", count: (4 << 20) + 1)),
      Sample.job(String(repeating: "x", count: 300)),
      Sample.job("a", tenant: String(repeating: "x", count: 300)), Sample.job("a", images: 1001),
      Sample.job("a", key: String(repeating: "x", count: 300)),
    ] {
      #expect { try store.apply([.admit(job)]) } throws: {
        if case .some(.tooLarge) = $0 as? JournalError { true } else { false }
      }
    }
    #expect(try store.counts() == (0, 0))
  }

  // MARK: Files that are not right

  @Test func otherFilesAreRefusedAndLeftAlone() throws {
    try withFolder { folder in
      let text = "\(folder)/text"
      try Data(repeating: 65, count: 5000).write(to: URL(filePath: text))
      let other = "\(folder)/other"
      let database = try DatabaseQueue(path: other)
      try database.write { try $0.execute(sql: "CREATE TABLE x (y); INSERT INTO x VALUES (1)") }
      try database.close()
      for path in [text, other] {
        let before = try Data(contentsOf: URL(filePath: path))
        #expect { try SQLiteJournalStore(path: path) } throws: {
          if case .some(.foreign) = $0 as? JournalError { true } else { false }
        }
        #expect(try Data(contentsOf: URL(filePath: path)) == before)
      }
    }
  }

  @Test func aLaterVersionIsRefused() throws {
    try withFolder { folder in
      let store = try SQLiteJournalStore(path: folder + "/j")
      try store.database.write { try $0.execute(sql: "INSERT INTO grdb_migrations VALUES ('99')") }
      store.close()
      withExtendedLifetime(store) {}
    }
    try withFolder { folder in
      try Self.makeLaterVersion(folder + "/j")
      #expect { try SQLiteJournalStore(path: folder + "/j") } throws: { "\($0)".contains("version 99") }
    }
  }

  private static func makeLaterVersion(_ path: String) throws {
    let store = try SQLiteJournalStore(path: path)
    try store.database.write { try $0.execute(sql: "INSERT INTO grdb_migrations VALUES ('99')") }
    store.close()
  }

  @Test func oneProcessAtATime() throws {
    try withFolder { folder in
      let store = try SQLiteJournalStore(path: folder + "/j")
      #expect(throws: JournalError.inUse(path: folder + "/j")) { try SQLiteJournalStore(path: folder + "/j") }
      try store.apply([.admit(Sample.job("a"))])
    }
  }

  @Test(arguments: Engine.all) func damagedBytesAreNoticed(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    try store.apply([.admit(Sample.job("a", images: 2)), Sample.finish("a", 0, Sample.payload(1))])
    try store.apply([
      Sample.progress("a", 1, task: 0, steps: nil, Sample.payload(2)),
      Sample.progress("a", 1, steps: 2, Sample.payload(3)),
    ])
    try journal.damage("UPDATE payloads SET bytes = zeroblob(100) WHERE id != 2")
    #expect(throws: JournalError.corrupt(what: "the 100 bytes of payload 1")) {
      try store.result(of: ImageReference(job: "a", index: 0))
    }
    // The checkpoint is left out; the image is computed again from what is sound.
    #expect(try store.openJobs().jobs[0].images[0].progress.map(\.payload.id) == [2])
    #expect(try store.problems().count == 2)
    try journal.damage("UPDATE jobs SET request = x'00'")
    #expect(throws: JournalError.self) { try store.record(of: "a", tenant: nil) }
  }

  /// `isReadable`: whether what was asked for still is, and so the failure.
  @Test(
    arguments: [
      ("UPDATE jobs SET request = x'00' WHERE id = 'b'", false), ("DELETE FROM pictures WHERE picture = 1", false),
      ("UPDATE pictures SET state = 7 WHERE picture = 1", true), ("UPDATE attempts SET task = -1", true),
    ], Engine.all) func aDamagedJobFailsAndTheOthersStay(_ damage: (sql: String, isReadable: Bool), _ engine: Engine)
    throws
  {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    for (job, count) in [("a", 1), ("b", 2), ("c", 1)] {
      try store.apply([.admit(Sample.job(job, images: count))])
    }
    let attempt = JournalChange.attempt(ImageReference(job: "b", index: 0), task: 1, number: 4)
    try store.apply([Sample.progress("b", 0, steps: 2, Sample.payload(1)), attempt])
    try journal.damage(damage.sql)
    let damaged = try store.openJobs().damaged
    #expect(damaged.count == 1)
    try store.fail(damaged, code: .dataLoss, atMs: 3_000)
    let open = try store.openJobs()
    #expect(open.jobs.map(\.record.job.id) == ["a", "c"] && open.damaged.isEmpty)
    #expect(try store.counts() == (open: 2, all: 3))
    // Its checkpoint is gone with it.
    #expect(!(try store.problems().contains { $0.contains("belongs to nothing") }))
    #expect(
      try store.records(tenant: nil, before: nil, limit: 10).map(\.job.id)
        == (damage.isReadable ? ["c", "b", "a"] : ["c", "a"]))
    if damage.isReadable {
      let record = try #require(try store.record(of: "b", tenant: nil)),
        failure = "the journal is damaged: \(damaged[0].damage)"
      #expect(record.endedAtMs == 3_000)
      #expect(record.outcomes == [.failed(Status(.dataLoss, failure)), .failed(Status(.dataLoss, failure))])
    } else {
      #expect(throws: JournalError.self) { try store.record(of: "b", tenant: nil) }
    }
  }

  /// Any byte of the file may be wrong: that is reported, or does not matter, but it never ends the process.
  @Test func flippedBytesNeverTrap() throws {
    try withFolder { folder in
      let path = folder + "/j"
      do {
        let store = try SQLiteJournalStore(path: path)
        for number in 0..<6 { try store.apply([.admit(Sample.job("\(number)", images: 2, key: "\(number)"))]) }
        for number in 0..<6 {
          try store.apply([Sample.progress("\(number)", steps: 1, Sample.payload(UInt64(number + 1), 3000))])
        }
        try store.apply([Sample.finish("0", Sample.payload(10, 2000)), Sample.fail("0", 1)])
        store.close()
      }
      let sound = try Data(contentsOf: URL(filePath: path))
      var random = TestRandom("damaged journals")
      var noticed = 0
      for _ in 0..<300 {
        var bytes = sound
        for _ in 0..<Int.random(in: 1...4, using: &random) {
          bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
        }
        for suffix in ["-wal", "-shm"] { try? FileManager.default.removeItem(atPath: path + suffix) }
        try bytes.write(to: URL(filePath: path))
        do {
          let store = try SQLiteJournalStore(path: path)
          defer { store.close() }
          if try !store.problems().isEmpty { noticed += 1 }
          try store.fail(store.openJobs().damaged, code: .dataLoss, atMs: 3_000)
          _ = try Snapshot(store)
          try store.apply([.admit(Sample.job("new"))])
        } catch {
          noticed += 1
        }
      }
      #expect(noticed > 50)
    }
  }
}
