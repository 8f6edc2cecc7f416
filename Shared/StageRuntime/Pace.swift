/// Something that is done now and then.
public struct Pace: Sendable {
  private let interval: Duration
  private var last: ContinuousClock.Instant

  /// Due once `interval` has passed since `start`; always, when it is zero.
  public init(every interval: Duration, from start: ContinuousClock.Instant) {
    self.interval = interval
    self.last = start
  }

  /// Whether it is to be done now. If so, the next time is an interval from now.
  public mutating func isDue(at now: ContinuousClock.Instant) -> Bool {
    guard now - last >= interval else { return false }
    last = now
    return true
  }
}
