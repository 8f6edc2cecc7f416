import Scheduling
import Wire

/// A picture to be made: a request, checked against the model's card and with its defaults filled in.
public struct ImageJob: Equatable, Sendable {
  /// What the model allows.
  public var card: ModelCard
  /// What to draw.
  public var prompt: String
  /// What not to draw; nil: no true classifier-free guidance.
  public var negativePrompt: String?
  /// Width and height.
  public var size: ImageSize
  /// Denoising steps.
  public var steps: Int
  /// Scale of true classifier-free guidance; acts only with a negative prompt.
  public var trueCFGScale: Double
  /// Seed of the noise.
  public var seed: UInt64

  /// The pictures that `request` asks for: equal but for their seeds, which are consecutive.
  ///
  /// - Parameters:
  ///   - request: as it was sent.
  ///   - card: of the model that it is for.
  ///   - randomSeed: used when the request has no seed; at most 2^53, so that JavaScript clients can read it back.
  public static func jobs(for request: ImageRequest, card: ModelCard, randomSeed: UInt64) throws(APIError) -> [ImageJob] {
    try checkPrompt(request.prompt, "prompt", card)
    let negativePrompt = request.negativePrompt ?? (card.defaults.negativePrompt.isEmpty ? nil : card.defaults.negativePrompt)
    if let negativePrompt { try checkPrompt(negativePrompt, "negative_prompt", card) }
    let trueCFGScale = request.trueCFGScale ?? card.defaults.trueCFGScale
    let steps = request.steps ?? card.defaults.steps
    guard steps <= card.maxSteps else {
      throw APIError(.invalidValue, "\(request.stepsField) is \(steps), but must be from 1 to \(card.maxSteps)", param: request.stepsField)
    }
    let first = ImageJob(
      card: card, prompt: request.prompt,
      // As in the reference: without guidance the negative prompt has no effect, and is not even encoded.
      negativePrompt: trueCFGScale > 1 ? negativePrompt : nil, size: try size(for: request, card), steps: steps,
      trueCFGScale: trueCFGScale, seed: request.seed.map { UInt64($0) } ?? randomSeed)
    return (0..<request.imageCount).map { index in
      var job = first
      job.seed += UInt64(index)
      return job
    }
  }

  private static func checkPrompt(_ prompt: String, _ name: String, _ card: ModelCard) throws(APIError) {
    guard prompt.utf8.count <= card.maxPromptBytes else {
      throw APIError(
        .promptTooLong, "\(name) has \(prompt.utf8.count) bytes, the limit of \(card.modelID) is \(card.maxPromptBytes)", param: name)
    }
  }

  private static func size(for request: ImageRequest, _ card: ModelCard) throws(APIError) -> ImageSize {
    guard let (width, height) = request.size else { return card.defaults.size }
    for (name, side) in [("width", width), ("height", height)] {
      let field = request.hasSizeField ? "size" : name
      guard side.isMultiple(of: card.sizeMultiplePx) else {
        throw APIError(.invalidValue, "\(name) is \(side), but must be a multiple of \(card.sizeMultiplePx)", param: field)
      }
      guard (card.minSidePx...card.maxSidePx).contains(Int(side)) else {
        throw APIError(.invalidValue, "\(name) is \(side), but must be from \(card.minSidePx) to \(card.maxSidePx)", param: field)
      }
    }
    guard width * height <= card.maxPixels else {
      throw APIError(
        .invalidValue, "size is \(width)x\(height), which is \(width * height) pixels; the limit of \(card.modelID) is \(card.maxPixels)",
        param: "size")
    }
    return ImageSize(widthPx: Int(width), heightPx: Int(height))
  }
}

extension ImageJob {
  /// The weights that are meant.
  var model: ModelIdentity { ModelIdentity(id: card.modelID, fingerprint: card.modelFingerprint) }

  /// Image tokens: what a step costs.
  var tokenCount: Int { card.latents.packedShape(of: size)[0] }

  /// What is to be done, stage by stage.
  var plan: JobPlan { .textToImage(prompt: prompt, negativePrompt: negativePrompt, stepCount: steps, tokenCount: tokenCount) }
}
