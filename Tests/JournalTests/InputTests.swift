import ClusterCore
import Foundation
import GRDB
import Journal
import TestSupport
import Testing

/// The images that jobs begin with.
@Suite("Images in the journal", .timeLimit(.minutes(5)))
struct InputTests {
  /// A job with images of these contents.
  private static func job(_ id: String, _ inputs: [UInt64], images: Int = 1, bytes: Int = 5000) -> StoredJob {
    var job = Sample.job(id, images: images)
    job.inputs = inputs.map { Sample.input($0, bytes) }
    return job
  }

  /// Digests of all images that are there.
  private static func digests(_ journal: TestJournal) throws -> [String] {
    try journal.column("SELECT digest FROM inputs ORDER BY digest")
  }

  private static func inputs(of id: String, _ store: any JournalStore) throws -> [String]? {
    try store.openJobs().jobs.first { $0.record.job.id == id }?.record.job.inputs.map(\.digest).sorted()
  }

  @Test(arguments: Engine.all) func anImageStaysAsLongAsAJobHasIt(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    try store.apply([.admit(Self.job("a", [1, 2], images: 2)), .admit(Self.job("b", [2, 3]))])
    #expect(try Self.digests(journal) == ["input 1", "input 2", "input 3"])
    #expect(try store.openJobs().jobs[0].record.job.inputs == [Sample.input(1), Sample.input(2)])
    // The end of one of two images changes nothing.
    try store.apply([Sample.finish("a", 0, Sample.payload(1))])
    #expect(try Self.inputs(of: "a", store) == ["input 1", "input 2"])
    try store.apply([Sample.fail("a", 1)])
    #expect(try Self.digests(journal) == ["input 2", "input 3"])
    #expect(try store.problems() == [])
    // What comes late changes nothing either.
    try store.apply([Sample.fail("a", 1), Sample.finish("a", 0, Sample.payload(2))])
    #expect(try Self.inputs(of: "b", store) == ["input 2", "input 3"])
    try store.apply([Sample.finish("b", Sample.payload(3))])
    #expect(try Self.digests(journal) == [] && store.problems() == [])
    // The job itself is still known, and its images may come again.
    #expect(try store.record(of: "a", tenant: nil)?.endedAtMs == 2_000)
    try store.apply([.admit(Self.job("c", [1]))])
    #expect(try Self.inputs(of: "c", store) == ["input 1"])
  }

  @Test(arguments: Engine.all) func aJobThatIsRefusedLeavesNoImages(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    try store.apply([.admit(Self.job("a", [1]))])
    #expect(throws: JournalError.self) { try store.apply([.admit(Self.job("b", [2])), .admit(Self.job("a", [3]))]) }
    #expect(try Self.digests(journal) == ["input 1"] && store.problems() == [])
    var many = Self.job("c", [])
    many.inputs = (0..<100).map { Sample.input($0, 1) }
    for job in [many, Self.job(String(repeating: "x", count: 300), [4])] {
      #expect { try store.apply([.admit(job)]) } throws: {
        if case .some(.tooLarge) = $0 as? JournalError { true } else { false }
      }
    }
    #expect(try Self.digests(journal) == ["input 1"])
  }

  @Test(arguments: Engine.all) func aJobIsAdmittedOnlyWithSpaceForItsImages(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    var limits = JournalLimits()
    limits.maxBytes = 4 << 20
    limits.reserveBytes = 1 << 20
    let store = try journal.open(limits: limits)
    try store.apply([.admit(Self.job("a", [1], bytes: 2 << 20))])
    #expect { try store.apply([.admit(Self.job("b", [2], bytes: 2 << 20))]) } throws: { error in
      guard case .some(.full(let reason)) = error as? JournalError else { return false }
      return reason.hasSuffix("the images of the job have 2097152")
    }
    // One that is there already needs none.
    try store.apply([.admit(Self.job("c", [1], bytes: 2 << 20))])
    for id in ["a", "c"] { try store.apply([Sample.fail(id)]) }
    try store.apply([.admit(Self.job("b", [2], bytes: 2 << 20))])
    #expect(try store.problems() == [])
  }

  /// A job whose image is damaged fails, and takes no other with it.
  @Test(
    arguments: [
      "UPDATE inputs SET bytes = zeroblob(5000) WHERE digest = 'input 2'",
      "UPDATE inputs SET crc = crc + 1 WHERE digest = 'input 2'",
    ], Engine.all)
  func aDamagedImageIsNoticed(damage: String, engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    for (id, inputs) in [("a", [1]), ("b", [1, 2]), ("c", [3])] as [(String, [UInt64])] {
      try store.apply([.admit(Self.job(id, inputs))])
    }
    try journal.damage(damage)
    #expect(try store.problems().count == 1)
    let found = try store.openJobs()
    #expect(found.jobs.map(\.record.job.id) == ["a", "c"])
    #expect(found.damaged.map(\.damage) == ["an image that job b begins with"])
    try store.fail(found.damaged, code: .dataLoss, atMs: 3_000)
    #expect(try Self.digests(journal) == ["input 1", "input 3"] && store.problems() == [])
    #expect(try store.openJobs().damaged.isEmpty)
  }

  @Test(arguments: Engine.all) func whatBelongsToNothingIsAProblem(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    try store.apply([.admit(Self.job("a", [1]))])
    try journal.damage("DELETE FROM job_inputs")
    #expect(try store.problems() == ["input input 1 belongs to nothing"])
  }

  // MARK: Killed between any two writes

  /// Two jobs that share an image: admitted, worked on, ended, and a third with images of both.
  private static let changes: [[JournalChange]] = [
    [.admit(job("a", [1, 2], images: 2))], [Sample.progress("a", 0, task: 0, steps: nil, Sample.payload(1, 3000))],
    [.admit(job("b", [2, 3]))], [Sample.progress("a", 0, steps: 2, Sample.payload(2, 3000))],
    [Sample.finish("a", 0, Sample.payload(3, 6000))], [Sample.fail("a", 1)],
    [Sample.progress("b", steps: 1, Sample.payload(4, 3000)), .admit(job("c", [1, 3, 4]))],
    [Sample.finish("b", Sample.payload(5, 6000))], [Sample.fail("c")],
  ]

  /// All that a journal has of jobs and their images.
  private struct State: Equatable {
    var snapshot: Snapshot
    var digests: [String]

    init(_ store: SQLiteJournalStore) throws {
      snapshot = try Snapshot(store)
      digests = try store.database.read {
        try String.fetchAll($0, sql: "SELECT digest FROM inputs ORDER BY digest")
      }
    }
  }

  /// The files as they are after every single write of a commit, and in the middle of each: SQLite appends pages to the
  /// write-ahead log one by one. What is found is always the state after one of the commits, with every image of every
  /// job, and none besides; and never a state before a commit that was complete.
  @Test func everyBeginningOfTheLogIsAState() throws {
    try withFolder { folder in
      let path = folder + "/j"
      let store = try SQLiteJournalStore(path: path)
      var states = [try State(store)], complete = [try Self.size(path + "-wal")]
      let database = try Data(contentsOf: URL(filePath: path))
      for change in Self.changes {
        try store.apply(change)
        states.append(try State(store))
        complete.append(try Self.size(path + "-wal"))
      }
      #expect(try Data(contentsOf: URL(filePath: path)) == database, "no checkpoint in between")
      let log = try Data(contentsOf: URL(filePath: path + "-wal"))
      store.close()
      let (header, frame) = (32, 24 + 4096)
      #expect((log.count - header) % frame == 0)
      var cuts = Set(stride(from: complete[0], through: log.count, by: frame))
      var random = TestRandom("cut logs")
      for cut in cuts { cuts.formUnion([cut + 1, cut + 24, cut + Int.random(in: 25..<frame, using: &random)]) }
      var found: Set<Int> = []
      for cut in cuts.sorted() where cut <= log.count {
        let copy = folder + "/copy"
        for suffix in ["", "-wal", "-shm", ".lock"] { try? FileManager.default.removeItem(atPath: copy + suffix) }
        try database.write(to: URL(filePath: copy))
        try log.prefix(cut).write(to: URL(filePath: copy + "-wal"))
        let opened = try SQLiteJournalStore(path: copy)
        let state = try State(opened)
        #expect(try opened.problems() == [], "cut at \(cut)")
        opened.close()
        let number = try #require(states.firstIndex(of: state), "cut at \(cut): no state of a commit")
        #expect(number == complete.lastIndex { $0 <= cut }, "cut at \(cut)")
        found.insert(number)
      }
      #expect(found == Set(states.indices))
      print("journal: \(cuts.count) cuts of a log of \(log.count) bytes")
    }
  }

  /// A checkpoint copies pages of the log into the database in any order, and the log stays until all are there.
  @Test func everyPartOfACheckpointIsTheState() throws {
    try withFolder { folder in
      let path = folder + "/j"
      let store = try SQLiteJournalStore(path: path)
      for change in Self.changes.prefix(7) { try store.apply(change) }
      let state = try State(store)
      let (before, log) = (
        try Data(contentsOf: URL(filePath: path)), try Data(contentsOf: URL(filePath: path + "-wal"))
      )
      store.close()
      let after = try Data(contentsOf: URL(filePath: path))
      #expect(try after.count > before.count && Self.size(path + "-wal") == 0)
      var random = TestRandom("parts of checkpoints")
      for _ in 0..<60 {
        var database = before + Data(repeating: 0, count: after.count - before.count)
        let written = Double.random(in: 0...1, using: &random)
        for page in stride(from: 0, to: after.count, by: 4096) where Double.random(in: 0..<1, using: &random) < written
        {
          database.replaceSubrange(page..<page + 4096, with: after[page..<page + 4096])
        }
        let copy = folder + "/copy"
        for suffix in ["", "-wal", "-shm", ".lock"] { try? FileManager.default.removeItem(atPath: copy + suffix) }
        try database.write(to: URL(filePath: copy))
        try log.write(to: URL(filePath: copy + "-wal"))
        let opened = try SQLiteJournalStore(path: copy)
        #expect(try State(opened) == state)
        #expect(try opened.problems() == [])
        opened.close()
      }
    }
  }

  private static func size(_ path: String) throws -> Int {
    (try FileManager.default.attributesOfItem(atPath: path)[.size] as? NSNumber)?.intValue ?? 0
  }
}
