import Synchronization

/// Results for texts that several checks read: without optimisation each takes a second for all files.
final class Cache<Value: Sendable>: Sendable {
  private let values = Mutex<[String: Value]>([:])

  func value(for text: String, _ make: () -> Value) -> Value {
    if let value = values.withLock({ $0[text] }) { return value }
    let value = make()
    values.withLock { $0[text] = value }
    return value
  }
}
