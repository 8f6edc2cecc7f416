import ImageCodec

/// What a picture depends on: the same request on the same model and numerics class gives the same bytes.
public struct ImageRequest: Sendable, Equatable {
  /// What to draw.
  public var prompt: String
  /// What to steer away from. `nil` switches classifier-free guidance off; an empty string does not.
  public var negativePrompt: String?
  /// Guidance strength; guidance is on above 1 and with a negative prompt.
  public var trueCFGScale: Double
  /// Denoising steps.
  public var steps: Int
  /// Width in pixels.
  public var width: Int
  /// Height in pixels.
  public var height: Int
  /// Seed of the initial noise.
  public var seed: UInt64

  /// A request with explicit values for everything.
  public init(
    prompt: String, negativePrompt: String?, trueCFGScale: Double, steps: Int, width: Int, height: Int, seed: UInt64
  ) {
    self.prompt = prompt
    self.negativePrompt = negativePrompt
    self.trueCFGScale = trueCFGScale
    self.steps = steps
    self.width = width
    self.height = height
    self.seed = seed
  }

  /// Whether every step runs a second, unconditional pass.
  public var usesTrueCFG: Bool { trueCFGScale > 1 && negativePrompt != nil }

  /// What the image keeps about its making; the gateway writes the same.
  ///
  /// - Parameters:
  ///   - modelID: the model's name.
  ///   - fingerprint: of the model's directory.
  ///   - softwareVersion: the release that draws it.
  public func metadata(modelID: String, fingerprint: String?, softwareVersion: String) -> ImageMetadata {
    ImageMetadata(
      model: modelID, fingerprint: fingerprint, prompt: prompt, negativePrompt: negativePrompt,
      trueCFGScale: trueCFGScale, steps: steps, width: width, height: height, seed: seed,
      softwareVersion: softwareVersion)
  }

  /// The grid of image tokens.
  public var tokenGrid: TokenGrid {
    TokenGrid(height: height / ModelLimits.sizeMultiple, width: width / ModelLimits.sizeMultiple)
  }
}

/// The sizes and counts a model accepts, and what it does when the request leaves them open.
public struct ModelLimits: Sendable, Equatable {
  /// Width and height must be multiples of this many pixels: the VAE's scale times the patch edge.
  public static let sizeMultiple = VAEDecoder.spatialScale * LatentPacking.patch

  /// Shortest edge, in pixels.
  public var minSide = 64
  /// Longest edge, in pixels.
  public var maxSide = 2048
  /// Most pixels in a picture.
  public var maxPixels = 1664 * 1664
  /// Most denoising steps.
  public var maxSteps = 200
  /// Largest guidance scale.
  public var maxTrueCFGScale = 100.0
  /// Most tokens in a prompt, without its template. The reference keeps 512 rows of a prompt's embedding, of which the template
  /// takes five, and cuts the rest off silently.
  public var maxPromptTokens = 507
  /// Most UTF-8 bytes in a prompt.
  public var maxPromptBytes = 32 << 10

  /// The limits of the published family.
  public init() {}

  /// Checks everything that can be checked without a tokenizer.
  ///
  /// - Throws: ``PipelineError/invalidRequest(field:reason:)`` for the first field that is out of range.
  public func validate(_ request: ImageRequest) throws(PipelineError) {
    try validateSide("width", request.width)
    try validateSide("height", request.height)
    guard request.width * request.height <= maxPixels else {
      throw .invalidRequest(
        field: "size", reason: "has \(request.width * request.height) pixels; the limit is \(maxPixels)")
    }
    guard (1...maxSteps).contains(request.steps) else {
      throw .invalidRequest(field: "steps", reason: "is \(request.steps); it must be between 1 and \(maxSteps)")
    }
    guard request.trueCFGScale.isFinite, (0...maxTrueCFGScale).contains(request.trueCFGScale) else {
      throw .invalidRequest(
        field: "true_cfg_scale", reason: "is \(request.trueCFGScale); it must be between 0 and \(maxTrueCFGScale)")
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
    guard (minSide...maxSide).contains(value), value % Self.sizeMultiple == 0 else {
      throw .invalidRequest(
        field: field,
        reason: "is \(value); it must be a multiple of \(Self.sizeMultiple) between \(minSide) and \(maxSide) pixels")
    }
  }
}
