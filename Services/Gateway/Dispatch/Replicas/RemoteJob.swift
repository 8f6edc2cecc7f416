import ClusterCore
import DequeModule
import GatewayPipelines
import Journal
import OrderedCollections
import Scheduling

/// An open job of another owner that clients of this one follow: its state as far as the owner has sent it, and those
/// who listen.
///
/// Events keep the numbers of their owner, so that a client that reconnects to any gateway misses nothing and gets
/// nothing twice. Each listener gets an image's end once, with any owner of the job.
struct RemoteJob {
  typealias Continuation = AsyncStream<JobEventRecord>.Continuation

  private struct Listener {
    let continuation: Continuation
    /// Images whose end it has.
    var notified: Set<Int> = []

    mutating func yield(_ record: JobEventRecord) {
      guard !record.update.isTerminal || notified.insert(record.index).inserted else { return }
      continuation.yield(record)
    }
  }

  let id: String
  let request: JobRequest
  let submittedAtMs: Int64
  let deadlineAtMs: Int64?
  private(set) var images: [ImageProgress]
  /// The images' ends, as far as they are known.
  private(set) var ends: [Int: JobEventRecord] = [:]
  /// Who is asked; nil: to be looked up.
  var owner: Int64?
  /// When the owner was last asked to send events.
  var askedAt: Instant?
  /// When it last sent something.
  var answeredAt: Instant?
  /// The last event that is known; nil: not even the state is.
  private(set) var position: EventPosition?
  /// Whether the state is what the owner has sent.
  private(set) var isCurrent = false
  private var listeners: OrderedDictionary<UInt64, Listener> = [:]
  private var events: Deque<JobEventRecord> = []

  /// A job that the journal has as open.
  ///
  /// - Parameter ends: of the images that have ended.
  init(_ snapshot: JobSnapshot, ends: [JobEventRecord]) {
    id = snapshot.id
    request = snapshot.request
    (submittedAtMs, deadlineAtMs) = (snapshot.submittedAtMs, snapshot.deadlineAtMs)
    images = snapshot.images
    for end in ends { self.ends[end.index] = end }
  }

  /// A job that this owner has handed over, with those who listen to it.
  init(handedOver job: OpenJob, epoch: Int64) {
    id = job.id
    request = job.request
    (submittedAtMs, deadlineAtMs) = (job.submittedAtMs, job.deadlineAtMs)
    images = job.images
    for record in job.records where record.update.isTerminal { ends[record.index] = record }
    position = EventPosition(epoch: epoch, number: job.lastEvent)
    let notified = Set(images.indices.filter { images[$0].isTerminal })
    for (number, continuation) in job.listeners {
      listeners[number] = Listener(continuation: continuation, notified: notified)
    }
  }

  /// Whether its end ends with the last listener.
  var isAttached: Bool { !request.isDetached }
  var hasListeners: Bool { !listeners.isEmpty }
  var hasEnded: Bool { images.allSatisfy(\.isTerminal) }

  var snapshot: JobSnapshot {
    JobSnapshot(
      id: id, request: request, submittedAtMs: submittedAtMs, deadlineAtMs: deadlineAtMs, endedAtMs: nil, images: images
    )
  }

  // MARK: Listeners

  /// Sends everything from now on to `continuation`, and first what came after the event `last`, if that is known.
  mutating func attach(_ continuation: Continuation, as number: UInt64, after last: String?) {
    var listener = Listener(continuation: continuation)
    defer { listeners[number] = listener }
    let wanted = last.flatMap { EventPosition($0) }
    if !isCurrent, askedAt == nil, listeners.isEmpty, let wanted {
      // The owner may have what follows.
      position = wanted
      return
    }
    if let wanted, wanted == position { return }
    if let last, let index = events.lastIndex(where: { $0.id == last }) {
      for event in events[(index + 1)...] { listener.yield(event) }
      return
    }
    tellState(&listener)
    // Nothing is known of the open images: the owner is asked for all.
    if !isCurrent { (position, askedAt) = (nil, nil) }
  }

  private func tellState(_ listener: inout Listener) {
    for (index, image) in images.enumerated() {
      if let end = ends[index] {
        listener.yield(end)
      } else if isCurrent, let position, let update = image.summary {
        listener.yield(JobEventRecord(id: position.text, index: index, update: update))
      }
    }
  }

  mutating func detach(_ number: UInt64) -> Bool { listeners.removeValue(forKey: number) != nil }

  /// Nothing follows.
  mutating func finishListeners() {
    for listener in listeners.values { listener.continuation.finish() }
    listeners = [:]
  }

  /// Takes the listeners away, to a job of this owner; those who lack an image's end get it.
  mutating func takeListeners(_ ends: [JobEventRecord]) -> [(number: UInt64, continuation: Continuation)] {
    end(ends)
    defer { listeners = [:] }
    return listeners.map { ($0.key, $0.value.continuation) }
  }

  // MARK: What the owner tells

  /// What an event is to this job.
  enum Step { case next, known, gap }

  func step(to at: EventPosition) -> Step {
    guard let position, position.epoch == at.epoch else { return .gap }
    if at.number <= position.number { return .known }
    return at.number == position.number + 1 ? .next : .gap
  }

  /// The next event.
  mutating func apply(_ record: JobEventRecord, at: EventPosition) {
    position = at
    isCurrent = true
    guard images.indices.contains(record.index), !images[record.index].isTerminal else {
      if record.update.isTerminal { tell(record) }
      return
    }
    images[record.index].apply(record.update, atMs: record.atMs)
    if record.update.isTerminal { ends[record.index] = record }
    tell(record)
  }

  private mutating func tell(_ record: JobEventRecord) {
    events.append(record)
    if events.count > OpenJob.maxEvents { events.removeFirst() }
    for number in listeners.keys { listeners[number]?.yield(record) }
  }

  /// The state after an event; what came before is not known.
  ///
  /// - Parameter ends: of images that have ended, as far as they are not known yet.
  mutating func reset(to progress: [RemoteProgress], at: EventPosition, ends: [JobEventRecord]) {
    guard progress.count == images.count else { return }
    (position, isCurrent, events) = (at, true, [])
    for (index, progress) in progress.enumerated() where !images[index].isTerminal && !progress.hasEnded {
      images[index].take(progress)
    }
    end(ends)
    for number in listeners.keys {
      guard var listener = listeners[number] else { continue }
      tellState(&listener)
      listeners[number] = listener
    }
  }

  /// Images that have ended, by the journal.
  mutating func end(_ ends: [JobEventRecord]) {
    for end in ends where images.indices.contains(end.index) {
      if !images[end.index].isTerminal { images[end.index].apply(end.update) }
      if self.ends[end.index] == nil { self.ends[end.index] = end }
      for number in listeners.keys { listeners[number]?.yield(end) }
    }
  }

  /// The owner is gone, or has not answered.
  mutating func loseOwner() { (owner, askedAt, answeredAt) = (nil, nil, nil) }
}
