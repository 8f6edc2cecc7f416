import Scheduling
import Wire

/// A finished picture.
public struct Picture: Sendable {
  /// The file's bytes.
  public var bytes: FrameBuffer
  /// "image/png"
  public var mediaType: String
  /// Tokens of the encoded prompts, with those of the template that the encoder keeps.
  public var promptTokens: Int
}

/// What happens to a job, in order; `finished` or `failed` is the last.
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
}

/// A job that was admitted.
public struct JobHandle: Sendable {
  /// Its name.
  public let id: JobID
  /// What was asked for.
  public let job: ImageJob
  /// What happens to it; for one consumer. Bounded by the job's steps, retries and place in the queue.
  public let updates: AsyncStream<JobUpdate>
}

extension JobHandle {
  /// The picture, or why there is none.
  public func picture() async throws(Failure) -> Picture {
    for await update in updates {
      switch update {
      case .finished(let picture): return picture
      case .failed(let failure): throw failure
      case .queued, .started, .progressed, .retrying: continue
      }
    }
    throw Failure(.cancelled, "job \(id): nobody waits for it any more")
  }
}
