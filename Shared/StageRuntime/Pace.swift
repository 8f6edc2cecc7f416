/// Something that is done now and then. The caller decides what time it is, on whatever clock.
public struct Pace<Moment: InstantProtocol>: Sendable where Moment.Duration == Duration {
  private let interval: Duration
  private var last: Moment

  /// Due once `interval` has passed since `start`; always, when it is zero.
  public init(every interval: Duration, from start: Moment) {
    self.interval = interval
    self.last = start
  }

  /// Whether it is to be done now. If so, the next time is an interval from now.
  public mutating func isDue(at now: Moment) -> Bool {
    guard last.duration(to: now) >= interval else { return false }
    last = now
    return true
  }
}
