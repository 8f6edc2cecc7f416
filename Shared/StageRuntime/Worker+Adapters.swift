import ClusterCore
import Wire

extension Worker {
  /// Sends a gateway the list of the stage's adapters, if it does not have it as it is now.
  func announceAdapters(link id: LinkID) async {
    guard let registered = links[id]?.registered, registered.takesAdapters else { return }
    let served = stage.servedAdapters
    guard served.revision != links[id]?.announcedRevision else { return }
    links[id]?.announcedRevision = served.revision
    for part in AdapterAnnouncement.parts(of: served.adapters, sessionID: registered.sessionID) {
      guard await send(Envelope(body: .servedAdapters(part)), link: id) != nil else {
        links[id]?.announcedRevision = ServedAdapters.none.revision
        return
      }
    }
  }
}
