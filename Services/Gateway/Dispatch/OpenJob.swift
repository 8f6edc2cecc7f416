import ClusterCore
import DequeModule
import GatewayPipelines
import ImageCodec
import Journal
import OrderedCollections
import Provenance
import Scheduling

/// How far one image of a job has got.
public struct ImageProgress: Sendable {
  /// How the image ended, if it has.
  public enum Outcome: Sendable {
    /// It has not ended.
    case open
    /// Its result is there.
    case finished(promptTokens: Int)
    /// There is none.
    indirect case failed(Status)
  }
  /// The stage at work; nil: it is queued.
  public private(set) var stage: StageName?
  /// Steps done.
  public private(set) var step = 0
  /// Steps in all.
  public let steps: Int
  /// Estimated time to the end.
  public private(set) var secondsLeft: Double?
  /// From 1 while it waits for its main stage; nil afterwards.
  public private(set) var queuePosition: Int?
  /// When its main stage begins, as far as can be said, in milliseconds since 1970; nil when it has begun.
  public private(set) var estimatedStartAtMs: Int64?
  /// When it ends, as far as can be said, in milliseconds since 1970.
  public private(set) var estimatedEndAtMs: Int64?
  /// Why a stage is being retried.
  public private(set) var retryReason: String?
  /// How it ended.
  public private(set) var outcome = Outcome.open

  /// An image that is queued.
  public init(steps: Int) { self.steps = steps }

  /// An image as the journal knows it.
  init(steps: Int, _ stored: StoredOutcome) {
    self.init(steps: steps)
    switch stored {
    case .open: break
    case .finished(_, let promptTokens):
      step = steps
      outcome = .finished(promptTokens: promptTokens)
    case .failed(let status): outcome = .failed(status)
    }
  }

  /// Whether nothing follows.
  public var isTerminal: Bool { if case .open = outcome { false } else { true } }

  /// Takes note of what is to be expected.
  mutating func expect(_ estimate: JobEstimate, atMs: Int64) {
    guard !isTerminal else { return }
    estimatedStartAtMs = estimate.secondsToStart.map { Self.time(atMs, after: $0) }
    estimatedEndAtMs = Self.time(atMs, after: estimate.secondsToEnd)
  }

  private static func time(_ ms: Int64, after seconds: Double) -> Int64 {
    ms + Int64(min(max(seconds, 0), 1e9) * 1000)
  }

  /// Takes note of an update; without its time, in milliseconds since 1970, estimates stay.
  public mutating func apply(_ update: ImageUpdate, atMs: Int64? = nil) {
    retryReason = nil
    switch update {
    case .previewed: break
    case .queued(let position, let secondsLeft, let secondsToStart):
      queuePosition = position
      self.secondsLeft = secondsLeft
      if let atMs {
        estimatedStartAtMs = secondsToStart.map { Self.time(atMs, after: $0) }
        estimatedEndAtMs = secondsLeft.map { Self.time(atMs, after: $0) }
      }
    case .started(let stage, let isMain):
      self.stage = stage
      if isMain { (queuePosition, estimatedStartAtMs) = (nil, nil) }
    case .progressed(let step, _, let secondsLeft):
      self.step = step
      self.secondsLeft = secondsLeft
      (queuePosition, estimatedStartAtMs) = (nil, nil)
      if let atMs { estimatedEndAtMs = Self.time(atMs, after: secondsLeft) }
    case .retrying(let stage, let reason):
      self.stage = stage
      retryReason = reason
    case .finished(let image):
      step = steps
      end(.finished(promptTokens: image.promptTokens))
    case .failed(let status): end(.failed(status))
    }
  }

  /// Takes over what another owner knows of an image that has not ended.
  package mutating func take(_ remote: RemoteProgress) {
    stage = remote.stage.flatMap { StageName($0) }
    step = min(max(remote.step, 0), steps)
    (secondsLeft, queuePosition) = (remote.secondsLeft, remote.queuePosition.map { max($0, 1) })
    (estimatedStartAtMs, estimatedEndAtMs) = (remote.estimatedStartAtMs, remote.estimatedEndAtMs)
    retryReason = remote.retryReason
  }

  private mutating func end(_ outcome: Outcome) {
    self.outcome = outcome
    (secondsLeft, queuePosition) = (nil, nil)
    (estimatedStartAtMs, estimatedEndAtMs) = (nil, nil)
  }

  /// The update that brings a new listener up to date; nil: only the last event can, or none is needed.
  var summary: ImageUpdate? {
    switch outcome {
    case .finished: return nil
    case .failed(let status): return .failed(status)
    case .open: break
    }
    if let queuePosition { return .queued(position: queuePosition, secondsLeft: secondsLeft) }
    if step > 0 { return .progressed(step: step, steps: steps, secondsLeft: secondsLeft ?? 0) }
    return stage.map { .started($0, isMain: true) }
  }
}

/// A job with images that have not ended, and its listeners. A class: a table of many jobs has space for twice as many,
/// and every event changes one.
final class OpenJob {
  /// Events that are kept for clients that reconnect; a client that missed more gets the state instead.
  static let maxEvents = 512

  let id: String
  var request: JobRequest
  /// Wall clock, in milliseconds since 1970.
  let submittedAtMs: Int64
  let deadlineAtMs: Int64?
  var images: [ImageProgress]
  /// The part of the steps that webhooks were last notified of; nil: not even of the beginning.
  var announcedPercent: Int?
  /// Whether the journal has it. Until then it does not exist for clients.
  var isAdmitted = false
  private(set) var listeners: OrderedDictionary<UInt64, AsyncStream<JobEventRecord>.Continuation> = [:]
  /// By image, of those that have shown one.
  private var previews: [Int: NewestPreview] = [:]
  private var events: Deque<(number: UInt64, record: JobEventRecord)> = []
  /// The number of the newest event.
  private(set) var lastEvent: UInt64 = 0
  /// From here on, `events` tell all that matters.
  private var firstEvent: UInt64 = 1

  init(id: String, request: JobRequest, submittedAtMs: Int64, deadlineAtMs: Int64?) {
    self.id = id
    self.request = request
    self.submittedAtMs = submittedAtMs
    self.deadlineAtMs = deadlineAtMs
    images = request.images.map { ImageProgress(steps: $0.stepCount) }
  }

  /// The events that are kept.
  var records: [JobEventRecord] { events.map(\.record) }

  /// Whether everything after an event is kept, without gaps.
  func keepsEvents(after number: UInt64) -> Bool {
    number <= lastEvent && events.count { $0.number > number } == Int(lastEvent - number)
  }

  /// Images that have not ended.
  var openCount: Int { images.count { !$0.isTerminal } }

  /// The job with what is known of its images.
  func snapshot(_ images: [ImageProgress]) -> JobSnapshot {
    JobSnapshot(
      id: id, request: request, submittedAtMs: submittedAtMs, deadlineAtMs: deadlineAtMs, endedAtMs: nil, images: images
    )
  }

  func notify(_ index: Int, _ update: ImageUpdate, epoch: Int64, atMs: Int64) {
    images[index].apply(update, atMs: atMs)
    lastEvent += 1
    let record = JobEventRecord(id: "\(epoch)-\(lastEvent)", index: index, update: update, atMs: atMs)
    keep(record)
    for listener in listeners.values { listener.yield(record) }
    if update.isTerminal { previews[index]?.preview = nil }
  }

  private func keep(_ record: JobEventRecord) {
    // Many places are reported of a job that waits long: who has missed several needs the last one.
    if record.update.isPlace, let index = lastPlace(of: record.index) {
      events.remove(at: index)
    } else if events.count == Self.maxEvents {
      firstEvent = events.removeFirst().number + 1
    }
    events.append((lastEvent, record))
  }

  /// Where an image's last place in the queue stands, if nothing but places follows.
  private func lastPlace(of image: Int) -> Int? {
    var index = events.count - 1
    while index >= 0, events[index].record.update.isPlace {
      if events[index].record.index == image { return index }
      index -= 1
    }
    return nil
  }

  /// What an image looks like; nil: that is not known yet.
  func preview(_ index: Int) -> Preview? { previews[index]?.preview }

  /// Shows listeners what an image looks like after the steps that are done.
  func notify(_ index: Int, preview image: RasterImage, origin: ImageOrigin?, epoch: Int64) {
    let newest = previews[index] ?? NewestPreview()
    previews[index] = newest
    newest.preview = Preview(step: images[index].step, image: image, origin: origin)
    for listener in listeners.values { listener.yield(previewed(newest, index, epoch: epoch)) }
  }

  /// It has the number of the event before: clients that reconnect after it miss nothing.
  private func previewed(_ newest: NewestPreview, _ index: Int, epoch: Int64) -> JobEventRecord {
    JobEventRecord(id: "\(epoch)-\(lastEvent)", index: index, update: .previewed(newest))
  }

  /// Sends everything from now on to `continuation`, and first what came after the event `last`, if that is known.
  func attach(
    _ continuation: AsyncStream<JobEventRecord>.Continuation, as listener: UInt64, after last: String?, epoch: Int64
  ) {
    listeners[listener] = continuation
    defer {
      for index in previews.keys.sorted() {
        guard let newest = previews[index], newest.preview != nil else { continue }
        continuation.yield(previewed(newest, index, epoch: epoch))
      }
    }
    let number = last.flatMap { $0.hasPrefix("\(epoch)-") ? UInt64($0.dropFirst("\(epoch)-".count)) : nil }
    if let number, number + 1 >= firstEvent, number <= lastEvent {
      for event in events where event.number > number { continuation.yield(event.record) }
      return
    }
    for (index, image) in images.enumerated() {
      if let update = image.summary {
        continuation.yield(JobEventRecord(id: "\(epoch)-\(lastEvent)", index: index, update: update))
      } else if let end = events.last(where: { $0.record.index == index })?.record {
        continuation.yield(end)
      }
    }
  }

  func detach(_ listener: UInt64) {
    listeners[listener] = nil
    // Most jobs wait without any: no memory is kept for them.
    if listeners.isEmpty { listeners = [:] }
  }

  /// Nothing follows.
  func finishListeners() {
    for listener in listeners.values { listener.finish() }
    listeners = [:]
  }
}
