import ClusterCore
import ImageCodec

/// What an image depends on: the same request on the same model and numerics class gives the same bytes.
public struct ImageRequest: Sendable, Equatable {
  /// What to draw.
  public var prompt: String
  /// What to steer away from. `nil` switches classifier-free guidance off; an empty string does not.
  public var negativePrompt: String?
  /// Guidance strength; guidance is on above 1 and with a negative prompt.
  public var trueCFGScale: Double
  /// Denoising steps.
  public var steps: Int
  /// Noise levels of the steps before the shift, ``steps`` of them; nil: the model's.
  public var sigmas: [Double]?
  /// How the steps are taken.
  public var sampling = SamplingChoice.standard
  /// Which steps leave out parts of the network; nil: none.
  public var cache: StepCache?
  /// The image's size.
  public var size: ImageSize
  /// Seed of the initial noise.
  public var seed: UInt64

  /// A request with explicit values for everything.
  public init(
    prompt: String, negativePrompt: String?, trueCFGScale: Double, steps: Int, size: ImageSize, seed: UInt64
  ) {
    self.prompt = prompt
    self.negativePrompt = negativePrompt
    self.trueCFGScale = trueCFGScale
    self.steps = steps
    self.size = size
    self.seed = seed
  }

  /// A request with the model's values where the caller has none.
  public init(
    _ card: ModelCard, prompt: String, negativePrompt: String?, trueCFGScale: Double?, steps: Int?,
    sigmas: [Double]? = nil, sampling: SamplingChoice = .standard, width: Int?, height: Int?, seed: UInt64
  ) {
    let defaults = card.defaults
    self.init(
      prompt: prompt, negativePrompt: defaults.negativePrompt(for: negativePrompt),
      trueCFGScale: trueCFGScale ?? defaults.trueCFGScale,
      steps: card.steps(asked: steps, sigmas: sigmas, sampling.schedule),
      size: ImageSize(widthPx: width ?? defaults.size.widthPx, heightPx: height ?? defaults.size.heightPx), seed: seed)
    self.sigmas = sigmas
    self.sampling = sampling
  }

  /// Whether steps, all of them or the first ones, run a second, unconditional pass.
  public var usesTrueCFG: Bool { trueCFGScale > 1 && negativePrompt != nil && sampling.cfgSteps != 0 }

  /// What the image keeps about its making; the gateway writes the same.
  ///
  /// - Parameters:
  ///   - model: the model and its checkpoint.
  ///   - softwareVersion: the release that draws it.
  ///   - source: how it is made of other images; nil: of the prompt alone.
  public func metadata(
    _ model: ModelIdentity, softwareVersion: String, source: ImageSource? = nil
  ) -> ImageMetadata {
    var metadata = ImageMetadata(
      model: model.id, fingerprint: model.fingerprint, prompt: prompt,
      negativePrompt: usesTrueCFG ? negativePrompt : nil, trueCFGScale: trueCFGScale, steps: steps, width: size.widthPx,
      height: size.heightPx, seed: seed,
      softwareVersion: softwareVersion, source: source)
    metadata.sigmas = sigmas
    metadata.sampler = sampling.sampler == .euler ? nil : sampling.sampler.rawValue
    metadata.schedule = sampling.schedule?.rawValue
    metadata.cfgSteps = usesTrueCFG ? sampling.cfgSteps : nil
    metadata.cache = cache
    return metadata
  }
}

extension ModelLimits {
  /// Checks everything that can be checked without a tokenizer.
  ///
  /// - Throws: ``PipelineError/invalidRequest(field:reason:)`` for the first field that is out of range.
  public func validate(_ request: ImageRequest) throws(PipelineError) {
    try validateSide("width", request.size.widthPx)
    try validateSide("height", request.size.heightPx)
    let pixels = request.size.widthPx * request.size.heightPx
    guard pixels <= maxPixels else {
      throw .invalidRequest(field: "size", reason: "has \(pixels) pixels; the limit is \(maxPixels)")
    }
    guard (1...maxSteps).contains(request.steps) else {
      throw .invalidRequest(field: "steps", reason: "is \(request.steps); it must be between 1 and \(maxSteps)")
    }
    try request.sampling.check(steps: request.steps, hasLevels: request.sigmas != nil)
    guard request.trueCFGScale.isFinite, (0...Self.maxTrueCFGScale).contains(request.trueCFGScale) else {
      throw .invalidRequest(
        field: "true_cfg_scale",
        reason: "is \(request.trueCFGScale); it must be between 0 and \(Self.maxTrueCFGScale)")
    }
    for (field, text) in [("prompt", request.prompt), ("negative_prompt", request.negativePrompt ?? "")] {
      guard text.utf8.count <= maxPromptBytes else {
        throw .invalidRequest(field: field, reason: "has \(text.utf8.count) bytes; the limit is \(maxPromptBytes)")
      }
      // Neither a PNG text chunk nor a protobuf-c string can hold it.
      guard !text.utf8.contains(0) else {
        throw .invalidRequest(field: field, reason: "must not contain the character U+0000")
      }
    }
  }

  private func validateSide(_ field: String, _ value: Int) throws(PipelineError) {
    guard (minSidePx...maxSidePx).contains(value), value % sizeMultiplePx == 0 else {
      throw .invalidRequest(
        field: field,
        reason: "is \(value); it must be a multiple of \(sizeMultiplePx) between \(minSidePx) and \(maxSidePx) pixels")
    }
  }
}
