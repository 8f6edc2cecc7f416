import ClusterCore
import Transport
import Wire

/// Names one link of a worker's as long as the worker lives.
struct LinkID: Hashable, Comparable, Sendable {
  let number: Int

  static func < (left: LinkID, right: LinkID) -> Bool { left.number < right.number }
}

/// One gateway, as its worker sees it. Times are those of the worker's clock, as elapsed.
struct WorkerLink {
  enum Session: Equatable {
    /// The socket is looking for the gateway.
    case disconnected
    /// The connection stands; registration is next, or again at the given time.
    case unregistered(retryAt: Duration)
    /// Register is sent.
    case registering(since: Duration)
    /// The gateway may send tasks.
    case open(Registered)
    /// The gateway of this name has a session by another link, which has ended the one by this link.
    case redundant(gatewayID: String)
  }

  /// Where the gateway is.
  var endpoint: String
  let socket: DealerSocket
  /// Lets the link's reader take the next event: what is not handled yet holds the gateway up.
  let handled: AsyncStream<Void>.Continuation
  /// Whether one of the configured addresses still leads here. If not, the link is closed when it is of no use.
  var isWanted = true
  var session = Session.disconnected
  /// The first and the last Register of this connection; nil: none is sent. A slow gateway may answer any of them.
  var registrations: ClosedRange<UInt64>?
  /// What the last Register said of the stage's taking part in `Exchange`.
  var saidAssists = false
  /// When the gateway last said something, or was connected to.
  var heardAt: Duration
  /// When the connection was last made anew because nothing was heard, and how many times in a row.
  var renewed: (at: Duration, count: Int)?
  var heartbeatAt = Duration.zero
  /// Whether free credits have changed since the gateway last learnt of them.
  var owesCredits = false
  /// When they were last sent out of turn.
  var creditsSentAt: Duration?
  /// The last lease that it granted.
  var leaseMs = 0
  var refusalLoggedAt: Duration?
  /// Of the list of adapters that its session knows.
  var announcedRevision = ServedAdapters.none.revision

  init(endpoint: String, socket: DealerSocket, handled: AsyncStream<Void>.Continuation, heardAt: Duration) {
    self.endpoint = endpoint
    self.socket = socket
    self.handled = handled
    self.heardAt = heardAt
  }

  /// Whether the connection is to be made anew: without a session, nothing was heard for as long as four registrations
  /// take, then twice as long each time, up to sixteen.
  func needsRenewal(_ now: Duration, retryMs: Int) -> Bool {
    if case .redundant = session { return false }
    let quiet = now - max(heardAt, renewed?.at ?? heardAt)
    return registered == nil && quiet >= .milliseconds(retryMs * (4 << min(renewed?.count ?? 0, 2)))
  }

  var registered: Registered? {
    if case .open(let registered) = session { registered } else { nil }
  }
}

/// A task between its acceptance and its answer.
struct RunningTask {
  let reference: TaskReference
  /// The link that it came by, or that has claimed it.
  var link: LinkID
  /// The request, or the claim.
  var requestMessageID: UInt64
  let context: TaskContext
  let startedAt: Duration
  var trace = TaskTrace.none
  var stepAt: Duration
  var completedSteps = 0
  var steps = 0

  func activity(_ now: Duration) -> TaskActivity {
    TaskActivity(
      task: reference, completedSteps: completedSteps, steps: steps, stepSeconds: max(0, (now - stepAt) / .seconds(1)))
  }
}

/// An answer that could not be sent yet.
struct PendingAnswer {
  var link: LinkID
  var envelope: Envelope
}
