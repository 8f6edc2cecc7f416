import ClusterCore
import Dispatch
import Foundation
import Journal
import Logging
import Synchronization

/// A dispatcher's way to the other owners of its journal: calls on threads that may block, one for the lease and one
/// for messages, so that neither waits for the other or for the journal's readers.
final class ReplicaLink: Sendable {
  /// Messages that wait to be sent; more are dropped, which their receivers notice.
  static let maxQueue = 20_000

  private struct Outgoing {
    var messages: [(owner: Int64?, data: Data)] = []
    var isSending = false
  }

  let store: any SharedJournalStore
  private let logger: Logger
  private let leases = DispatchQueue(label: "journal-lease", qos: .userInitiated)
  private let sender = DispatchQueue(label: "journal-messages", qos: .userInitiated)
  private let outgoing = Mutex(Outgoing())

  init(_ store: any SharedJournalStore, logger: Logger) {
    self.store = store
    self.logger = logger
  }

  /// Runs `body` on the lease's thread, after what was handed to it before.
  func call<Value: Sendable>(
    _ body: @escaping @Sendable (any SharedJournalStore) throws(JournalError) -> Value
  ) async -> Result<Value, JournalError> {
    await withCheckedContinuation { continuation in
      leases.async { [store] in
        do throws(JournalError) {
          continuation.resume(returning: .success(try body(store)))
        } catch {
          continuation.resume(returning: .failure(error))
        }
      }
    }
  }

  /// Hands a message over to be sent. Never blocks.
  ///
  /// - Parameter owner: nil: all others.
  func send(_ message: ReplicaMessage, to owner: Int64?) {
    guard let data = ReplicaFrame.encoded(message, maxBytes: maxBytes) else {
      logger.error("a message to another gateway is too large", metadata: ["limit": "\(maxBytes)"])
      return
    }
    let starts = outgoing.withLock { state in
      guard state.messages.count < Self.maxQueue else { return false }
      state.messages.append((owner, data))
      defer { state.isSending = true }
      return !state.isSending
    }
    if starts { sender.async { [self] in sendAll() } }
  }

  private var maxBytes: Int { type(of: store).maxMessageBytes }

  /// Sends until nothing waits; messages of one receiver that follow each other travel together.
  private func sendAll() {
    while true {
      let messages = outgoing.withLock { state in
        defer { state.messages = [] }
        state.isSending = !state.messages.isEmpty
        return state.messages
      }
      guard !messages.isEmpty else { return }
      var rest = messages[...]
      while let first = rest.first {
        let same = rest.prefix { $0.owner == first.owner }
        rest = rest.dropFirst(same.count)
        for frame in ReplicaFrame.frames(same.map(\.data), maxBytes: maxBytes) {
          do throws(JournalError) { try store.send(frame, to: first.owner) } catch {
            logger.debug("messages to other gateways are lost", metadata: ["reason": "\(error)"])
          }
        }
      }
    }
  }
}
