import Foundation
import Journal
import Objects
import TestSupport
import Testing

@Suite("Killed while writing objects", .timeLimit(.minutes(2)))
struct KillTests {
  static func opened(_ folder: String) throws -> any JournalStore {
    var limits = JournalLimits()
    limits.retentionSeconds = 1 << 40
    let base = try SQLiteJournalStore(path: folder + "/j", limits: limits)
    return try ObjectJournal.open(
      base, objects: FileObjectStore(directory: "\(folder)/objects/\(base.objectSpace)"), rules: .small)
  }

  /// The change number `number` of an endless series.
  static func batch(_ number: Int) -> [JournalChange] {
    let job = "job-\(number / 6)"
    let payload = Sample.payload(UInt64(number + 1), 500 + number % 7 * 900)
    return switch number % 6 {
    case 0: [.admit(Sample.job(job, images: 2, inputs: [Sample.input(UInt64(number / 12), 4_000)]))]
    case 1: (0..<2).map { Sample.progress(job, $0, task: 0, steps: nil, payload) }
    case 2, 3: [Sample.progress(job, steps: number % 6, payload)]
    case 4: [Sample.finish(job, 0, payload)]
    default: number % 5 == 0 ? [Sample.fail(job, 1)] : [Sample.finish(job, 1, payload)]
    }
  }

  static func writeUntilKilled(_ folder: String, from start: Int, killAfterMicroseconds: UInt32) throws {
    let store = try opened(folder)
    untilKilled(afterMicroseconds: killAfterMicroseconds, notingIn: folder + "/acknowledged") { note in
      let writer = JournalWriter(store) { outcome in
        guard case .durable(let number) = outcome else { _exit(3) }
        note(number)
      }
      for number in start...(start + 100_000) {
        writer.enqueue(.init(sequence: UInt64(number + 1), changes: batch(number)))
        if number % 5 == 0 { usleep(1_000) }
      }
      writer.stop()
    }
  }

  /// Many times over: everything that was reported durable is there with its bytes, no row names an object that is not
  /// there, and what no row names is deleted a day later.
  @Test func noRowNamesAnObjectThatIsNotThere() async throws {
    let folder = NSTemporaryDirectory() + "objects-\(UInt64.random(in: 0 ... .max))"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    var random = TestRandom("killed writers of objects")
    var (written, kills) = (0, 0)
    // A slow disk takes more kills for as many changes.
    while kills < 15 || written < 60 && kills < 60 {
      kills += 1
      let (start, delay) = (written, UInt32.random(in: 20_000...150_000, using: &random))
      await #expect(processExitsWith: .signal(SIGKILL)) {
        [folder = folder as String, start = start as Int, delay = delay as UInt32] in
        try KillTests.writeUntilKilled(folder, from: start, killAfterMicroseconds: delay)
      }
      written = try Self.check(folder, acknowledged: max(notedNumber(in: folder + "/acknowledged") ?? 0, start))
    }
    #expect(written >= 60, "\(written) changes were written")
    try Self.age(folder)
    let store = try Self.opened(folder)
    defer { store.close() }
    let named = try (store.openJobs().jobs.flatMap(\.images).flatMap(\.progress)).filter {
      $0.payload.byteCount >= 1000
    }
    #expect(named.allSatisfy { $0.payload.object == nil })
    #expect(try holds { try store.problems() == [] }, "orphans of \(folder) are left")
  }

  /// - Returns: how many changes are there; they are the first ones of the series.
  private static func check(_ folder: String, acknowledged: Int) throws -> Int {
    let store = try opened(folder)
    defer { store.close() }
    #expect(try store.problems() == [])
    // What the whole series up to here, written into another journal, comes to.
    let jobs = try store.counts().all
    var written = max(acknowledged, (jobs - 1) * 6 + 1)
    while written < jobs * 6, try isThere(written, store) { written += 1 }
    for number in 0..<written where number % 6 == 4 {
      let result = try store.result(of: ImageReference(job: "job-\(number / 6)", index: 0))
      #expect(result == Sample.payload(UInt64(number + 1), 500 + number % 7 * 900))
    }
    return written
  }

  /// Whether the change of this number, which is not its job's first, has been made.
  private static func isThere(_ number: Int, _ store: any JournalStore) throws -> Bool {
    let job = "job-\(number / 6)"
    let images = try store.openJobs().jobs.first { $0.record.job.id == job }?.images ?? []
    let outcomes = try store.record(of: job, tenant: nil)?.outcomes ?? []
    let progress = images.first { $0.reference.index == 0 }?.progress ?? []
    guard outcomes.count == 2 else { return false }
    return switch number % 6 {
    case 1: outcomes[0] != .open || !progress.isEmpty
    case 2, 3: outcomes[0] != .open || progress.contains { ($0.completedSteps ?? 0) >= number % 6 }
    case 4: outcomes[0] != .open
    default: outcomes[1] != .open
    }
  }

  /// Makes all objects years old.
  private static func age(_ folder: String) throws {
    for file in files(in: folder + "/objects") {
      try FileManager.default.setAttributes(
        [.modificationDate: Date(timeIntervalSince1970: 1e9)], ofItemAtPath: "\(folder)/objects/\(file)")
    }
  }
}
