import Scheduling
import Transport
import Wire

/// Messages on their way to workers, sent one after the other by a task of the dispatcher's.
struct Outbox: Sendable {
  struct Message: Sendable {
    var envelope: Envelope
    /// The session that the message is for; nil: a peer without one.
    var worker: WorkerID?
    var peer: PeerID
  }

  let router: RouterSocket
  /// Unbounded, but never long: offers are bounded by credits, answers by what workers send.
  let messages: AsyncStream<Message>
  private let queue: AsyncStream<Message>.Continuation

  init(_ router: RouterSocket) {
    self.router = router
    (messages, queue) = AsyncStream.makeStream()
  }

  func append(_ envelope: Envelope, worker: WorkerID?, peer: PeerID) {
    queue.yield(Message(envelope: envelope, worker: worker, peer: peer))
  }

  /// No more messages follow.
  func finish() { queue.finish() }
}
