import Scheduling
import Transport
import Wire

/// Messages on their way to workers. The dispatcher's task sends those that have come together at once: the socket has
/// a thread of its own, and each visit there takes longer than a message.
struct Outbox {
  let router: RouterSocket
  /// Tells that there is something to send.
  let signals: AsyncStream<Void>
  private let signal: AsyncStream<Void>.Continuation
  /// In order, each with the session that it is for; nil: a peer without one. Unbounded, but never many: offers are
  /// bounded by credits, answers by what workers send.
  private var waiting: [(message: Outbound, worker: WorkerID?)] = []

  init(_ router: RouterSocket) {
    self.router = router
    (signals, signal) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
  }

  mutating func append(_ envelope: Envelope, worker: WorkerID?, peer: PeerID) {
    waiting.append((Outbound(envelope, to: peer), worker))
    if waiting.count == 1 { signal.yield() }
  }

  /// The messages to send now.
  mutating func take() -> [(message: Outbound, worker: WorkerID?)] {
    defer { waiting = [] }
    return waiting
  }

  /// No more messages follow.
  func finish() { signal.finish() }
}
