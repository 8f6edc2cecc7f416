/// What ``until(_:_:)`` waited for when the test was cancelled.
public struct WaitedInVain: Error, CustomStringConvertible {
  /// What did not happen.
  public let condition: String

  /// A sentence.
  public var description: String { "waited in vain until \(condition)" }
}

/// Looks again and again until `condition` holds. How long that may take is the time limit of the test.
///
/// - Throws: ``WaitedInVain`` with `what` when the test is cancelled, which its time limit does.
public func until(_ what: String, _ condition: () async throws -> Bool) async throws {
  while try await !condition() {
    do { try await Task.sleep(for: .milliseconds(2)) } catch { throw WaitedInVain(condition: what) }
  }
}
