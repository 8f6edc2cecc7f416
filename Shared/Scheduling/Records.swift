import ClusterCore
import OrderedCollections

/// A worker's session, and the attempts that hold its credits.
struct WorkerSession: Hashable, Sendable {
  let registration: WorkerRegistration
  let joinedAt: Instant
  /// Among equals, the smallest is first; owners of a journal have different ones, so that they do not all begin with
  /// the same workers.
  let precedence: UInt64
  /// When it got a free credit after it had none; nil: not since it joined.
  var freeSince: Instant?
  var lastHeardAt: Instant
  /// It said that it wants no more tasks.
  var isDraining = false
  /// When it was asked to load another model; nil: it was not.
  var switchAskedAt: Instant?
  var foreignCount: Int
  /// As it has said last.
  var adapters = WorkerAdapters()
  var attempts: OrderedDictionary<AttemptID, Attempt> = [:]
  /// Retryable failures since the last success.
  var faults = 0
  /// Seconds per unit of cost, as measured; nil: never.
  var pace: Double?
  /// For how long tasks have held it.
  var occupancy = PaceWindow()
  var quarantinedUntil: Instant?
  var tasksFinished = 0
  var tasksFailed = 0

  /// - Parameter number: of registrations here, this one included.
  init(_ registration: WorkerRegistration, owner: Int64, number: UInt64, now: Instant) {
    self.precedence = owner == 0 ? number : Self.mix(owner, registration.name)
    self.registration = registration
    self.joinedAt = now
    self.lastHeardAt = now
    self.foreignCount = registration.foreignCount
  }

  /// FNV-1a over both.
  private static func mix(_ owner: Int64, _ name: String) -> UInt64 {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in Array("\(owner) \(name)".utf8) { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    // The last bytes of a name, in which workers differ, must reach the highest bits.
    hash ^= hash >> 32
    return hash &* 0x9e37_79b9_7f4a_7c15
  }

  var freeCredits: Int { max(0, registration.credits - attempts.count - foreignCount) }

  /// It has refused an offer: whatever is free was taken by another gateway, until it reports.
  mutating func haveNoFreeCredits() { foreignCount = max(foreignCount, registration.credits - attempts.count) }

  /// Whether it gets no more tasks.
  var isLeaving: Bool { isDraining || switchAskedAt != nil }

  var isIdle: Bool { attempts.isEmpty && foreignCount == 0 }

  /// Whether it does nothing that it could not leave at once.
  var isAtMostAssisting: Bool { attempts.keys.allSatisfy { $0.assistance > 0 } && foreignCount == 0 }

  func isQuarantined(now: Instant) -> Bool { quarantinedUntil.map { now < $0 } ?? false }

  mutating func measure(cost: Double, seconds: Double) {
    pace = PaceEstimator.average(pace, cost: cost, seconds: seconds)
  }
}

/// An attempt that holds a credit of a worker.
struct Attempt: Hashable, Sendable {
  enum State: Hashable, Sendable {
    /// Sent, not yet accepted.
    case offered
    /// Accepted.
    case running
    /// Its answers do not count any more; it holds the credit until the worker lets go of it.
    case revoked
  }
  var state: State = .offered
  private(set) var offeredAt: Instant
  /// How long the task was ready before it was offered.
  var waited = Duration.zero
  /// Steps that were done when it was offered; nil: it was offered to an earlier session.
  let firstStep: Int?
  /// Start of the step that runs now.
  var stepStartedAt: Instant
  var completedSteps: Int
  /// Steps done in this attempt.
  var ownSteps = 0
  var ownStepSeconds = 0.0
  var slowestStepSeconds = 0.0
  /// Names of workers that have failed to assist it.
  var lostAssistants: Set<String> = []
  var missedReports = 0
  /// When a report missed it, or else when there could have been the first; reports that come all at once count once.
  var missedAt: Instant
  /// Since when it is known as one of no job of this run, which the worker was not asked to stop yet.
  var strayAt: Instant?

  init(offeredAt now: Instant, completedSteps: Int) {
    self.init(offeredAt: now, completedSteps: completedSteps, firstStep: completedSteps)
  }

  private init(offeredAt now: Instant, completedSteps: Int, firstStep: Int?) {
    self.offeredAt = now
    self.firstStep = firstStep
    self.stepStartedAt = now
    self.missedAt = now
    self.completedSteps = completedSteps
  }

  /// Time that must not count has passed.
  mutating func shift(by gap: Duration, until now: Instant) {
    offeredAt = min(now, offeredAt + gap)
    stepStartedAt = min(now, stepStartedAt + gap)
  }

  init(runningSince now: Instant, completedSteps: Int) {
    self.init(offeredAt: now, completedSteps: completedSteps, firstStep: nil)
    self.state = .running
  }

  /// - Parameter isStray: whether its job may be adopted yet.
  init(revokedAt now: Instant, isStray: Bool = false) {
    self.init(offeredAt: now, completedSteps: 0, firstStep: nil)
    self.state = .revoked
    self.strayAt = isStray ? now : nil
  }
}

/// A task that is not done yet. One that waits for others' outputs and was never attempted is not made before they are
/// there: there may be very many.
struct ImageTask: Hashable, Sendable {
  enum State: Hashable, Sendable {
    case blocked
    case ready(notBefore: Instant)
    case running(WorkerID)
  }
  /// The plan of the job that brought it.
  private let jobPlan: ImageJobPlan
  private let index: Int
  let model: ModelIdentity
  var state: State = .blocked
  /// The jobs that need the output; the first one gives the inputs.
  var waiters: OrderedSet<ImageJobID> = []
  /// Number of the last attempt.
  var attemptNumber: UInt32 = 0
  /// Of its next attempts, here.
  var numbers = AttemptNumbers()
  /// The number that the journal has, or is about to have, before it is offered.
  var reservedNumber: UInt32?
  /// Times in a row that a worker had no credit for it.
  var refusals = 0
  /// Since the last new checkpoint.
  var failures: [Status] = []
  /// Names of the workers behind them.
  var failedOn: OrderedSet<String> = []
  /// Of the checkpoint: only workers of this class resume from it.
  var numericsClass: String?
  var checkpoint: Checkpoint?
  /// Whether a checkpoint is on its way to the journal.
  var isCheckpointPending = false
  /// Of the last checkpoint that is durable.
  var journalledSteps = 0

  /// Task number `index` of a job's plan.
  init(_ index: Int, of job: ImageJob) {
    jobPlan = job.plan
    self.index = index
    model = job.submission.model
  }

  var plan: TaskPlan { jobPlan.tasks[index] }
  /// What it is shared by; nil: it never is.
  var key: ContentKey? { ContentKey(plan, of: model) }
}

/// What a task gave.
struct Output: Hashable, Sendable {
  let payload: Payload
  let numericsClass: String
  /// Whether the journal has it, or is about to.
  var isJournalled = false
}

/// A job that is not finished yet.
struct ImageJob: Hashable, Sendable {
  /// Where a job comes from.
  enum Origin: Hashable, Sendable {
    /// It was admitted here.
    case admitted
    /// It is from an earlier run.
    case restored
    /// It is another owner's.
    case adopted
  }

  let submission: ImageJobSubmission
  let origin: Origin
  let admittedAt: Instant
  /// Its place in the order of admission.
  let rank: UInt64
  /// Who does each task of the plan; nil once it is done.
  var tasks: [TaskID?] = []
  /// What those tasks gave, by their places in the plan, while the job still needs it.
  var outputs: [Int: Output] = [:]
  /// Whether the principal task has been offered to a worker.
  var isStarted = false
  /// Whether it counts as interactive.
  var isUrgent: Bool
  /// The position that clients were last notified of.
  var position: Int?

  init(_ submission: ImageJobSubmission, from origin: Origin, rank: UInt64, admittedAt now: Instant) {
    self.rank = rank
    self.origin = origin
    self.submission = submission
    self.admittedAt = now
    self.isUrgent = submission.priority == .interactive
    tasks.reserveCapacity(submission.plan.tasks.count)
  }

  var plan: ImageJobPlan { submission.plan }
  /// Whether all that a task of the plan takes is there.
  func hasInputs(of index: Int) -> Bool { plan.tasks[index].inputs.allSatisfy { outputs[$0] != nil } }
  /// In the order of the plan.
  var heldOutputs: [Output] { plan.tasks.indices.compactMap { outputs[$0] } }
  var ranked: RankedJob { RankedJob(rank: rank, id: submission.id, cost: plan.tasks[plan.principal].cost) }
}
