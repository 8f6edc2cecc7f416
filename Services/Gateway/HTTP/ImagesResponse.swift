import ClusterCore
import Foundation
import GatewayAPI
import GatewayDispatch
import GatewayPipelines
import ImageCodec
import Wire

/// The answer to `POST /v1/images/generations`.
struct ImagesResponse: Encodable {
  /// Has either the image or its address.
  struct Image: Encodable {
    var b64Json: String?
    var url: String?
    /// What the image was made of, where that is not the client's prompt.
    var revisedPrompt: String?
    var seed: UInt64
    /// From 0, the bottom one, where the result has layers.
    var layer: Int?
  }

  var created: Int
  var model: String
  var size: String
  var outputFormat: String
  var background = "opaque"
  var quality = "auto"
  var steps: Int
  var trueCfgScale: Double
  var data: [Image]
  var usage: TokenUsage

  /// - Parameters:
  ///   - images: what was asked for.
  ///   - results: the images, in the same order.
  ///   - createdMs: when they were done, in milliseconds since 1970; nil: now.
  ///   - urls: where the images are, to be sent instead of the images.
  /// - Throws: DATA_LOSS for layers that are not all there.
  init(
    _ images: [ImageSpec], _ results: [EncodedImage], createdMs: Int64? = nil, urls: [String]? = nil
  ) throws(APIError) {
    let job = images[0]
    created = createdMs.map { Int($0 / 1000) } ?? Int(Date().timeIntervalSince1970)
    model = job.card.model.id
    size = "\(job.size)"
    steps = job.steps
    trueCfgScale = job.trueCFGScale
    outputFormat = job.encoding.format.name
    if job.isTransparent { background = "transparent" }
    data = []
    for (index, image) in images.enumerated() {
      for (layer, address) in image.files(at: urls?[index]) {
        let file = urls == nil ? try results[index].file(layer ?? 0, of: image.fileCount) : nil
        data.append(
          Image(
            b64Json: file?.base64, url: address, revisedPrompt: image.revisedPrompt, seed: image.seed, layer: layer))
      }
    }
    usage = TokenUsage(Array(zip(images, results)))
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

  init(_ results: [(ImageSpec, EncodedImage)]) {
    inputTokens = results.reduce(0) { $0 + $1.1.promptTokens }
    outputTokens = results.reduce(0) { $0 + $1.0.tokenCount }
    inputTokensDetails = Details(textTokens: inputTokens, imageTokens: 0)
    outputTokensDetails = Details(textTokens: 0, imageTokens: outputTokens)
    totalTokens = inputTokens + outputTokens
  }
}

extension ImageSpec {
  /// The layers of the result and their addresses, from the bottom up; of one image without layers itself.
  func files(at url: String?) -> [(layer: Int?, url: String?)] {
    guard layers > 0 else { return [(nil, url)] }
    return (0..<layers).map { layer in (layer, url.map { "\($0)&layer=\(layer)" }) }
  }
}

extension EncodedImage {
  /// The file of layer `index`, from the bottom up, of an image with `count` files.
  ///
  /// - Throws: DATA_LOSS when there are not so many.
  func file(_ index: Int, of count: Int) throws(APIError) -> EncodedImage {
    guard count > 1 else { return self }
    var file = self
    let fileCount = bytes.withUnsafeBytes { bytes in
      let files = PNG.files(in: bytes)
      if files.count == count {
        file.bytes = FrameBuffer(copying: UnsafeRawBufferPointer(rebasing: bytes[files[index]]))
      }
      return files.count
    }
    guard fileCount == count else {
      throw APIError(Status(.dataLoss, "the result has \(fileCount) files, not \(count)"))
    }
    return file
  }

  var base64: String { bytes.withUnsafeBytes { Data($0).base64EncodedString() } }
}

/// `image_generation.completed` or `image_edit.completed`: OpenAI's event, with the seed and the image's place in the
/// request.
struct CompletedEvent: Encodable {
  var type: String
  var b64Json: String?
  var url: String?
  var createdAt: Int
  var size: String
  var quality = "auto"
  var background = "opaque"
  var outputFormat: String
  var usage: TokenUsage
  /// What the image was made of, where that is not the client's prompt.
  var revisedPrompt: String?
  var seed: UInt64
  var imageIndex: Int
  /// From 0, the bottom one, where the result has layers: each has an event.
  var layer: Int?
  var jobId: String

  init(
    _ type: String, _ ticket: JobTicket, index: Int, layer: Int?, result: EncodedImage, url: String?
  ) throws(APIError) {
    self.type = type
    let image = ticket.images[index]
    b64Json = url == nil ? try result.file(layer ?? 0, of: image.fileCount).base64 : nil
    self.url = url
    self.layer = layer
    outputFormat = image.encoding.format.name
    if image.isTransparent { background = "transparent" }
    createdAt = Int(Date().timeIntervalSince1970)
    size = "\(image.size)"
    usage = TokenUsage([(image, result)])
    revisedPrompt = image.revisedPrompt
    seed = image.seed
    imageIndex = index
    jobId = ticket.id
  }
}

/// `image_generation.partial_image` or `image_edit.partial_image`: OpenAI's event, with the image's place in the
/// request and the steps that are done.
struct PartialImageEvent: Encodable {
  var type: String
  /// A file of `outputFormat`, smaller than the image will be.
  var b64Json: String
  /// From 0, of each image.
  var partialImageIndex: Int
  var createdAt: Int
  /// The size of the image that is made.
  var size: String
  var quality = "auto"
  var background = "opaque"
  var outputFormat: String
  var imageIndex: Int
  var step: Int
  var jobId: String

  init(_ type: String, _ ticket: JobTicket, index: Int, number: Int, _ preview: Preview) async throws {
    let image = ticket.images[index]
    self.type = type
    b64Json = Data(try await preview.file(as: image.encoding, of: image.size)).base64EncodedString()
    partialImageIndex = number
    createdAt = Int(Date().timeIntervalSince1970)
    size = "\(image.size)"
    if image.isTransparent { background = "transparent" }
    outputFormat = image.encoding.format.name
    imageIndex = index
    step = preview.step
    jobId = ticket.id
  }
}

/// `image_generation.progress` or `image_edit.progress`: an event of this server's own.
struct ProgressEvent: Encodable {
  var type: String
  /// The image's place in the request.
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
  /// Why a stage is being retried.
  var retryReason: String?

  init(_ type: String, job: String, index: Int, _ progress: ImageProgress) {
    self.type = type
    imageIndex = index
    jobId = job
    stage = progress.stage?.text ?? "queued"
    step = progress.step
    steps = progress.steps
    secondsLeft = progress.secondsLeft
    queuePosition = progress.queuePosition
    retryReason = progress.retryReason
  }
}
