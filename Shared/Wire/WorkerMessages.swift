import ClusterCore

/// Worker → gateway, first after every connection. Answered by `Registered` or `Failed`.
public struct Register: Sendable, Equatable {
  /// Stable over reconnections of one process, different for every process.
  public var workerID: String
  /// What the worker does.
  public var stage: StageName
  /// The model it serves.
  public var card: ModelCard
  /// Identifies the weights that this stage has loaded.
  public var componentFingerprint: String
  /// Workers of one class give the same bytes for the same task.
  public var numericsClass: String
  /// Tasks that the worker takes at a time.
  public var credits: Int
  /// The machine, for people.
  public var host: String
  /// The process, for people.
  public var pid: UInt64
  /// The worker's version, for people.
  public var softwareVersion: String
  /// What still runs from before a lost connection or a gateway's restart.
  public var running: [TaskReference]
  /// Models that the worker can load in place of its own.
  public var standbyCards: [ModelCard]
  /// Whether the worker takes part in ``Exchange``: as an assistant, and with one.
  public var assists = false
  /// Whether the worker understands `Body.claim`.
  public var takesClaims = false

  /// See the properties.
  public init(
    workerID: String, stage: StageName, card: ModelCard, componentFingerprint: String, numericsClass: String,
    credits: Int,
    host: String, pid: UInt64, softwareVersion: String, running: [TaskReference] = [], standbyCards: [ModelCard] = []
  ) {
    self.workerID = workerID
    self.stage = stage
    self.card = card
    self.componentFingerprint = componentFingerprint
    self.numericsClass = numericsClass
    self.credits = credits
    self.host = host
    self.pid = pid
    self.softwareVersion = softwareVersion
    self.running = running
    self.standbyCards = standbyCards
  }
}

/// Gateway → worker: the session is open.
public struct Registered: Sendable, Equatable {
  /// Names the session; heartbeats carry it.
  public var sessionID: String
  /// Time between heartbeats.
  public var heartbeatIntervalMs: Int
  /// A session without any message for this long is over.
  public var leaseMs: Int
  /// Whether the gateway understands `AdapterAnnouncement`.
  public var takesAdapters: Bool
  /// Names this run of the gateway, which may be reached by several addresses; empty: it does not say.
  public var gatewayID: String

  /// See the properties.
  public init(
    sessionID: String, heartbeatIntervalMs: Int, leaseMs: Int, takesAdapters: Bool = false, gatewayID: String = ""
  ) {
    self.gatewayID = gatewayID
    self.sessionID = sessionID
    self.heartbeatIntervalMs = heartbeatIntervalMs
    self.leaseMs = leaseMs
    self.takesAdapters = takesAdapters
  }
}

/// What a worker does about one task.
public struct TaskActivity: Sendable, Equatable {
  /// The task.
  public var task: TaskReference
  /// Steps done.
  public var completedSteps: Int
  /// Steps in all; 0: the stage has no steps.
  public var steps: Int
  /// Seconds since the last step ended.
  public var stepSeconds: Double

  /// See the properties.
  public init(task: TaskReference, completedSteps: Int, steps: Int, stepSeconds: Double) {
    self.task = task
    self.completedSteps = completedSteps
    self.steps = steps
    self.stepSeconds = stepSeconds
  }
}

/// Worker → gateway, every heartbeat interval. Answered by `HeartbeatReply`, or by `Failed` when the session is
/// unknown.
public struct Heartbeat: Sendable, Equatable {
  /// From `Registered`.
  public var sessionID: String
  /// Tasks that the worker could take now.
  public var freeCredits: Int
  /// Resident memory now.
  public var residentBytes: UInt64
  /// The peak RSS so far.
  public var peakResidentBytes: UInt64
  /// Tasks answered with a response since the process started.
  public var tasksDone: UInt64
  /// Tasks answered with `Failed` since the process started.
  public var tasksFailed: UInt64
  /// What runs now.
  public var running: [TaskActivity]
  /// Whether the worker refuses new tasks.
  public var draining: Bool

  /// See the properties.
  public init(
    sessionID: String, freeCredits: Int, residentBytes: UInt64 = 0, peakResidentBytes: UInt64 = 0,
    tasksDone: UInt64 = 0,
    tasksFailed: UInt64 = 0, running: [TaskActivity] = [], draining: Bool = false
  ) {
    self.sessionID = sessionID
    self.freeCredits = freeCredits
    self.residentBytes = residentBytes
    self.peakResidentBytes = peakResidentBytes
    self.tasksDone = tasksDone
    self.tasksFailed = tasksFailed
    self.running = running
    self.draining = draining
  }
}
