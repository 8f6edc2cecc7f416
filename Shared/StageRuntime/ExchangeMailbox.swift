import Foundation
import Wire

/// What came for a running task from another worker: of each kind the last message, so that it is bounded.
final class ExchangeMailbox: @unchecked Sendable {
  // @unchecked Sendable: `messages` is touched with `condition` locked only.
  private let condition = NSCondition()
  private var messages: [Exchange.Kind: (message: Exchange, tensors: [WireTensor])] = [:]

  func put(_ message: Exchange, _ tensors: [WireTensor]) {
    condition.withLock {
      // What an earlier assistant has said is over; and a new one may come at once.
      if message.kind == .lost { (messages[.ready], messages[.velocity]) = (nil, nil) }
      if message.kind == .ready { messages[.lost] = nil }
      messages[message.kind] = (message, tensors)
      condition.broadcast()
    }
  }

  func wake() { condition.withLock { condition.broadcast() } }

  /// Takes the message of a kind out; waits for it until `limit`, the loss of the other worker or `isOver`.
  func take(
    _ kind: Exchange.Kind, until limit: Date, unless isOver: () -> Bool
  ) -> (message: Exchange, tensors: [WireTensor])? {
    condition.withLock {
      while true {
        if let message = messages.removeValue(forKey: kind) { return message }
        guard messages[.lost] == nil, !isOver(), condition.wait(until: limit) else { return nil }
      }
    }
  }
}
