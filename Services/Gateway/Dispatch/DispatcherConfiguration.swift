import Scheduling

/// How the dispatcher treats workers and jobs.
public struct DispatcherConfiguration: Sendable {
  /// Limits and times of the scheduler.
  public var scheduling = SchedulingConfiguration()
  /// How often workers are to report.
  public var heartbeatInterval = Duration.seconds(5)
  /// How often the scheduler looks at the clock.
  public var tickInterval = Duration.milliseconds(250)
  /// Denoisers send latents back at the end of a step when the last ones are this old: this and one step is what a lost
  /// one costs at most.
  public var checkpointInterval = Duration.milliseconds(100)
  /// A job that takes longer fails.
  public var jobTimeout = Duration.seconds(24 * 3600)
  /// The time in which a backlog shall be gone, which decides how many workers metrics ask for: see ``StageDemand``.
  public var drainTarget = Duration.seconds(300)

  /// Bytes of the decoded images that open jobs begin with; more are refused.
  public var maxInputBytes = 2 << 30
  /// Of them, those of one tenant.
  public var maxTenantInputBytes = 1 << 30

  /// How long the lease on a journal that several gateways share holds, as the journal has it.
  public var journalLease = Duration.seconds(10)

  /// The defaults.
  public init() {}
}
