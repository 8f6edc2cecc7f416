import ClusterCore
import OrderedCollections

/// Decides which worker does which task of which job: a state machine without input, output, clock or chance, so that
/// the gateway and a simulation run the same code, and the same events give the same effects.
///
/// * A worker takes as many tasks as it has credits. What holds a credit is known: a running attempt, a revoked one
///   whose worker has not let go of it yet, or a task from a time before this run.
/// * An attempt's answers count while it is its task's current one. Numbers grow with each attempt, so late answers
///   are recognised.
/// * A task that is lost goes to another worker, from its last checkpoint and within the same numerics class.
/// * A job ends exactly once: finished, or failed with a reason.
/// * Clients are notified of a job's admission and of its end only when the journal has it.
public struct Scheduler: Sendable {
  /// The limits it obeys.
  public let configuration: SchedulingConfiguration

  /// In the order of their registration.
  var workers: OrderedDictionary<WorkerID, WorkerSession> = [:]
  /// In the order of their submission, which is the order of service.
  var jobs: OrderedTable<ImageJobID, ImageJob> = [:]
  var tasks: OrderedTable<TaskID, ImageTask> = [:]
  /// Shared tasks that are not done. Looked up, never iterated.
  var shared: [ContentKey: TaskID] = [:]
  /// What workers were asked to load and have not registered with yet.
  var modelSwitches: [ModelNeed: (worker: String, at: Instant)] = [:]
  /// Who assists which attempt.
  var assistants: OrderedDictionary<AttemptID, Assistance> = [:]
  /// Numbers of assistances are not used again, in later runs neither.
  var lastAssistance: UInt64
  var cache: OutputCache
  var ledger = PayloadLedger()
  var pace = PaceEstimator()
  /// For how long tasks have held workers of each stage.
  var occupancies: [StageName: PaceWindow] = [:]
  var shares = TenantShares()
  /// The jobs by what they wait for.
  var queues = JobQueues()
  var deadlines = Deadlines()
  var lastRank: UInt64 = 0
  var lastPrecedence: UInt64 = 0
  var free = FreeWorkers()
  /// What was expected last, while that takes long to find out.
  var lastEstimates: (at: Instant, jobs: [ImageJobID: JobEstimate])?
  /// How far the clients behind the first ones of the queue are notified of their positions; nil: none is to be.
  var farPositions: (order: WaitingOrder, last: Int)?
  /// Whether those have changed since that was begun.
  var areFarPositionsNew = false
  /// When it was last looked for models that jobs need.
  var needsSeenAt: Instant?
  /// Jobs that must be durable before a worker gets one of their tasks.
  var admissions: OrderedTable<ImageJobID, Admission> = [:]
  /// Jobs whose end must be durable before clients are notified.
  var endings: OrderedTable<ImageJobID, Ending> = [:]
  /// Entries that the journal has not answered.
  var pending: OrderedTable<JournalSequence, PendingEntry> = [:]
  var lastEntry = JournalSequence(0)
  /// They may be more than `maxJobs`.
  var restoredJobCount = 0
  /// Tells attempts of this run from those of earlier ones.
  let run: UInt32
  /// The epoch under which it owns jobs of a shared journal; 0: no other owner has a part in the journal.
  public let owner: Int64
  /// What is known of the journal's other owners.
  var others = OtherOwners()
  /// Tasks of adopted jobs whose last attempt may still run at a worker.
  var claimable: OrderedSet<TaskID> = []
  /// Jobs that ended here lately, the oldest first: what still runs for them is no stray.
  var recentlyEnded: OrderedTable<ImageJobID, Void> = [:]
  /// Why it has no jobs any more; nil: it may.
  var disownedReason: Status?
  var lastTickAt: Instant?
  /// Of the event that is being handled.
  var lastStepAt = Instant.zero
  /// Whether a job came, began or ended since clients were notified of the positions.
  var isOrderNew = false
  /// Whether something came that tasks could be offered for since they were offered last.
  var isAssignmentDue = false
  /// What the event that is being handled has brought about so far.
  var effects: [Effect] = []

  /// Rules that the simulator leaves out, to see whether it would notice.
  package struct Omissions: OptionSet, Sendable {
    package let rawValue: Int
    package init(rawValue: Int) { self.rawValue = rawValue }
    /// Answers of revoked attempts count.
    package static let fencing = Omissions(rawValue: 1)
    /// Attempts hold no credits.
    package static let credits = Omissions(rawValue: 2)
    /// A step may come after a later one.
    package static let stepOrder = Omissions(rawValue: 4)
    /// Workers of any class resume from a checkpoint.
    package static let numericsClass = Omissions(rawValue: 8)
    /// Workers get tasks of any model.
    package static let model = Omissions(rawValue: 16)
    /// Assistants stay when their attempt is over.
    package static let assistance = Omissions(rawValue: 32)
    /// Attempts of adopted jobs are numbered like those of their earlier owner.
    package static let adoptedNumbers = Omissions(rawValue: 64)
    /// Attempts of adopted jobs are offered before the journal knows their numbers.
    package static let reservation = Omissions(rawValue: 128)
    /// No worker is asked for the attempts of adopted jobs.
    package static let claims = Omissions(rawValue: 256)
  }
  package var omissions: Omissions = []

  /// The largest number of a run.
  public static let maxRun = AttemptNumbers.maxBlock
  /// Attempts that one ``Effect/claim(_:at:)`` names.
  public static let maxClaims = 256

  /// An empty cluster.
  ///
  /// - Parameters:
  ///   - configuration: the limits.
  ///   - run: how often the journal was opened before with jobs that are unfinished now, durable before the first
  ///     event; it tells attempts of this run from those of earlier ones. At most `maxRun`.
  ///   - owner: the epoch of this opening of a journal that has several owners; 0: it has one.
  public init(configuration: SchedulingConfiguration = SchedulingConfiguration(), run: UInt32 = 0, owner: Int64 = 0) {
    precondition(run <= Self.maxRun, "run \(run) is above \(Self.maxRun)")
    self.configuration = configuration
    self.cache = OutputCache(maxBytes: configuration.maxCacheBytes)
    self.lastAssistance = (owner == 0 ? UInt64(run) : UInt64(truncatingIfNeeded: owner) & 0xff_ffff) << 40
    self.run = run
    self.owner = owner
  }

  /// Takes note of what happened and says what is to be done about it.
  ///
  /// - Parameters:
  ///   - event: what happened.
  ///   - now: when; never earlier than in the call before.
  /// - Returns: effects, to be carried out in this order before the next event.
  public mutating func step(_ event: Event, now: Instant) -> [Effect] {
    lastStepAt = now
    let arrivals = free.arrivals
    handle(event, now: now)
    endAssistances()
    if event.mayBringWork || isAssignmentDue || free.arrivals != arrivals {
      isAssignmentDue = false
      assignTasks(now: now)
    }
    tellPositions()
    defer { effects.removeAll() }
    return effects
  }

  private mutating func handle(_ event: Event, now: Instant) {
    switch event {
    case .workerRegistered(let registration): register(registration, now: now)
    case .workerReported(let worker, let report): takeReport(report, of: worker, now: now)
    case .workerAdaptersChanged(let worker, let adapters):
      hear(worker, now: now)
      workers[worker]?.adapters = adapters
    case .workerDraining(let worker):
      hear(worker, now: now)
      workers[worker]?.isDraining = true
      free.update(worker, workers[worker])
    case .workerLeft(let worker, let reason): loseWorker(worker, reason: reason, now: now)
    case .imagesSubmitted(let submissions): submit(submissions, now: now)
    case .imageCancelled(let job, let reason): failJob(job, reason)
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
    case .journalled(let last): settle(through: last, now: now)
    case .journalRefused(let sequence, let failure): refuse(sequence, failure, now: now)
    case .restored(let jobs): restore(jobs, now: now)
    case .adopted(let jobs): adopt(jobs, now: now)
    case .othersChanged(let loads): takeLoads(loads)
    case .disowned(let reason): disown(reason)
    case .tenantsChanged(let tenants): changeTenants(tenants)
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

extension Event {
  /// Whether tasks may be offered after it though no task has become ready and no worker free. Of most events that a
  /// job brings that is not so, and to look through what waits takes longer than the event.
  fileprivate var mayBringWork: Bool {
    switch self {
    case .taskAccepted, .taskProgressed: false
    default: true
    }
  }
}
