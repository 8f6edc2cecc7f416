/// Counts who needs a payload.
struct PayloadLedger: Hashable, Sendable {
  private(set) var counts: [Payload: Int] = [:]

  mutating func retain(_ payload: Payload) {
    counts[payload, default: 0] += 1
  }

  /// Gives one claim up. Returns whether it was the last.
  mutating func release(_ payload: Payload) -> Bool {
    guard let count = counts[payload] else {
      preconditionFailure("payload \(payload.id) is released more often than retained")
    }
    counts[payload] = count == 1 ? nil : count - 1
    return count == 1
  }
}
