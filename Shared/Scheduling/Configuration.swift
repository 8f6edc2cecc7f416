/// Limits and times that the state machine obeys.
public struct SchedulingConfiguration: Hashable, Sendable {
  /// Jobs that are admitted and not finished, those of the journal's other owners included, so that each owner can
  /// adopt them all; more are refused with RESOURCE_EXHAUSTED.
  public var maxJobs = 256
  /// For tenants that the operator has not named.
  public var defaultTenant = TenantPolicy()
  /// A batch job that has waited this long counts as interactive.
  public var batchPatience = Duration.seconds(900)
  /// Jobs whose prompts may be encoded before a denoiser is free for them: bounds the embeddings held.
  public var encodeAheadJobs = 16
  /// Bytes of shared outputs (encoded prompts) kept for later jobs.
  public var maxCacheBytes = 256 << 20
  /// A worker that sends nothing for this long is lost.
  public var lease = Duration.seconds(20)
  /// An offered task that is not accepted within this is offered again.
  public var acceptLimit = Duration.seconds(30)
  /// A task without steps, or the first step of one with steps, may take this long.
  public var firstStepLimit = Duration.seconds(3600)
  /// A later step may take this long, or `stepSlowdown` times the attempt's slowest step, whichever is longer.
  public var stepLimit = Duration.seconds(120)
  /// See `stepLimit`.
  public var stepSlowdown = 8.0
  /// Attempts in a row without a new checkpoint after which a task's jobs fail.
  public var maxAttempts = 4
  /// Pause before the third attempt; doubles with each further one. The second attempt starts at once.
  public var retryDelay = Duration.milliseconds(500)
  /// The longest pause between attempts.
  public var maxRetryDelay = Duration.seconds(30)
  /// Faults in a row after which a worker gets no tasks for a while.
  public var maxWorkerFaults = 3
  /// How long: doubles with each further fault.
  public var quarantine = Duration.seconds(15)
  /// The longest quarantine.
  public var maxQuarantine = Duration.seconds(600)
  /// Reports in a row that must miss a task before the worker is taken not to run it.
  public var maxMissedReports = 2
  /// An attempt whose steps take this many times as long as those of a free worker of the same numerics class is moved
  /// there; nil: never.
  public var slowWorkerFactor: Double?
  /// Attempts whose steps take as long as this get an idle worker of their class as an assistant, which makes one of
  /// the two predictions of a guided step; nil: never. Below, messages cost more than they gain.
  public var assistedStepDuration: Duration? = .milliseconds(500)
  /// Jobs of a model that no worker has loaded wait this long while the workers that could load it are needed for
  /// another one.
  public var modelPatience = Duration.seconds(600)
  /// A worker that was asked to load a model may take this long until another one is asked.
  public var modelSwitchLimit = Duration.seconds(900)
  /// Entries that the journal has not answered. With more, jobs are refused, and checkpoints and attempts are not
  /// journalled.
  public var maxJournalEntries = 4096
  /// Pause before the end of a job that the journal refused is written again; doubles each time.
  public var journalRetryDelay = Duration.milliseconds(500)
  /// The longest such pause.
  public var maxJournalRetryDelay = Duration.seconds(15)
  /// After a restart or an adoption a task whose attempt may still run waits this long for its worker before it goes to
  /// another one.
  public var adoptionGrace = Duration.seconds(5)
  /// An attempt that a worker runs and that is of no job here is left alone for this long, since its job may be about
  /// to be adopted, here or by another owner of the journal; then the worker is asked to stop it. Zero for a journal of
  /// its own.
  public var strayGrace = Duration.zero
  /// Pause after the fourth refusal in a row of workers without a free credit; doubles with each further one.
  public var refusalDelay = Duration.milliseconds(50)
  /// The longest such pause.
  public var maxRefusalDelay = Duration.seconds(1)
  /// How long a worker that has become free is left to other owners whose jobs come before those of this one.
  public var yieldTime = Duration.milliseconds(250)

  /// The defaults.
  public init() {}
}
