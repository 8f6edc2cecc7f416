import Foundation
import Scheduling
import Wire

/// The answer to `POST /v1/images/generations`.
struct ImagesResponse: Encodable {
  struct Image: Encodable {
    var b64Json: String
    var seed: UInt64
  }

  var created: Int
  var model: String
  var size: String
  var outputFormat = "png"
  var background = "opaque"
  var quality = "auto"
  var steps: Int
  var trueCfgScale: Double
  var data: [Image]
  var usage: TokenUsage

  init(_ results: [(job: ImageJob, picture: Picture)]) {
    let job = results[0].job
    created = Int(Date().timeIntervalSince1970)
    model = job.card.modelID
    size = "\(job.size)"
    steps = job.steps
    trueCfgScale = job.trueCFGScale
    data = results.map { Image(b64Json: $0.picture.base64, seed: $0.job.seed) }
    usage = TokenUsage(results)
  }
}

/// Counts as OpenAI's API has them: text tokens in, image tokens out.
struct TokenUsage: Encodable {
  struct Details: Encodable {
    var textTokens: Int
    var imageTokens: Int
  }

  var inputTokens: Int
  var inputTokensDetails: Details
  var outputTokens: Int
  var outputTokensDetails: Details
  var totalTokens: Int

  init(_ results: [(job: ImageJob, picture: Picture)]) {
    inputTokens = results.reduce(0) { $0 + $1.picture.promptTokens }
    outputTokens = results.reduce(0) { $0 + $1.job.tokenCount }
    inputTokensDetails = Details(textTokens: inputTokens, imageTokens: 0)
    outputTokensDetails = Details(textTokens: 0, imageTokens: outputTokens)
    totalTokens = inputTokens + outputTokens
  }
}

extension Picture {
  var base64: String { bytes.withUnsafeBytes { Data($0).base64EncodedString() } }
}

/// `image_generation.completed`: OpenAI's event, with the seed and the picture's place in the request.
struct CompletedEvent: Encodable {
  var type = "image_generation.completed"
  var b64Json: String
  var createdAt: Int
  var size: String
  var quality = "auto"
  var background = "opaque"
  var outputFormat = "png"
  var usage: TokenUsage
  var seed: UInt64
  var imageIndex: Int
  var jobId: String

  init(_ handle: JobHandle, index: Int, picture: Picture) {
    b64Json = picture.base64
    createdAt = Int(Date().timeIntervalSince1970)
    size = "\(handle.job.size)"
    usage = TokenUsage([(handle.job, picture)])
    seed = handle.job.seed
    imageIndex = index
    jobId = handle.id.text
  }
}

/// `image_generation.progress`: an event of this server's own.
struct ProgressEvent: Encodable {
  var type = "image_generation.progress"
  /// The picture's place in the request.
  var imageIndex: Int
  var jobId: String
  /// "queued", or the stage at work.
  var stage: String
  /// Steps done.
  var step: Int
  var steps: Int
  var secondsLeft: Double?
  /// From 1 while the job waits; null afterwards.
  var queuePosition: Int?
  /// Why a stage is tried again.
  var retryReason: String?

  init(_ handle: JobHandle, index: Int, stage: String) {
    imageIndex = index
    jobId = handle.id.text
    self.stage = stage
    step = 0
    steps = handle.job.steps
  }

  /// Takes an update in. Returns false for one that ends the job.
  mutating func apply(_ update: JobUpdate) -> Bool {
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
    case .finished, .failed: return false
    }
    return true
  }
}
