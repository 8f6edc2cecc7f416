/// Width and height of a picture.
public struct ImageSize: Sendable, Hashable {
  /// Pixels from left to right.
  public var widthPx: Int
  /// Pixels from top to bottom.
  public var heightPx: Int

  /// A size in pixels.
  public init(widthPx: Int, heightPx: Int) {
    self.widthPx = widthPx
    self.heightPx = heightPx
  }
}

extension ImageSize: CustomStringConvertible {
  /// `1328x1328`
  public var description: String { "\(widthPx)x\(heightPx)" }
}

/// What a request that is silent gets.
public struct GenerationDefaults: Sendable, Equatable {
  /// The picture's size.
  public var size: ImageSize
  /// Denoising steps.
  public var steps: Int
  /// Scale of true classifier-free guidance; it acts only with a negative prompt.
  public var trueCFGScale: Double
  /// The negative prompt; empty: none.
  public var negativePrompt: String

  /// Puts the parts together.
  public init(size: ImageSize, steps: Int, trueCFGScale: Double, negativePrompt: String) {
    self.size = size
    self.steps = steps
    self.trueCFGScale = trueCFGScale
    self.negativePrompt = negativePrompt
  }
}

/// The shape of packed latents: `[width · height / (downscale · patch)², channels · patch²]`.
public struct LatentGeometry: Sendable, Equatable {
  /// Channels of the VAE's latent space.
  public var channels: Int
  /// Pixels per latent element along one side.
  public var downscale: Int
  /// Latent elements per token along one side.
  public var patch: Int

  /// Puts the parts together.
  public init(channels: Int, downscale: Int, patch: Int) {
    self.channels = channels
    self.downscale = downscale
    self.patch = patch
  }

  /// `[tokens, channels · patch²]` for a picture of `size`, whose sides are multiples of `downscale · patch`.
  public func packedShape(of size: ImageSize) -> [Int] {
    let side = downscale * patch
    return [(size.widthPx / side) * (size.heightPx / side), channels * patch * patch]
  }
}

/// What the gateway must know of a model to check a request before any worker sees it.
public struct ModelCard: Sendable, Equatable {
  /// As users name it: `Qwen/Qwen-Image`.
  public var modelID: String
  /// `_class_name` of model_index.json: `QwenImagePipeline`.
  public var pipelineClass: String
  /// Identifies the whole checkpoint; workers whose fingerprints differ never serve one job together.
  public var modelFingerprint: String
  /// Width and height are multiples of this.
  public var sizeMultiplePx: Int
  /// The least width and height.
  public var minSidePx: Int
  /// The greatest width and height.
  public var maxSidePx: Int
  /// The greatest width · height.
  public var maxPixels: Int
  /// Sizes the model was trained for.
  public var recommendedSizes: [ImageSize]
  /// The greatest number of denoising steps.
  public var maxSteps: Int
  /// The longest prompt in tokens, without the template.
  public var maxPromptTokens: Int
  /// The longest prompt in UTF-8 bytes.
  public var maxPromptBytes: Int
  /// What a request that is silent gets.
  public var defaults: GenerationDefaults
  /// The shape of latents.
  public var latents: LatentGeometry

  /// Puts the parts together.
  public init(
    modelID: String, pipelineClass: String, modelFingerprint: String, sizeMultiplePx: Int, minSidePx: Int, maxSidePx: Int,
    maxPixels: Int, recommendedSizes: [ImageSize], maxSteps: Int, maxPromptTokens: Int, maxPromptBytes: Int,
    defaults: GenerationDefaults, latents: LatentGeometry
  ) {
    self.modelID = modelID
    self.pipelineClass = pipelineClass
    self.modelFingerprint = modelFingerprint
    self.sizeMultiplePx = sizeMultiplePx
    self.minSidePx = minSidePx
    self.maxSidePx = maxSidePx
    self.maxPixels = maxPixels
    self.recommendedSizes = recommendedSizes
    self.maxSteps = maxSteps
    self.maxPromptTokens = maxPromptTokens
    self.maxPromptBytes = maxPromptBytes
    self.defaults = defaults
    self.latents = latents
  }
}
