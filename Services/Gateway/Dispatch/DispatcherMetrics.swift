import ClusterCore
import Metrics
import Observability
import Scheduling
import Transport

/// What the dispatcher counts of jobs. What it counts of stages is in ``StageMeters``.
public enum DispatcherMetrics {
  static let jobsAdmitted = Counter(label: "qwenimage_gateway_jobs_admitted_total")
  static let jobsRestored = Counter(label: "qwenimage_gateway_jobs_restored_total")
  static let cacheHits = Counter(label: "qwenimage_gateway_prompt_cache_hits_total")
  static let cacheMisses = Counter(label: "qwenimage_gateway_prompt_cache_misses_total")
  static let jobsAdopted = Counter(label: "qwenimage_gateway_jobs_adopted_total")
  static let jobsHandedOver = Counter(label: "qwenimage_gateway_jobs_handed_over_total")

  /// What became of an attempt to extend the lease on a shared journal.
  enum LeaseRenewal: String, CaseIterable {
    case extended
    case failed
    /// Another owner has ended it.
    case lost

    var counter: Counter {
      Counter(label: "qwenimage_journal_lease_renewals_total", dimensions: [("outcome", rawValue)])
    }
  }

  /// Shows what only gateways with a shared journal count.
  static func prepareOwner() {
    for counter in [jobsAdopted, jobsHandedOver] { counter.increment(by: 0) }
    for renewal in LeaseRenewal.allCases { renewal.counter.increment(by: 0) }
  }

  static func record(owners: Int) { Gauge(label: "qwenimage_journal_owners").record(owners) }

  /// How images end.
  enum Outcome: String, CaseIterable {
    case finished
    case failed
    case cancelled

    init(_ failure: Status?) { self = failure.map { $0.code == .cancelled ? .cancelled : .failed } ?? .finished }

    var count: Counter { Counter(label: "qwenimage_gateway_jobs_total", dimensions: [("outcome", rawValue)]) }

    var time: Timer { Timer(label: "qwenimage_gateway_job_seconds", dimensions: [("outcome", rawValue)]) }
  }

  static func queueWait(_ priority: JobPriority) -> Timer {
    Timer(label: "qwenimage_gateway_queue_wait_seconds", dimensions: [("priority", priority.rawValue)])
  }

  /// Why requests do not become jobs: a name for each that an operator would do something else about.
  enum Refusal: String, CaseIterable {
    case queueFull = "queue_full"
    case tenantQueueFull = "tenant_queue_full"
    case storageFull = "storage_full"
    case contentPolicy = "content_policy"
    case keyReused = "key_reused"
    case unavailable
    case invalid
    case other

    init(_ status: Status) {
      switch (status.code, status.resource) {
      case (.resourceExhausted, .queue): self = .queueFull
      case (.resourceExhausted, .tenantQueue): self = .tenantQueueFull
      case (.resourceExhausted, .storage): self = .storageFull
      case (.permissionDenied, _): self = .contentPolicy
      case (.alreadyExists, _), (.aborted, _): self = .keyReused
      case (.unavailable, _): self = .unavailable
      case (.invalidArgument, _), (.deadlineExceeded, _), (.notFound, _), (.unimplemented, _): self = .invalid
      default: self = .other
      }
    }

    var counter: Counter {
      Counter(label: "qwenimage_gateway_jobs_rejected_total", dimensions: [("reason", rawValue)])
    }
  }

  /// Submits `images` images by `body`, and counts them if they are refused.
  public static func counting<Ticket>(
    images: Int, _ body: () async throws(Status) -> Ticket
  ) async throws(Status) -> Ticket {
    do throws(Status) { return try await body() } catch {
      Refusal(error).counter.increment(by: Int64(images))
      throw error
    }
  }

  /// Shows everything from the beginning on: what has never happened is 0, not absent.
  static func prepare() {
    for counter in [jobsAdmitted, jobsRestored, cacheHits, cacheMisses] { counter.increment(by: 0) }
    for reason in Refusal.allCases { reason.counter.increment(by: 0) }
    for outcome in Outcome.allCases {
      outcome.count.increment(by: 0)
      _ = outcome.time
    }
    for priority in JobPriority.allCases { _ = queueWait(priority) }
  }

  static func record(_ status: ClusterStatus, payloadBytes: Int) {
    Gauge(label: "qwenimage_gateway_started_jobs").record(status.startedImages)
    Gauge(label: "qwenimage_gateway_cached_prompt_bytes").record(status.cacheBytes)
    Gauge(label: "qwenimage_gateway_payload_bytes").record(payloadBytes)
    Gauge(label: "qwenimage_journal_pending_entries").record(status.pendingEntries)
  }

  static func record(_ group: QueueCensus.Group, count: Int, oldestSeconds: Double) {
    Gauge(label: "qwenimage_gateway_queued_jobs", dimensions: group.dimensions).record(count)
    Gauge(label: "qwenimage_gateway_oldest_queued_job_seconds", dimensions: group.dimensions).record(oldestSeconds)
  }
}
