import ClusterCore
import GatewayPipelines
import Journal
import Scheduling
import Wire

/// A finished image.
public struct EncodedImage: Sendable {
  /// The file's bytes.
  public var bytes: FrameBuffer
  /// Tokens of the encoded prompts, with those of the template that the encoder keeps.
  public var promptTokens: Int
}

/// What happens to an image of a job, in order; `finished` or `failed` is the last.
public enum ImageUpdate: Sendable {
  /// Waits for its main stage, behind `position - 1` others; how long it may take to the end, and to the beginning.
  case queued(position: Int, secondsLeft: Double?, secondsToStart: Double? = nil)
  /// A stage has begun; `isMain`: the one that the image was queued for.
  case started(StageName, isMain: Bool)
  /// A step is done.
  case progressed(step: Int, steps: Int, secondsLeft: Double)
  /// There is a new preview. Clients that reconnect get the newest one.
  case previewed(NewestPreview)
  /// A stage failed and is retried.
  case retrying(StageName, reason: String)
  /// Done.
  case finished(EncodedImage)
  /// Given up.
  indirect case failed(Status)

  /// Whether nothing follows.
  public var isTerminal: Bool {
    switch self {
    case .finished, .failed: true
    case .queued, .started, .progressed, .previewed, .retrying: false
    }
  }

  /// Whether it only tells the image's place in the queue.
  var isPlace: Bool { if case .queued = self { true } else { false } }
}

/// What happened to one of a job's images.
public struct JobEventRecord: Sendable {
  /// Identifies the event for clients that reconnect; grows.
  public var id: String
  /// Which image.
  public var index: Int
  /// What happened.
  public var update: ImageUpdate
  /// When, in milliseconds since 1970; nil: it is about a job that has ended.
  public var atMs: Int64?
}

/// A job as its owner sees it.
public struct JobSnapshot: Sendable {
  /// Its name.
  public let id: String
  /// What was asked for.
  public let request: JobRequest
  /// Wall clock, in milliseconds since 1970.
  public let submittedAtMs: Int64
  /// When it fails if it is not done, in milliseconds since 1970; nil: never.
  public let deadlineAtMs: Int64?
  /// When its last image ended; nil: it has not ended.
  public let endedAtMs: Int64?
  /// How far each image has got.
  public let images: [ImageProgress]
}

/// A job that was accepted.
public struct JobTicket: Sendable {
  /// Its name.
  public let id: String
  /// What was asked for.
  public let images: [ImageSpec]
  /// Whether this request created it; otherwise an earlier one with the same key did.
  public let isNew: Bool
  /// What happens to it, for one consumer; ends with the last image. Bounded by the job's steps, retries and places in
  /// the queue.
  public let events: AsyncStream<JobEventRecord>
}

extension JobTicket {
  /// All images, in order, or why one of them failed.
  public func results() async throws(Status) -> [EncodedImage] {
    var results: [Int: EncodedImage] = [:]
    for await event in events {
      switch event.update {
      case .finished(let image): results[event.index] = image
      case .failed(let status): throw status
      case .queued, .started, .progressed, .previewed, .retrying: continue
      }
      if results.count == images.count { return images.indices.compactMap { results[$0] } }
    }
    throw Status(.unavailable, "job \(id): the gateway is shutting down; the job resumes after its restart")
  }
}
