import OrderedCollections

/// Decides which worker does which task of which job: a state machine without input, output, clock or chance, so that the
/// gateway and a simulation run the same code, and the same events give the same effects.
///
/// * A worker takes as many tasks as it has credits. Whoever holds a credit is known: a running attempt, a revoked one whose
///   worker has not let go of it yet, or a task from a time before this run.
/// * An attempt's answers count while it is its task's current one. Numbers grow with each attempt, so late answers are recognised.
/// * A task that is lost goes to another worker, from its last checkpoint and within the same numerics class.
/// * A job ends exactly once: finished, or failed with a reason.
public struct Scheduler: Sendable {
  /// The limits it obeys.
  public let configuration: SchedulingConfiguration

  /// In the order of their registration.
  var workers: OrderedDictionary<WorkerID, Worker> = [:]
  /// In the order of their submission, which is the order of service.
  var jobs: OrderedDictionary<JobID, Job> = [:]
  var tasks: OrderedDictionary<TaskID, StageTask> = [:]
  /// Shared tasks that are not done. Looked up, never iterated.
  var shared: [ContentKey: TaskID] = [:]
  var cache: OutputCache
  var ledger = PayloadLedger()
  var pace = PaceEstimator()
  /// Whether a job came, began or ended since the positions were told.
  var isOrderNew = false
  /// What the event that is being handled has brought about so far.
  var effects: [Effect] = []

  /// An empty cluster.
  public init(configuration: SchedulingConfiguration = SchedulingConfiguration()) {
    self.configuration = configuration
    self.cache = OutputCache(maxBytes: configuration.maxCacheBytes)
  }

  /// Takes note of what happened and says what is to be done about it.
  ///
  /// - Parameters:
  ///   - event: what happened.
  ///   - now: when; never earlier than in the call before.
  /// - Returns: effects, to be carried out in this order before the next event.
  public mutating func step(_ event: Event, now: Instant) -> [Effect] {
    handle(event, now: now)
    assignTasks(now: now)
    tellPositions()
    defer { effects.removeAll() }
    return effects
  }

  private mutating func handle(_ event: Event, now: Instant) {
    switch event {
    case .workerRegistered(let registration): register(registration, now: now)
    case .workerReported(let worker, let report): takeReport(report, of: worker, now: now)
    case .workerDraining(let worker):
      hear(worker, now: now)
      workers[worker]?.isDraining = true
    case .workerLeft(let worker, let reason): loseWorker(worker, reason: reason, now: now)
    case .jobsSubmitted(let submissions): submit(submissions, now: now)
    case .jobCancelled(let job, let reason): failJob(job, reason)
    case .taskAccepted(let attempt, let worker):
      hear(worker, now: now)
      if workers[worker]?.attempts[attempt]?.state == .offered { workers[worker]?.attempts[attempt]?.state = .running }
    case .taskProgressed(let attempt, let worker, let report):
      hear(worker, now: now)
      progress(attempt, by: worker, report, now: now)
    case .taskFinished(let attempt, let worker, let output):
      hear(worker, now: now)
      finish(attempt, by: worker, output: output, now: now)
    case .taskFailed(let attempt, let worker, let failure):
      hear(worker, now: now)
      fail(attempt, by: worker, failure, now: now)
    case .tick: checkTimes(now: now)
    }
  }

  /// Any message renews the lease.
  mutating func hear(_ worker: WorkerID, now: Instant) {
    workers[worker]?.lastHeardAt = now
  }

  mutating func release(_ payload: Payload) {
    if ledger.release(payload) { effects.append(.release(payload)) }
  }

  /// A payload that came with an answer that does not count.
  mutating func discard(_ payload: Payload) {
    ledger.retain(payload)
    release(payload)
  }
}
