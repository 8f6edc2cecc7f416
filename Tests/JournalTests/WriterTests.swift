import Foundation
import Journal
import Synchronization
import TestSupport
import Testing

@Suite("Writing in groups", .timeLimit(.minutes(5)))
struct WriterTests {
  @Test(arguments: Engine.all) func everythingIsWrittenInOrderAndInFewTransactions(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    let outcomes = Outcomes()
    let writer = JournalWriter(store) { outcomes.append($0) }
    for number in 1...500 {
      writer.enqueue(.init(sequence: UInt64(number), changes: [.admit(Sample.job("\(number)"))]))
    }
    writer.stop()
    #expect(outcomes.all.last == .durable(through: 500))
    #expect(outcomes.all.count < 250, "\(outcomes.all.count) transactions for 500 batches")
    #expect(try store.openJobs().jobs.map(\.record.job.id) == (1...500).map { "\($0)" })
  }

  @Test(arguments: Engine.all) func aRefusedBatchDoesNotTakeOthersWithIt(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    let outcomes = Outcomes()
    let writer = JournalWriter(store) { outcomes.append($0) }
    for number in 1...20 {
      // 7 and 14 come twice.
      let id = number == 8 || number == 15 ? number - 1 : number
      writer.enqueue(.init(sequence: UInt64(number), changes: [.admit(Sample.job("\(id)"))]))
    }
    writer.stop()
    let refused = outcomes.all.compactMap { if case .refused(let number, .duplicate) = $0 { number } else { nil } }
    #expect(refused == [8, 15])
    #expect(outcomes.all.last == .durable(through: 20))
    #expect(try store.counts() == (18, 18))
  }

  @Test func everyTransactionIsObservedWithWhatItWrote() throws {
    let store = try SQLiteJournalStore(path: nil)
    let outcomes = Outcomes(), transactions = Mutex<[JournalWriter.Transaction]>([])
    let writer = JournalWriter(
      store, report: { outcomes.append($0) },
      observe: { transaction in transactions.withLock { $0.append(transaction) } })
    for number in 1...20 {
      writer.enqueue(.init(sequence: UInt64(number), changes: [.admit(Sample.job("\(min(number, 19))"))]))
    }
    writer.stop()
    let observed = transactions.withLock { $0 }
    let written = observed.filter { $0.failure == nil }
    #expect(written.reduce(0) { $0 + $1.changeCount } == 19 && written.allSatisfy { $0.byteCount > 0 })
    #expect(observed.contains { if case .duplicate = $0.failure { true } else { false } })
    #expect(observed.allSatisfy { $0.duration > .zero })
  }

  // MARK: Killed at any instant

  /// The change number `number` of an endless series.
  static func batch(_ number: Int) -> [JournalChange] {
    let job = "job-\(number / 8)"
    let payload = Sample.payload(UInt64(number + 1), 5_000 + number % 7 * 9_000)
    return switch number % 8 {
    case 0: [.admit(admission(job, number / 8))]
    case 1:
      [.attempt(ImageReference(job: job, index: 1), task: 1, number: 4)]
        + (0..<2).map { Sample.progress(job, $0, task: 0, steps: nil, payload) }
    case 2...4: [Sample.progress(job, steps: number % 8, payload)]
    case 5: [Sample.finish(job, 0, payload)]
    case 6: [Sample.progress(job, 1, steps: 1, payload)]
    default: number % 3 == 0 ? [Sample.fail(job, 1)] : [Sample.finish(job, 1, payload)]
    }
  }

  /// A job with images, one of which the next three jobs have as well.
  private static func admission(_ id: String, _ number: Int) -> StoredJob {
    var job = Sample.job(id, images: 2, key: id)
    job.inputs = [Sample.input(UInt64(number), 9_000), Sample.input(UInt64(1_000_000 + number / 4), 20_000)]
    job.webhooks = [Sample.webhook()]
    return job
  }

  /// Runs until something kills it; says on `acknowledgements` what is durable.
  static func writeUntilKilled(_ path: String, from start: Int, killAfterMicroseconds: UInt32, acknowledgements: String)
    throws
  {
    var limits = JournalLimits()
    limits.retentionSeconds = 1 << 40
    try writeUntilKilled(
      SQLiteJournalStore(path: path, limits: limits), from: start, killAfterMicroseconds: killAfterMicroseconds,
      acknowledgements: acknowledgements)
  }

  static func writeUntilKilled(
    _ store: any JournalStore, from start: Int, killAfterMicroseconds: UInt32, acknowledgements: String
  ) throws {
    untilKilled(afterMicroseconds: killAfterMicroseconds, notingIn: acknowledgements) { note in
      let writer = JournalWriter(store) { outcome in
        guard case .durable(let number) = outcome else { _exit(3) }
        note(number)
      }
      for number in start...(start + 100_000) {
        writer.enqueue(.init(sequence: UInt64(number + 1), changes: batch(number)))
        if number % 5 == 0 { usleep(300) }
      }
      writer.stop()
    }
  }

  /// A child process writes and is killed, sixty times over on one file: what was reported durable is there, what is
  /// there is a prefix of what it wrote, and nothing is damaged.
  @Test func nothingAcknowledgedIsLostWhenTheProcessIsKilled() async throws {
    let folder = NSTemporaryDirectory() + "journal-\(UInt64.random(in: 0 ... .max))"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let (path, acknowledgements) = (folder + "/j", folder + "/acknowledged")
    let mirror = try SQLiteJournalStore(path: nil)
    var (written, kills) = (0, 0)
    var random = TestRandom("killed writers")
    for _ in 0..<60 {
      let start = written
      let delay = UInt32.random(in: 0...60_000, using: &random)
      await #expect(processExitsWith: .signal(SIGKILL)) {
        [
          path = path as String, start = start as Int, delay = delay as UInt32,
          acknowledgements = acknowledgements as String
        ] in
        try WriterTests.writeUntilKilled(
          path, from: start, killAfterMicroseconds: delay, acknowledgements: acknowledgements)
      }
      kills += 1
      let acknowledged = notedNumber(in: acknowledgements) ?? start
      let store = try SQLiteJournalStore(path: path)
      let found = try Snapshot(store, limit: 4)
      #expect(try store.problems() == [])
      store.close()
      while written < acknowledged {
        try mirror.apply(Self.batch(written))
        written += 1
      }
      // More may be there than was acknowledged, but in order.
      var isFound = try Snapshot(mirror, limit: 4) == found
      while !isFound, written < acknowledged + 2_000 {
        try mirror.apply(Self.batch(written))
        written += 1
        isFound = try Snapshot(mirror, limit: 4) == found
      }
      try #require(
        isFound, "after \(kills) kills the journal is no beginning of what was written, \(acknowledged) acknowledged")
    }
    print("journal: \(kills) kills, \(written) changes")
    #expect(written > 100)
  }
}
