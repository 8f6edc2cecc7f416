import ClusterCore
import Foundation
import GRDB
import Journal
import PostgreSQLJournal
import Synchronization
import Testing

/// A directory that is gone afterwards.
func withFolder<Result>(_ body: (String) throws -> Result) throws -> Result {
  let folder = NSTemporaryDirectory() + "journal-\(UInt64.random(in: 0 ... .max))"
  try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(atPath: folder) }
  return try body(folder)
}

enum Sample {
  static func job(_ id: String, tenant: String = "t", images: Int = 1, key: String? = nil, request: String = "a cat")
    -> StoredJob
  {
    StoredJob(
      id: id, tenant: tenant, submittedAtMs: 1_000, deadlineAtMs: 90_000, request: Data(request.utf8),
      imageCount: images,
      key: key.map { IdempotencyKey(text: $0, digest: Data("digest of \($0)".utf8)) })
  }

  static func payload(_ id: UInt64, _ byteCount: Int = 100) -> StoredPayload {
    var state = id &* 0x9E37_79B9_7F4A_7C15 &+ 1
    let bytes = (0..<byteCount).map { _ in
      state = state &* 6_364_136_223_846_793_005 &+ 1
      return UInt8(truncatingIfNeeded: state >> 56)
    }
    return StoredPayload(id: id, name: "latents", dtype: 2, shape: [byteCount / 2, 1], bytes: Data(bytes))
  }

  static func input(_ number: UInt64, _ byteCount: Int = 5000) -> StoredInput {
    StoredInput(digest: "input \(number)", bytes: payload(number &+ 1_000_000, byteCount).bytes)
  }

  static func progress(_ job: String, _ index: Int = 0, task: Int = 1, steps: Int?, _ payload: StoredPayload)
    -> JournalChange
  {
    .progress(
      ImageReference(job: job, index: index),
      StoredProgress(task: task, completedSteps: steps, payload: payload, numericsClass: "avx512"))
  }

  static func finish(_ job: String, _ index: Int, _ payload: StoredPayload, atMs: Int64 = 2_000) -> JournalChange {
    .finish(ImageReference(job: job, index: index), result: payload, promptTokens: 7, atMs: atMs)
  }

  static func finish(_ job: String, _ payload: StoredPayload, atMs: Int64 = 2_000) -> JournalChange {
    finish(job, 0, payload, atMs: atMs)
  }

  static func webhook(_ events: [String] = ["job.completed", "job.failed", "job.cancelled"]) -> StoredWebhook {
    StoredWebhook(url: "https://example.org/hook", host: "example.org", secret: "whsec_x", events: events)
  }

  static func fail(_ job: String, _ index: Int = 0, atMs: Int64 = 2_000) -> JournalChange {
    .fail(ImageReference(job: job, index: index), Status(StatusCode(rawValue: 13)!, "no", field: "prompt"), atMs: atMs)
  }
}

extension JournalStore {
  /// The newest jobs of a tenant, or of all, without those whose rows are damaged.
  func records(tenant: String?, before number: Int64?, limit: Int) throws -> [StoredRecord] {
    let ids: [String]
    switch self {
    case let store as SQLiteJournalStore:
      ids = try store.database.read {
        try String.fetchAll(
          $0,
          sql: "SELECT id FROM jobs WHERE number < ?1 AND (?2 IS NULL OR tenant = ?2) ORDER BY number DESC LIMIT ?3",
          arguments: [number ?? Int64.max, tenant, limit])
      }
    case let store as PostgreSQLJournalStore:
      ids = try store.jobs(tenant: tenant, before: number ?? Int64.max, limit: limit)
    default: ids = []
    }
    return try ids.compactMap { id in
      do { return try record(of: id, tenant: nil) } catch JournalError.corrupt { return nil }
    }
  }
}

/// Everything that a journal tells, for comparison.
struct Snapshot: Equatable {
  var records: [StoredRecord]
  var open: [OpenImage]
  /// The images that open jobs begin with.
  var inputs: [Set<StoredInput>]
  var results: [StoredPayload?]
  /// Of each job, by its webhooks.
  var deliveries: [[StoredDelivery]]

  /// The newest `limit` jobs.
  init(_ store: any JournalStore, limit: Int = .max) throws {
    records = try store.records(tenant: nil, before: nil, limit: limit)
    let jobs = try store.openJobs().jobs
    open = jobs.flatMap(\.images)
    inputs = jobs.map { Set($0.record.job.inputs) }
    results = try records.flatMap { record in
      try record.outcomes.indices.map { try store.result(of: ImageReference(job: record.job.id, index: $0)) }
    }
    deliveries = try records.flatMap { try store.webhooks(of: $0.job.id).map(\.deliveries) }
  }

  /// Without the numbers of jobs and deliveries, of which an engine may leave some out.
  var unnumbered: Snapshot {
    var snapshot = self
    for index in records.indices { snapshot.records[index].number = 0 }
    for index in deliveries.indices {
      for place in deliveries[index].indices { snapshot.deliveries[index][place].number = 0 }
    }
    return snapshot
  }
}

/// What a writer has reported.
final class Outcomes: Sendable {
  private let list = Mutex<[JournalWriter.Outcome]>([])
  var all: [JournalWriter.Outcome] { list.withLock { $0 } }
  func append(_ outcome: JournalWriter.Outcome) { list.withLock { $0.append(outcome) } }
}
