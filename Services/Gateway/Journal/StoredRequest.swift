import Foundation
import Scheduling
import Wire

/// A request as the journal keeps it: JSON with a version, checked again when it is read.
package struct StoredRequest: Codable, Equatable {
  static let version = 1

  struct Size: Codable, Equatable {
    var width: Int
    var height: Int
  }
  struct Card: Codable, Equatable {
    var modelID: String
    var pipelineClass: String
    var fingerprint: String
    var sizeMultiple: Int
    var minSide: Int
    var maxSide: Int
    var maxPixels: Int
    var recommendedSizes: [Size]
    var maxSteps: Int
    var maxPromptTokens: Int
    var maxPromptBytes: Int
    var defaultSize: Size
    var defaultSteps: Int
    var defaultTrueCFGScale: Double
    var defaultNegativePrompt: String
    var latentChannels: Int
    var latentDownscale: Int
    var latentPatch: Int
  }

  var version = Self.version
  var card: Card
  var prompt: String
  var negativePrompt: String?
  var size: Size
  var steps: Int
  var trueCFGScale: Double
  /// Of the first picture; the others' follow it.
  var seed: UInt64
  var pictureCount: Int
  var priority: String
  var traceparent: String?
  var isDetached: Bool
}

extension StoredRequest {
  init(_ request: JobRequest) {
    let image = request.images[0]
    card = Card(image.card)
    prompt = image.prompt
    negativePrompt = image.negativePrompt
    size = Size(image.size)
    steps = image.steps
    trueCFGScale = image.trueCFGScale
    seed = image.seed
    pictureCount = request.images.count
    priority = request.priority.rawValue
    traceparent = request.traceparent
    isDetached = request.isDetached
  }

  func encoded() throws(Failure) -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys]
    do { return try encoder.encode(self) } catch { throw Failure(.internal, "the request cannot be encoded: \(error)") }
  }

  /// Reads what `encoded` has written.
  ///
  /// - Throws: DATA_LOSS for anything else.
  package static func request(from data: Data, tenant: TenantID) throws(Failure) -> JobRequest {
    let stored: StoredRequest
    do { stored = try JSONDecoder().decode(StoredRequest.self, from: data) } catch {
      throw Failure(.dataLoss, "the request in the journal cannot be read: \(error)")
    }
    try stored.check()
    let image = ImageJob(
      card: stored.card.modelCard, prompt: stored.prompt, negativePrompt: stored.negativePrompt, size: stored.size.imageSize,
      steps: stored.steps, trueCFGScale: stored.trueCFGScale, seed: stored.seed)
    var request = JobRequest(
      (0..<stored.pictureCount).map { index in
        var copy = image
        copy.seed = stored.seed &+ UInt64(index)
        return copy
      })
    request.tenant = tenant
    request.priority = JobPriority(rawValue: stored.priority) ?? .interactive
    request.traceparent = stored.traceparent
    request.isDetached = stored.isDetached
    return request
  }

  /// Whatever arithmetic is done with the numbers must not trap.
  private func check() throws(Failure) {
    func check(_ field: String, _ value: Int, _ range: ClosedRange<Int>) throws(Failure) {
      guard range.contains(value) else {
        throw Failure(.dataLoss, "\(field) in the journal is \(value), but must be from \(range.lowerBound) to \(range.upperBound)")
      }
    }
    try check("version", version, Self.version...Self.version)
    try check("picture_count", pictureCount, 1...Int(ImageRequest.maxImageCount))
    try check("steps", steps, 1...100_000)
    for (name, side) in [("width", size.width), ("height", size.height)] { try check(name, side, 1...65_535) }
    for (name, value) in [
      ("latent_channels", card.latentChannels), ("latent_downscale", card.latentDownscale), ("latent_patch", card.latentPatch),
    ] { try check(name, value, 1...4096) }
    try check("size_multiple", card.sizeMultiple, 1...65_535)
    guard trueCFGScale.isFinite else { throw Failure(.dataLoss, "true_cfg_scale in the journal is \(trueCFGScale)") }
  }
}

extension StoredRequest.Size {
  init(_ size: ImageSize) { self.init(width: size.widthPx, height: size.heightPx) }

  var imageSize: ImageSize { ImageSize(widthPx: width, heightPx: height) }
}

extension StoredRequest.Card {
  init(_ card: ModelCard) {
    self.init(
      modelID: card.modelID, pipelineClass: card.pipelineClass, fingerprint: card.modelFingerprint, sizeMultiple: card.sizeMultiplePx,
      minSide: card.minSidePx, maxSide: card.maxSidePx, maxPixels: card.maxPixels,
      recommendedSizes: card.recommendedSizes.map { .init($0) },
      maxSteps: card.maxSteps, maxPromptTokens: card.maxPromptTokens, maxPromptBytes: card.maxPromptBytes,
      defaultSize: .init(card.defaults.size), defaultSteps: card.defaults.steps, defaultTrueCFGScale: card.defaults.trueCFGScale,
      defaultNegativePrompt: card.defaults.negativePrompt, latentChannels: card.latents.channels, latentDownscale: card.latents.downscale,
      latentPatch: card.latents.patch)
  }

  var modelCard: ModelCard {
    ModelCard(
      modelID: modelID, pipelineClass: pipelineClass, modelFingerprint: fingerprint, sizeMultiplePx: sizeMultiple, minSidePx: minSide,
      maxSidePx: maxSide, maxPixels: maxPixels, recommendedSizes: recommendedSizes.map(\.imageSize), maxSteps: maxSteps,
      maxPromptTokens: maxPromptTokens, maxPromptBytes: maxPromptBytes,
      defaults: GenerationDefaults(
        size: defaultSize.imageSize, steps: defaultSteps, trueCFGScale: defaultTrueCFGScale, negativePrompt: defaultNegativePrompt),
      latents: LatentGeometry(channels: latentChannels, downscale: latentDownscale, patch: latentPatch))
  }
}
