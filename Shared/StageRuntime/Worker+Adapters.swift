import ClusterCore
import Wire

extension Worker {
  /// Sends a gateway the list of the stage's adapters, if it does not have it as it is now.
  func announceAdapters(link index: Int) async {
    guard let registered = links[index].registered, registered.takesAdapters else { return }
    let served = stage.servedAdapters
    guard served.revision != links[index].announcedRevision else { return }
    links[index].announcedRevision = served.revision
    for part in AdapterAnnouncement.parts(of: served.adapters, sessionID: registered.sessionID) {
      guard await send(Envelope(body: .servedAdapters(part)), link: index) != nil else {
        links[index].announcedRevision = ServedAdapters.none.revision
        return
      }
    }
  }
}
