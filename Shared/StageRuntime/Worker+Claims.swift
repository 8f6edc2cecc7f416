import ClusterCore
import Logging
import Wire

// Tasks change hands when a gateway takes over the jobs of another one.

extension Worker {
  /// Gives a gateway the tasks that it claims, whether they run or their answers wait, and names them to it by
  /// registering again. Without the number of a Claim it is the same gateway by another link.
  func yield(_ references: [TaskReference], to id: LinkID, claim messageID: UInt64?) async {
    var moved: [TaskReference] = []
    var earlier: Set<LinkID> = []
    for reference in references {
      if let task = running[reference], task.link != id {
        earlier.insert(task.link)
        running[reference]?.link = id
        if let messageID { running[reference]?.requestMessageID = messageID }
      } else if let answer = pending[reference], answer.link != id {
        earlier.insert(answer.link)
        pending[reference]?.link = id
        if let messageID { pending[reference]?.envelope.inReplyTo = messageID }
      } else {
        continue
      }
      moved.append(reference)
    }
    guard !moved.isEmpty else { return }
    logger.info(
      "tasks are another gateway's now",
      metadata: ["gateway": "\(links[id]?.endpoint ?? "")", "tasks": "\(moved.map(\.description))"])
    // Those that have lost them are to know that the credits are used by others.
    for link in earlier { links[link]?.owesCredits = true }
    await register(link: id)
  }
}
