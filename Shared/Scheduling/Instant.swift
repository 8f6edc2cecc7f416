/// A point on the clock of the state machine's caller: monotonic time in the gateway, virtual time in a simulation.
public struct Instant: Comparable, Hashable, Sendable {
  /// Time since that clock's zero.
  public var sinceZero: Duration

  /// The instant `sinceZero` after the clock's zero.
  public init(sinceZero: Duration) {
    self.sinceZero = sinceZero
  }

  /// The clock's zero.
  public static let zero = Instant(sinceZero: .zero)

  /// Whether the left one comes before the right one.
  public static func < (left: Instant, right: Instant) -> Bool { left.sinceZero < right.sinceZero }
  /// The instant that much later.
  public static func + (left: Instant, right: Duration) -> Instant { Instant(sinceZero: left.sinceZero + right) }
  /// The time from the right one to the left one.
  public static func - (left: Instant, right: Instant) -> Duration { left.sinceZero - right.sinceZero }
}

extension Duration {
  /// The duration in seconds, rounded to a `Double`.
  package var seconds: Double {
    Double(components.seconds) + Double(components.attoseconds) * 1e-18
  }
}
