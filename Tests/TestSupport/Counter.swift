import Synchronization

/// A number that several threads count up.
public final class Counter: Sendable {
  private let state = Mutex(0)

  /// 0.
  public init() {}

  /// The count by now.
  public var value: Int { state.withLock { $0 } }

  /// Adds one, and returns the new count.
  @discardableResult public func increment() -> Int {
    state.withLock {
      $0 += 1
      return $0
    }
  }
}
