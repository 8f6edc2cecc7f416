import ClusterCore
import Foundation
import GatewayPipelines
import Journal

/// One of the events of a job: its owner, and its number among those that this owner has made of the job, from 1.
package struct EventPosition: Hashable, Sendable, Codable {
  package let epoch: Int64
  package let number: UInt64

  package init(epoch: Int64, number: UInt64) {
    (self.epoch, self.number) = (epoch, number)
  }

  /// Reads `EPOCH-NUMBER`; nil: it is something else.
  package init?(_ text: String) {
    let parts = text.split(separator: "-", omittingEmptySubsequences: false)
    guard parts.count == 2, let epoch = Int64(parts[0]), let number = UInt64(parts[1]) else { return nil }
    self.init(epoch: epoch, number: number)
  }

  /// As clients see it.
  package var text: String { "\(epoch)-\(number)" }
}

/// What happened to an image, as owners tell one another; how it ended is in the journal.
package enum RemoteUpdate: Hashable, Sendable, Codable {
  case queued(position: Int, secondsLeft: Double?, secondsToStart: Double?)
  case started(stage: String, isMain: Bool)
  case progressed(step: Int, steps: Int, secondsLeft: Double)
  case retrying(stage: String, reason: String)
  case ended

  /// nil: others do not get it.
  package init?(_ update: ImageUpdate) {
    switch update {
    case .queued(let position, let secondsLeft, let secondsToStart):
      self = .queued(
        position: position, secondsLeft: secondsLeft?.finite, secondsToStart: secondsToStart?.finite)
    case .started(let stage, let isMain): self = .started(stage: stage.text, isMain: isMain)
    case .progressed(let step, let steps, let secondsLeft):
      self = .progressed(step: step, steps: steps, secondsLeft: secondsLeft.finite ?? 0)
    case .retrying(let stage, let reason): self = .retrying(stage: stage.text, reason: String(reason.prefix(500)))
    case .finished, .failed: self = .ended
    case .previewed: return nil
    }
  }

  /// The update; nil: it is the end, or makes no sense.
  package var update: ImageUpdate? {
    let steps = 0...1_000_000
    switch self {
    case .queued(let position, let secondsLeft, let secondsToStart):
      guard (1...1_000_000).contains(position) else { return nil }
      return .queued(position: position, secondsLeft: secondsLeft?.finite, secondsToStart: secondsToStart?.finite)
    case .started(let stage, let isMain): return StageName(stage).map { .started($0, isMain: isMain) }
    case .progressed(let step, let count, let secondsLeft):
      guard steps.contains(step), steps.contains(count), let secondsLeft = secondsLeft.finite else { return nil }
      return .progressed(step: step, steps: count, secondsLeft: secondsLeft)
    case .retrying(let stage, let reason):
      return StageName(stage).map { .retrying($0, reason: String(reason.prefix(500))) }
    case .ended: return nil
    }
  }
}

/// How far an image has got, as owners tell one another; how it ended is in the journal.
package struct RemoteProgress: Hashable, Sendable, Codable {
  package var stage: String?
  package var step: Int
  package var secondsLeft: Double?
  package var queuePosition: Int?
  package var estimatedStartAtMs: Int64?
  package var estimatedEndAtMs: Int64?
  package var retryReason: String?
  package var hasEnded: Bool

  package init(_ image: ImageProgress) {
    stage = image.stage?.text
    step = image.step
    secondsLeft = image.secondsLeft?.finite
    queuePosition = image.queuePosition
    estimatedStartAtMs = image.estimatedStartAtMs
    estimatedEndAtMs = image.estimatedEndAtMs
    retryReason = image.retryReason.map { String($0.prefix(80)) }
    hasEnded = image.isTerminal
  }
}

/// What the owners of a shared journal's jobs tell one another. Messages may be lost: who waits for one asks again.
package enum ReplicaMessage: Hashable, Sendable, Codable {
  /// Send me what happens to the job after this event, from now on and until I have not said so for a while; nil: and
  /// how far it has got.
  case watch(job: String, after: EventPosition?)
  /// Send nothing more of the job.
  case unwatch(job: String)
  /// Something happened to a watched job.
  case event(job: String, at: EventPosition, image: Int, update: RemoteUpdate, atMs: Int64?)
  /// How far a job has got; `request`: the answer to that one, else to ``watch(job:after:)``.
  case state(request: UInt64?, job: String, at: EventPosition, images: [RemoteProgress])
  /// The job is watched, and nothing has happened after the event.
  case unchanged(job: String)
  /// The sender does not own the job.
  case notMine(job: String)
  /// How far have these got? Answered by the owner of each.
  case ask(request: UInt64, jobs: [String])
  /// Cancel a tenant's job, or one image of it.
  case cancel(request: UInt64, job: String, tenant: String, image: Int?, reason: String)
  /// The journal has the end that was asked for.
  case cancelled(request: UInt64)

  /// Jobs of one question.
  package static let maxJobs = 100

  /// Whether everything is within its bounds.
  package var isValid: Bool {
    func isName(_ job: String) -> Bool { (1...100).contains(job.utf8.count) }
    switch self {
    case .watch(let job, _), .unwatch(let job), .unchanged(let job), .notMine(let job): return isName(job)
    case .event(let job, let at, let image, _, _):
      return isName(job) && at.number > 0 && (0..<ImageSpec.maxImageCount).contains(image)
    case .state(_, let job, _, let images):
      return isName(job) && (1...ImageSpec.maxImageCount).contains(images.count)
        && images.allSatisfy { (0...1_000_000).contains($0.step) }
    case .ask(_, let jobs): return jobs.count <= Self.maxJobs && jobs.allSatisfy(isName)
    case .cancel(_, let job, let tenant, let image, let reason):
      return isName(job) && tenant.utf8.count <= 1000 && reason.utf8.count <= 1000
        && image.map { (0..<ImageSpec.maxImageCount).contains($0) } ?? true
    case .cancelled: return true
    }
  }
}

/// Messages on their way: JSON with a version, as many as fit together.
package enum ReplicaFrame {
  /// Of the form; messages that a later program knows in addition are left out by an earlier one.
  package static let version = 1

  private struct Frame: Decodable {
    struct Item: Decodable {
      let message: ReplicaMessage?

      init(from decoder: any Decoder) { message = try? ReplicaMessage(from: decoder) }
    }
    let v: Int
    let m: [Item]
  }

  private static let head = Data(#"{"v":\#(version),"m":["#.utf8)
  private static let tail = Data("]}".utf8)

  /// One message; nil: it has more than `maxBytes` with its frame.
  package static func encoded(_ message: ReplicaMessage, maxBytes: Int) -> Data? {
    guard let data = try? JSONEncoder().encode(message), data.count + head.count + tail.count <= maxBytes else {
      return nil
    }
    return data
  }

  /// Encoded messages, in order, in as few frames as `maxBytes` allows.
  package static func frames(_ messages: [Data], maxBytes: Int) -> [Data] {
    var frames: [Data] = []
    var frame = head
    for message in messages {
      if frame.count > head.count {
        if frame.count + 1 + message.count + tail.count > maxBytes {
          frames.append(frame + tail)
          frame = head
        } else {
          frame.append(UInt8(ascii: ","))
        }
      }
      frame.append(message)
    }
    if frame.count > head.count { frames.append(frame + tail) }
    return frames
  }

  /// What a frame holds; nil: it is none of this version.
  package static func messages(in data: Data) -> [ReplicaMessage]? {
    guard let frame = try? JSONDecoder().decode(Frame.self, from: data), frame.v == version else { return nil }
    return frame.m.compactMap(\.message).filter(\.isValid)
  }
}

extension Double {
  /// nil: infinite or no number, which JSON does not have.
  fileprivate var finite: Double? { isFinite ? self : nil }
}
