/// What decides between the first jobs that wait at two owners.
struct QueuePlace: Hashable, Sendable {
  var isBatch: Bool
  /// The tenant's.
  var clock: Double
  /// Clocks that are closer than this count as equal: the cost ÷ weight of a job.
  var margin = 0.0
  var waitSeconds: Double

  /// Waits that differ by less, such as by the age of what an owner said, count as equal.
  private static let waitMargin = 2.0

  /// Whether it comes clearly before `other`.
  func isBefore(_ other: QueuePlace) -> Bool {
    if isBatch != other.isBatch { return !isBatch }
    if abs(clock - other.clock) > other.margin { return clock < other.clock }
    return waitSeconds > other.waitSeconds + Self.waitMargin
  }
}

/// Owners of one journal want the same workers, and the one whose messages are fastest would get every worker that
/// becomes free. So an owner whose next job comes after another one's leaves such a worker alone for a moment.
extension Scheduler {
  /// The first job that waits at another owner, in the order in which this one would take it; nil: none waits.
  func firstWaitingElsewhere() -> QueuePlace? {
    var first: QueuePlace?
    for load in others.loads.values {
      for tenant in load.tenants where tenant.waitingJobs + tenant.waitingBatchJobs > 0 {
        let place = QueuePlace(
          isBatch: tenant.waitingJobs == 0, clock: shares.clock(of: tenant.tenant), waitSeconds: tenant.waitSeconds)
        let isFirst =
          first.map {
            (place.isBatch ? 1 : 0, place.clock, -place.waitSeconds) < ($0.isBatch ? 1 : 0, $0.clock, -$0.waitSeconds)
          } ?? true
        if isFirst { first = place }
      }
    }
    return first
  }

  /// Of a job that waits here.
  func place(of job: ImageJob, now: Instant) -> QueuePlace {
    let tenant = job.submission.tenant
    return QueuePlace(
      isBatch: !job.isUrgent, clock: shares.clock(of: tenant),
      margin: job.plan.tasks[job.plan.principal].cost / policy(of: tenant).weight,
      waitSeconds: (now - job.admittedAt).seconds)
  }

  /// Whether the worker has become free so lately that others may still be asking for it.
  func isLeftToOthers(_ worker: WorkerSession, now: Instant) -> Bool {
    worker.freeSince.map { now - $0 < configuration.yieldTime } ?? false
  }

  /// Takes note of a worker whose free credits may have changed.
  ///
  /// - Parameter freeCredits: those that it had before.
  mutating func noteFree(_ id: WorkerID, before freeCredits: Int, now: Instant) {
    free.update(id, workers[id])
    if owner != 0, freeCredits == 0, workers[id]?.freeCredits ?? 0 > 0 { workers[id]?.freeSince = now }
  }
}
