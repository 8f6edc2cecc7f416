import ClusterCore
import Observability
import Wire

// The worker alone knows how many of its credits are free: each gateway sees its own tasks only.

extension Worker {
  /// Tasks that it could take now.
  var freeCredits: Int { phase == .serving ? max(0, configuration.credits - running.count) : 0 }

  /// Free credits have changed by what is done for `link`, whose gateway knows: the others are to learn it at once.
  func creditsChanged(by link: LinkID) {
    for id in links.keys where id != link { links[id]?.owesCredits = true }
  }

  /// Tells the gateways that are to learn of free credits, each of them once in a while; one message says
  /// all that has happened in between.
  func tellCredits() async {
    // One that drains has none, which its gateways know.
    guard phase == .serving else { return }
    let now = time.elapsed
    var isEarly = false
    for id in linkIDs {
      guard let link = links[id], link.owesCredits, let registered = link.registered else { continue }
      if let last = link.creditsSentAt, now - last < Self.creditPause {
        isEarly = true
        continue
      }
      links[id]?.creditsSentAt = now
      await sendHeartbeat(registered, link: id, now)
    }
    guard isEarly, !isTellingCreditsLater else { return }
    isTellingCreditsLater = true
    Task { [time, mailbox] in
      guard (try? await time.sleep(for: Self.creditPause)) != nil else { return }
      mailbox.yield(.tellCredits)
    }
  }

  /// Between two messages about credits to one gateway. Not a length that is slept for elsewhere.
  static let creditPause = Duration.milliseconds(8)

  /// Says what runs for the link's gateway, and how many credits are free for all of them.
  func sendHeartbeat(_ registered: Registered, link id: LinkID, _ now: Duration) async {
    links[id]?.owesCredits = false
    let process = ProcessStatistics.current()
    let tasks = running.values.filter { $0.link == id }.sorted { $0.reference.description < $1.reference.description }
    let heartbeat = Heartbeat(
      sessionID: registered.sessionID, freeCredits: freeCredits, residentBytes: process.residentBytes,
      peakResidentBytes: process.peakResidentBytes, tasksDone: tasksDone, tasksFailed: tasksFailed,
      running: tasks.prefix(WireLimits().maxListElements).map { $0.activity(now) }, draining: phase != .serving)
    await send(Envelope(body: .heartbeat(heartbeat)), link: id)
  }
}
