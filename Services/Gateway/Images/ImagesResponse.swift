import Foundation
import Wire

/// The answer to `POST /v1/images/generations`.
struct ImagesResponse: Encodable {
  /// Has either the image or its address.
  struct Image: Encodable {
    var b64Json: String?
    var url: String?
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

  /// - Parameters:
  ///   - images: what was asked for.
  ///   - pictures: the results, in the same order.
  ///   - createdMs: when they were done, in milliseconds since 1970; nil: now.
  ///   - urls: where the images are, to be sent instead of the images.
  init(_ images: [ImageJob], _ pictures: [Picture], createdMs: Int64? = nil, urls: [String]? = nil) {
    let job = images[0]
    created = createdMs.map { Int($0 / 1000) } ?? Int(Date().timeIntervalSince1970)
    model = job.card.modelID
    size = "\(job.size)"
    steps = job.steps
    trueCfgScale = job.trueCFGScale
    data = images.indices.map { index in
      Image(b64Json: urls == nil ? pictures[index].base64 : nil, url: urls?[index], seed: images[index].seed)
    }
    usage = TokenUsage(Array(zip(images, pictures)))
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

  init(_ results: [(ImageJob, Picture)]) {
    inputTokens = results.reduce(0) { $0 + $1.1.promptTokens }
    outputTokens = results.reduce(0) { $0 + $1.0.tokenCount }
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
  var b64Json: String?
  var url: String?
  var createdAt: Int
  var size: String
  var quality = "auto"
  var background = "opaque"
  var outputFormat = "png"
  var usage: TokenUsage
  var seed: UInt64
  var imageIndex: Int
  var jobId: String

  init(_ ticket: JobTicket, index: Int, picture: Picture, url: String?) {
    let image = ticket.images[index]
    b64Json = url == nil ? picture.base64 : nil
    self.url = url
    createdAt = Int(Date().timeIntervalSince1970)
    size = "\(image.size)"
    usage = TokenUsage([(image, picture)])
    seed = image.seed
    imageIndex = index
    jobId = ticket.id
  }
}

/// `image_generation.progress`: an event of this server's own.
struct ProgressEvent: Encodable {
  var type: String
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

  init(_ type: String, job: String, index: Int, _ picture: PictureState) {
    self.type = type
    imageIndex = index
    jobId = job
    stage = picture.stage
    step = picture.step
    steps = picture.steps
    secondsLeft = picture.secondsLeft
    queuePosition = picture.queuePosition
    retryReason = picture.retryReason
  }
}
