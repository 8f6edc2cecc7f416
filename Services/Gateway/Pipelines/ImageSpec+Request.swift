import ClusterCore
import GatewayAPI

extension ImageSpec {
  /// The images that `request` asks for: equal but for their seeds, which are consecutive.
  ///
  /// - Parameters:
  ///   - request: as it was sent.
  ///   - card: of the model that it is for.
  ///   - randomSeed: used when the request has no seed; at most 2^53, so that JavaScript clients can read it back.
  public static func images(
    of request: GenerationRequest, card: ModelCard, randomSeed: UInt64
  ) throws(APIError) -> [ImageSpec] {
    guard card.pipelines.contains(request.pipeline) else {
      let list = card.pipelines.map { "\"\($0)\"" }.joined(separator: ", ")
      throw APIError(
        .invalidValue, "pipeline is \"\(request.pipeline)\", but \(card.model.id) serves \(list)", param: "pipeline")
    }
    try checkPrompt(request.prompt, "prompt", card)
    let negativePrompt =
      request.negativePrompt ?? (card.defaults.negativePrompt.isEmpty ? nil : card.defaults.negativePrompt)
    if let negativePrompt { try checkPrompt(negativePrompt, "negative_prompt", card) }
    let trueCFGScale = request.trueCFGScale ?? card.defaults.trueCFGScale
    let steps = request.steps ?? card.defaults.steps
    guard steps <= card.limits.maxSteps else {
      throw APIError(
        .invalidValue, "\(request.stepsField) is \(steps), but must be from 1 to \(card.limits.maxSteps)",
        param: request.stepsField)
    }
    let first = ImageSpec(
      card: card, pipeline: request.pipeline, prompt: request.prompt,
      // As in the reference: without guidance the negative prompt has no effect, and is not even encoded.
      negativePrompt: trueCFGScale > 1 ? negativePrompt : nil, size: try size(for: request, card), steps: steps,
      trueCFGScale: trueCFGScale, seed: request.seed.map { UInt64($0) } ?? randomSeed, options: request.options)
    return (0..<request.imageCount).map { index in
      var image = first
      image.seed += UInt64(index)
      return image
    }
  }

  private static func checkPrompt(_ prompt: String, _ name: String, _ card: ModelCard) throws(APIError) {
    guard prompt.utf8.count <= card.limits.maxPromptBytes else {
      throw APIError(
        .promptTooLong,
        "\(name) has \(prompt.utf8.count) bytes, the limit of \(card.model.id) is \(card.limits.maxPromptBytes)",
        param: name)
    }
  }

  private static func size(for request: GenerationRequest, _ card: ModelCard) throws(APIError) -> ImageSize {
    guard let (width, height) = request.size else { return card.defaults.size }
    let limits = card.limits
    for (name, side) in [("width", width), ("height", height)] {
      let field = request.hasSizeField ? "size" : name
      guard side.isMultiple(of: limits.sizeMultiplePx) else {
        throw APIError(
          .invalidValue, "\(name) is \(side), but must be a multiple of \(limits.sizeMultiplePx)", param: field)
      }
      guard (limits.minSidePx...limits.maxSidePx).contains(side) else {
        throw APIError(
          .invalidValue, "\(name) is \(side), but must be from \(limits.minSidePx) to \(limits.maxSidePx)", param: field
        )
      }
    }
    let size = ImageSize(widthPx: width, heightPx: height)
    guard size.pixelCount <= limits.maxPixels else {
      throw APIError(
        .invalidValue,
        "size is \(size), which is \(size.pixelCount) pixels; the limit of \(card.model.id) is \(limits.maxPixels)",
        param: "size")
    }
    return size
  }
}
