#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// Clocks and sleep, so that tests decide what time it is.
public protocol TimeSource: Sendable {
  /// Monotonic time since an arbitrary moment before the first call.
  var elapsed: Duration { get }
  /// Wall clock, in milliseconds since 1970.
  var unixMs: Int64 { get }
  /// Returns when `duration` has passed.
  ///
  /// - Throws: `CancellationError`, at once, when the task is cancelled.
  func sleep(for duration: Duration) async throws
}

/// The system's clocks.
public struct SystemTime: TimeSource {
  private static let start = ContinuousClock.now
  private static let sleeping = SleepQueue()

  /// Clocks whose `elapsed` counts from the first use in this process.
  public init() {
    // The first use of a static property is what initialises it.
    _ = Self.start
  }

  /// Time since the process first asked.
  public var elapsed: Duration { ContinuousClock.now - Self.start }
  /// `CLOCK_REALTIME`.
  public var unixMs: Int64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
  }
  /// Sleeps on the continuous clock. A sleep that is cancelled takes no memory any more.
  public func sleep(for duration: Duration) async throws { try await Self.sleeping.sleep(for: duration) }
}
