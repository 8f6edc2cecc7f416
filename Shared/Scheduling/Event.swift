import ClusterCore

/// A worker as it registers.
public struct WorkerRegistration: Hashable, Sendable {
  /// This session of the worker.
  public var id: WorkerID
  /// The same for every session of one process, different for every process.
  public var name: String
  /// The tasks it takes.
  public var stage: StageName
  /// What it has loaded.
  public var model: ModelIdentity
  /// What it can take part in. Workers of one model differ in it only while a cluster is upgraded.
  public var pipelines: [PipelineName]
  /// The models that it can load in place of its own, and what it could take part in then.
  public var standby: [ModelIdentity: [PipelineName]]
  /// Workers of one class give the same bytes for the same task.
  public var numericsClass: String
  /// Tasks that it takes at a time.
  public var credits: Int
  /// Whether it takes part when two workers make the predictions of guided steps together.
  public var assists: Bool
  /// Attempts that still run from an earlier session.
  public var running: [AttemptID]
  /// Credits in use for something else.
  public var foreignCount: Int
  /// Whether it registers again on the connection of its earlier session, on which nothing is lost.
  public var keepsConnection: Bool

  /// A worker that registers.
  public init(
    id: WorkerID, name: String, stage: StageName, model: ModelIdentity, pipelines: [PipelineName] = [.textToImage],
    standby: [ModelIdentity: [PipelineName]] = [:], numericsClass: String, credits: Int, assists: Bool = false,
    running: [AttemptID] = [], foreignCount: Int = 0, keepsConnection: Bool = false
  ) {
    self.id = id
    self.name = name
    self.stage = stage
    self.model = model
    self.pipelines = pipelines
    self.standby = standby
    self.numericsClass = numericsClass
    self.credits = credits
    self.assists = assists
    self.running = running
    self.foreignCount = foreignCount
    self.keepsConnection = keepsConnection
  }

  /// What it takes part in of a model that it has loaded or can load.
  func pipelines(of model: ModelIdentity) -> [PipelineName] {
    model == self.model ? pipelines : standby[model] ?? []
  }

  /// Whether it is a worker for the task.
  func serves(_ task: ImageTask, ofAnyModel: Bool = false) -> Bool {
    stage == task.plan.stage && (model == task.model || ofAnyModel)
      && task.plan.pipeline.map { pipelines.contains($0) } ?? true
  }
}

/// What a worker says about itself at every heartbeat.
public struct WorkerReport: Hashable, Sendable {
  /// Attempts that run.
  public var running: [AttemptID]
  /// Credits in use for something else: tasks of other gateways, or of an earlier run of this one.
  public var foreignCount: Int
  /// The worker wants no more tasks.
  public var isDraining: Bool

  /// A report.
  public init(running: [AttemptID], foreignCount: Int = 0, isDraining: Bool = false) {
    self.running = running
    self.foreignCount = foreignCount
    self.isDraining = isDraining
  }
}

/// A finished step of a task, with what is needed to resume from there if the step is a checkpoint.
public struct StepReport: Hashable, Sendable {
  /// Steps done since the task began, over all attempts.
  public var completedSteps: Int
  /// How long the last one took.
  public var stepSeconds: Double
  /// What an attempt resumes from; nil when the step is no checkpoint.
  public var checkpoint: Payload?
  /// Steps that need not be done again by one that resumes from it, at most ``completedSteps``.
  public var checkpointSteps: Int

  /// A report of step number `completedSteps`.
  ///
  /// - Parameter checkpointSteps: nil: as many.
  public init(completedSteps: Int, stepSeconds: Double, checkpoint: Payload? = nil, checkpointSteps: Int? = nil) {
    self.checkpointSteps = checkpointSteps ?? completedSteps
    self.completedSteps = completedSteps
    self.stepSeconds = stepSeconds
    self.checkpoint = checkpoint
  }
}

/// What happens to the cluster. Payloads in an event belong to the state machine from then on, until an effect gives
/// them back.
public enum Event: Hashable, Sendable {
  /// A worker asks to join.
  case workerRegistered(WorkerRegistration)
  /// A worker's heartbeat.
  case workerReported(WorkerID, WorkerReport)
  /// A worker has said which adapters it has now.
  case workerAdaptersChanged(WorkerID, WorkerAdapters)
  /// A worker wants no more tasks.
  case workerDraining(WorkerID)
  /// A worker said goodbye, or cannot be reached.
  case workerLeft(WorkerID, reason: String)

  /// Jobs that are admitted together or not at all. The answer, `admitted` or `rejected`, may wait for the journal.
  case imagesSubmitted([ImageJobSubmission])
  /// The job was cancelled. It fails with `reason`.
  case imageCancelled(ImageJobID, reason: Status)

  /// A worker has taken the task.
  case taskAccepted(AttemptID, by: WorkerID)
  /// A step is done.
  case taskProgressed(AttemptID, by: WorkerID, StepReport)
  /// The task is done.
  case taskFinished(AttemptID, by: WorkerID, output: Payload)
  /// The attempt ended without an output, whatever the reason; also when the offer could not be sent.
  case taskFailed(AttemptID, by: WorkerID, Status)

  /// Every entry up to this one is durable, except those that were refused.
  case journalled(through: JournalSequence)
  /// The entry could not be written and has left no trace; comes before a `journalled` that would cover it. A job whose
  /// admission is refused is rejected with the failure.
  case journalRefused(JournalSequence, Status)
  /// What the journal knows of unfinished jobs, in the order in which they were admitted. Only as the first event.
  case restored([RestoredImageJob])
  /// Jobs of an owner of the journal that has ended, which belong to this one now, in the order in which they were
  /// admitted; they come after those that are here. Attempts that may still run are claimed, see
  /// ``Effect/claim(_:at:)``: a worker that runs one registers again and names it.
  case adopted([RestoredImageJob])
  /// What the other owners of the journal whose leases hold said of themselves last, by their epochs, instead of what
  /// was known of them.
  case othersChanged([Int64: OwnerLoad])
  /// The jobs are no longer this one's: the lease was given back, or another owner has ended it. Everything that is
  /// known of them is dropped, without an entry of the journal; no job is accepted any more.
  case disowned(Status)
  /// The tenants that the operator has named, instead of those named before. Others are treated as `defaultTenant`
  /// says.
  case tenantsChanged([Tenant])

  /// Time has passed.
  case tick
}

/// Where an attempt starts when an earlier one got somewhere.
public struct Checkpoint: Hashable, Sendable {
  /// Steps that need not be done again.
  public var completedSteps: Int
  /// The latents after them.
  public var latents: Payload

  /// The state after `completedSteps`.
  public init(completedSteps: Int, latents: Payload) {
    self.completedSteps = completedSteps
    self.latents = latents
  }
}

/// A task that is to be sent to a worker, or with ``AttemptID/assistance`` the second predictions of an attempt that
/// runs at another one.
public struct Offer: Hashable, Sendable {
  /// Names the attempt on the wire.
  public var attempt: AttemptID
  /// A job that waits for the output: not the one that the attempt is named after, when that one has been cancelled.
  public var job: ImageJobID
  /// The task's place in that job's plan.
  public var index: Int
  /// The outputs of the tasks that the plan names as inputs, in the plan's order.
  public var inputs: [Payload]
  /// Where to resume; nil: from the beginning.
  public var resume: Checkpoint?
  /// When the job fails if it is not done.
  public var deadline: Instant?

  /// An offer of `attempt`.
  public init(
    attempt: AttemptID, job: ImageJobID, index: Int, inputs: [Payload], resume: Checkpoint?, deadline: Instant?
  ) {
    self.attempt = attempt
    self.job = job
    self.index = index
    self.inputs = inputs
    self.resume = resume
    self.deadline = deadline
  }
}

/// What the clients that wait for a job are notified of.
public enum ImageJobEvent: Hashable, Sendable {
  /// The job's place in the queue, from 1, how long it may take to the job's end, and to the beginning of its work.
  case queued(position: Int, secondsLeft: Double?, secondsToStart: Double? = nil)
  /// A worker of the stage got the job's task; `isMain`: the one that the job was queued for. `attempt` grows from 1.
  case started(StageName, isMain: Bool, attempt: UInt32)
  /// A step is done.
  case progressed(completedSteps: Int, stepCount: Int, secondsLeft: Double)
  /// An attempt failed; another will be made.
  case retrying(StageName, Status)
  /// The job has ended, but the journal has no space to record it: clients are notified of the end when there is. The
  /// job cannot be cancelled any more.
  case held(Status)
  /// The job is done; the output is there until its release, which follows. No other event does.
  case finished(output: Payload)
  /// The job has failed. No other event follows.
  case failed(Status)

  /// Whether nothing follows.
  public var isTerminal: Bool {
    switch self {
    case .finished, .failed: true
    case .queued, .started, .progressed, .retrying, .held: false
    }
  }
}

/// What happened to a worker.
public enum WorkerEvent: Hashable, Sendable {
  /// The session is open.
  case joined
  /// The session is over: nothing that comes from it counts any more.
  case gone(reason: String)
  /// The worker gets no tasks until then.
  case quarantined(until: Instant, reason: String)
}

/// What is to be done, in this order.
public enum Effect: Hashable, Sendable {
  /// Send the task to the worker.
  case offer(Offer, to: WorkerID)
  /// Ask the worker to stop the attempt; it answers with `taskFailed`.
  case cancel(AttemptID, at: WorkerID, reason: String)
  /// The attempt has no assistant any more: its worker continues alone.
  case assistantLost(AttemptID, at: WorkerID, reason: String)
  /// Ask the worker to load this one of its standby models; it leaves, and registers again with it.
  case switchModel(WorkerID, to: ModelIdentity)
  /// Write the entry to the journal, after those before it, and answer with `journalled` or `journalRefused`.
  case journal(JournalSequence, JournalEntry)
  /// The job is on disk: acknowledge it to the client that submitted it.
  case admitted(ImageJobID)
  /// Notify the clients that wait for the job.
  case image(ImageJobID, ImageJobEvent)
  /// The submission was refused; the job does not exist.
  case rejected(ImageJobID, Status)
  /// The job, admitted or about to be, is no longer this owner's: no further event is about it. Whether it exists, and
  /// what becomes of it, the journal knows.
  case disowned(ImageJobID)
  /// Ask the worker, in a Claim, whether it runs one of these attempts that another gateway has offered, or holds its
  /// answer: then it registers again on this connection, and names them. At most ``Scheduler/maxClaims``.
  case claim([AttemptID], at: WorkerID)
  /// Report what happened to a worker.
  case worker(WorkerID, WorkerEvent)
  /// The payload is not needed any more.
  case release(Payload)
}
