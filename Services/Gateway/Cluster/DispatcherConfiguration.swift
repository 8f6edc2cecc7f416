import Scheduling

/// How the dispatcher treats workers and jobs.
public struct DispatcherConfiguration: Sendable {
  /// Limits and times of the scheduler.
  public var scheduling = SchedulingConfiguration()
  /// How often workers are to report.
  public var heartbeatInterval = Duration.seconds(5)
  /// How often the scheduler looks at the clock.
  public var tickInterval = Duration.milliseconds(250)
  /// Denoisers send latents back after every so many steps: what a lost one costs at most.
  public var checkpointIntervalSteps = 1
  /// A job that takes longer fails.
  public var jobTimeout = Duration.seconds(24 * 3600)

  /// The defaults.
  public init() {}
}
