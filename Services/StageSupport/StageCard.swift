import ClusterCore
import QwenImage
import Wire

extension ModelCard {
  /// What the gateway must know of a checkpoint.
  public init(_ model: ModelDirectory, _ profile: ModelProfile) {
    let limits = profile.limits
    self.init(
      model: ModelIdentity(id: profile.id, fingerprint: model.fingerprint), pipelineClass: model.modelIndex.className,
      pipelines: [.textToImage],
      limits: ClusterCore.ModelLimits(
        sizeMultiplePx: QwenImage.ModelLimits.sizeMultiple, minSidePx: limits.minSide, maxSidePx: limits.maxSide,
        maxPixels: limits.maxPixels, maxSteps: limits.maxSteps, maxPromptTokens: limits.maxPromptTokens,
        maxPromptBytes: limits.maxPromptBytes),
      defaults: GenerationDefaults(
        size: ImageSize(widthPx: profile.defaultSize.width, heightPx: profile.defaultSize.height),
        steps: profile.defaultSteps,
        trueCFGScale: profile.defaultTrueCFGScale, negativePrompt: profile.defaultNegativePrompt),
      recommendedSizes: profile.recommendedSizes.map { ImageSize(widthPx: $0.width, heightPx: $0.height) },
      latents: LatentGeometry(channels: model.vae.zDim, downscale: VAEDecoder.spatialScale, patch: LatentPacking.patch))
  }
}

extension Status {
  /// A model's error as the gateway understands it: wrong requests are final, everything else is this worker's fault.
  public init(_ error: PipelineError) {
    switch error {
    case .invalidRequest(let field, _): self.init(.invalidArgument, "\(error)", field: field)
    case .checkpoint: self.init(.internal, "\(error)")
    case .cancelled: self.init(.cancelled, "\(error)")
    }
  }
}

extension TokenGrid {
  /// The grid of an image of `size`.
  ///
  /// - Throws: INVALID_ARGUMENT when the sides are not multiples of a token's edge.
  public init(_ size: ImageSize) throws(Status) {
    let edge = QwenImage.ModelLimits.sizeMultiple
    guard size.widthPx > 0, size.heightPx > 0, size.widthPx % edge == 0, size.heightPx % edge == 0 else {
      throw Status(.invalidArgument, "size is \(size); its sides must be multiples of \(edge)", field: "size")
    }
    self.init(height: size.heightPx / edge, width: size.widthPx / edge)
  }
}

/// Runs `body` and turns the models' errors into what the gateway understands.
public func reportingStatus<Result>(_ body: () throws -> Result) throws -> Result {
  do {
    return try body()
  } catch let error as PipelineError {
    throw Status(error)
  }
}
