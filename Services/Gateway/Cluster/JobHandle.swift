import Journal
import Scheduling
import Wire

/// A finished picture.
public struct Picture: Sendable {
  /// The file's bytes.
  public var bytes: FrameBuffer
  /// "image/png"
  public var mediaType = "image/png"
  /// Tokens of the encoded prompts, with those of the template that the encoder keeps.
  public var promptTokens: Int
}

/// What happens to a picture of a job, in order; `finished` or `failed` is the last.
public enum JobUpdate: Sendable {
  /// Waits for a denoiser, behind `position - 1` others.
  case queued(position: Int, secondsLeft: Double?)
  /// A stage has begun.
  case started(Stage)
  /// A denoising step is done.
  case progressed(step: Int, steps: Int, secondsLeft: Double)
  /// A stage failed and is tried again.
  case retrying(Stage, reason: String)
  /// Done.
  case finished(Picture)
  /// Given up.
  case failed(Failure)

  /// Whether nothing follows.
  var isTerminal: Bool {
    switch self {
    case .finished, .failed: true
    case .queued, .started, .progressed, .retrying: false
    }
  }
}

/// Pictures that are asked for together.
public struct JobRequest: Sendable {
  /// Whose they are.
  public var tenant = TenantID.anonymous
  /// Equal but for their seeds; never empty.
  public var images: [ImageJob]
  /// How urgent they are.
  public var priority = JobPriority.interactive
  /// Trace context of the request, by W3C.
  public var traceparent: String?
  /// Makes a repeated request the same request.
  public var key: IdempotencyKey?
  /// Whether they are made even when nobody waits for them any more.
  public var isDetached = false

  /// A request for `images`, which are equal but for their seeds.
  public init(_ images: [ImageJob]) {
    precondition(!images.isEmpty, "a request needs a picture")
    self.images = images
  }
}

/// What happened to one of a job's pictures.
public struct JobEventRecord: Sendable {
  /// Names the event for those that attach again; grows.
  public var id: String
  /// Which picture.
  public var index: Int
  /// What happened.
  public var update: JobUpdate
}

/// A job that was accepted.
public struct JobTicket: Sendable {
  /// Its name.
  public let id: String
  /// What was asked for.
  public let images: [ImageJob]
  /// Whether this request has made it; otherwise an earlier one with the same key has.
  public let isNew: Bool
  /// What happens to it, for one consumer; ends with the last picture. Bounded by the job's steps, retries and places in the queue.
  public let events: AsyncStream<JobEventRecord>
}

extension JobTicket {
  /// All pictures, in order, or why one of them could not be made.
  public func pictures() async throws(Failure) -> [Picture] {
    var pictures: [Int: Picture] = [:]
    for await event in events {
      switch event.update {
      case .finished(let picture): pictures[event.index] = picture
      case .failed(let failure): throw failure
      case .queued, .started, .progressed, .retrying: continue
      }
      if pictures.count == images.count { return images.indices.compactMap { pictures[$0] } }
    }
    throw Failure(.unavailable, "job \(id): the gateway is shutting down; the job goes on when it is back")
  }
}
