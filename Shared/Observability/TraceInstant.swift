import Foundation
import Tracing

/// A moment on the monotonic clock. Spans between two of them are as long as the time between them was, whatever
/// happens to the wall clock meanwhile.
public struct TraceInstant: TracerInstant {
  /// The moment.
  public let monotonic: ContinuousClock.Instant

  /// A moment of the monotonic clock.
  public init(_ monotonic: ContinuousClock.Instant) { self.monotonic = monotonic }

  /// This moment.
  public static var now: TraceInstant { TraceInstant(.now) }

  /// `duration` ago.
  public static func ago(_ duration: Duration) -> TraceInstant { TraceInstant(.now - duration) }

  /// By the wall clock as it is set now.
  public var nanosecondsSinceEpoch: UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    let now = UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    return now.advanced(by: nanoseconds(from: .now, to: monotonic))
  }

  /// See `Comparable`.
  public static func < (left: TraceInstant, right: TraceInstant) -> Bool { left.monotonic < right.monotonic }
}

/// From one moment to another, negative when that is earlier.
package func nanoseconds(from start: ContinuousClock.Instant, to end: ContinuousClock.Instant) -> Int {
  let (seconds, attoseconds) = (end - start).components
  return Int(seconds) * 1_000_000_000 + Int(attoseconds / 1_000_000_000)
}

extension InstrumentationSystem {
  /// The tracer of this process; nil: spans would go nowhere.
  public static var activeTracer: (any Tracer)? {
    let tracer = tracer
    return tracer is NoOpTracer ? nil : tracer
  }
}
