import DequeModule
import Foundation
import Journal
import OrderedCollections
import Scheduling

/// Where one picture of a job has got to.
struct PictureState: Sendable {
  enum Outcome: Sendable {
    case open
    case finished(promptTokens: Int)
    case failed(Failure)
  }
  /// "queued", or the stage at work.
  var stage = "queued"
  /// Steps done.
  var step = 0
  let steps: Int
  var secondsLeft: Double?
  /// From 1 while it waits; nil afterwards.
  var queuePosition: Int?
  /// Why a stage is tried again.
  var retryReason: String?
  var outcome = Outcome.open

  init(steps: Int) { self.steps = steps }

  mutating func apply(_ update: JobUpdate) {
    retryReason = nil
    switch update {
    case .queued(let position, let secondsLeft):
      queuePosition = position
      self.secondsLeft = secondsLeft
    case .started(let stage):
      self.stage = stage.rawValue
      if stage != .textEncoder { queuePosition = nil }
    case .progressed(let step, _, let secondsLeft):
      self.step = step
      self.secondsLeft = secondsLeft
      queuePosition = nil
    case .retrying(let stage, let reason):
      self.stage = stage.rawValue
      retryReason = reason
    case .finished(let picture):
      step = steps
      end(.finished(promptTokens: picture.promptTokens))
    case .failed(let failure): end(.failed(failure))
    }
  }

  private mutating func end(_ outcome: Outcome) {
    self.outcome = outcome
    (secondsLeft, queuePosition) = (nil, nil)
  }

  /// The update that brings somebody who knows nothing up to date.
  var summary: JobUpdate? {
    switch outcome {
    case .finished: return nil
    case .failed(let failure): return .failed(failure)
    case .open: break
    }
    if let queuePosition { return .queued(position: queuePosition, secondsLeft: secondsLeft) }
    if step > 0 { return .progressed(step: step, steps: steps, secondsLeft: secondsLeft ?? 0) }
    return Stage(rawValue: stage).map { .started($0) }
  }
}

/// A job with pictures that are still to be made, and those who listen to it.
struct OpenJob {
  /// Events that are kept for those who attach again; who has missed more gets the state instead.
  static let maxEvents = 512

  let id: String
  let request: JobRequest
  /// Wall clock, in milliseconds since 1970.
  let submittedAtMs: Int64
  let deadlineAtMs: Int64?
  var pictures: [PictureState]
  /// Whether the journal has it. Until then it does not exist for others.
  var isAdmitted = false
  /// Those who wait for that.
  var admissionWaiters: [CheckedContinuation<Failure?, Never>] = []
  private(set) var listeners: OrderedDictionary<UInt64, AsyncStream<JobEventRecord>.Continuation> = [:]
  private var events: Deque<(number: UInt64, record: JobEventRecord)> = []
  private var lastEvent: UInt64 = 0

  init(id: String, request: JobRequest, submittedAtMs: Int64, deadlineAtMs: Int64?) {
    self.id = id
    self.request = request
    self.submittedAtMs = submittedAtMs
    self.deadlineAtMs = deadlineAtMs
    pictures = request.images.map { PictureState(steps: $0.steps) }
  }

  /// Pictures without an outcome.
  var openCount: Int { pictures.count { if case .open = $0.outcome { true } else { false } } }

  mutating func tell(_ index: Int, _ update: JobUpdate, epoch: Int64) {
    pictures[index].apply(update)
    lastEvent += 1
    let record = JobEventRecord(id: "\(epoch)-\(lastEvent)", index: index, update: update)
    events.append((lastEvent, record))
    if events.count > Self.maxEvents { events.removeFirst() }
    for listener in listeners.values { listener.yield(record) }
  }

  /// Lets `continuation` hear everything from now on, and first what came after the event `last`, if that is known.
  mutating func attach(_ continuation: AsyncStream<JobEventRecord>.Continuation, as listener: UInt64, after last: String?, epoch: Int64) {
    listeners[listener] = continuation
    let number = last.flatMap { $0.hasPrefix("\(epoch)-") ? UInt64($0.dropFirst("\(epoch)-".count)) : nil }
    let first = events.first?.number ?? lastEvent + 1
    if let number, number + 1 >= first, number <= lastEvent {
      for event in events where event.number > number { continuation.yield(event.record) }
      return
    }
    for (index, picture) in pictures.enumerated() {
      if let update = picture.summary {
        continuation.yield(JobEventRecord(id: "\(epoch)-\(lastEvent)", index: index, update: update))
      } else if let end = events.last(where: { $0.record.index == index })?.record {
        continuation.yield(end)
      }
    }
  }

  mutating func detach(_ listener: UInt64) { listeners[listener] = nil }

  /// Nothing follows.
  mutating func finishListeners() {
    for listener in listeners.values { listener.finish() }
    listeners = [:]
  }
}
