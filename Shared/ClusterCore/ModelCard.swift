/// A model as clients name it, and exactly which checkpoint is meant. Stages with different fingerprints never serve
/// one image together.
public struct ModelIdentity: Hashable, Sendable, CustomStringConvertible {
  /// The name: "Qwen/Qwen-Image".
  public var id: String
  /// Identifies the whole checkpoint.
  public var fingerprint: String

  /// The model `id` with the checkpoint `fingerprint`.
  public init(id: String, fingerprint: String) {
    self.id = id
    self.fingerprint = fingerprint
  }

  /// For logs and messages.
  public var description: String { "\(id) (\(fingerprint))" }
}

/// The sizes and counts that a model accepts.
public struct ModelLimits: Hashable, Sendable {
  /// The largest true CFG scale; useful ones are below 10.
  public static let maxTrueCFGScale = 100.0

  /// Width and height are multiples of this, in pixels.
  public var sizeMultiplePx: Int
  /// Shortest side, in pixels.
  public var minSidePx: Int
  /// Longest side, in pixels.
  public var maxSidePx: Int
  /// Most pixels of an image.
  public var maxPixels: Int
  /// Most denoising steps.
  public var maxSteps: Int
  /// Most tokens of a prompt, without its template.
  public var maxPromptTokens: Int
  /// Most UTF-8 bytes of a prompt.
  public var maxPromptBytes: Int
  /// The steps of a distilled model's schedule, which it has whatever a request asks for; nil: requests choose.
  public var scheduleSteps: Int?
  /// Most tokens of images that are edited, all of an image's and all branches of guidance together, since what
  /// denoisers keep of them takes memory. Only denoisers know; nil: any number.
  public var maxReferenceTokens: Int?
  /// Blocks of the denoising network, of which step caches leave out some. Only denoisers know; nil: none that serves
  /// step caches has come.
  public var denoiserBlocks: Int?

  /// See the properties; what only denoisers know is set afterwards.
  public init(
    sizeMultiplePx: Int, minSidePx: Int, maxSidePx: Int, maxPixels: Int, maxSteps: Int, maxPromptTokens: Int,
    maxPromptBytes: Int, scheduleSteps: Int? = nil
  ) {
    self.sizeMultiplePx = sizeMultiplePx
    self.minSidePx = minSidePx
    self.maxSidePx = maxSidePx
    self.maxPixels = maxPixels
    self.maxSteps = maxSteps
    self.maxPromptTokens = maxPromptTokens
    self.maxPromptBytes = maxPromptBytes
    self.scheduleSteps = scheduleSteps
  }
}

/// What a request that leaves a value open gets.
public struct GenerationDefaults: Hashable, Sendable {
  /// The image's size.
  public var size: ImageSize
  /// Denoising steps.
  public var steps: Int
  /// Scale of true classifier-free guidance; it acts only above 1 and with a negative prompt.
  public var trueCFGScale: Double
  /// The negative prompt; empty: none.
  public var negativePrompt: String

  /// See the properties.
  public init(size: ImageSize, steps: Int, trueCFGScale: Double, negativePrompt: String) {
    self.size = size
    self.steps = steps
    self.trueCFGScale = trueCFGScale
    self.negativePrompt = negativePrompt
  }

  /// The negative prompt of a request; nil: it has none, and is made without guidance.
  ///
  /// As in the reference, guidance needs a ``trueCFGScale`` above 1 and a negative prompt, of which an empty text is
  /// one and an absent text is none.
  ///
  /// - Parameter requested: what the request says, also an empty text; nil: the model's own, if it has one.
  public func negativePrompt(for requested: String?) -> String? {
    requested ?? (negativePrompt.isEmpty ? nil : negativePrompt)
  }
}

/// The shape of packed latents: `[width · height / (downscale · patch)², channels · patch²]`.
public struct LatentGeometry: Hashable, Sendable {
  /// Channels of the VAE's latent space.
  public var channels: Int
  /// Pixels per latent element along one side.
  public var downscale: Int
  /// Latent elements per token along one side.
  public var patch: Int

  /// See the properties.
  public init(channels: Int, downscale: Int, patch: Int) {
    self.channels = channels
    self.downscale = downscale
    self.patch = patch
  }

  /// `[tokens, channels · patch²]` for an image of `size`, whose sides are multiples of `downscale · patch`.
  public func packedShape(of size: ImageSize) -> [Int] {
    let side = downscale * patch
    return [(size.widthPx / side) * (size.heightPx / side), channels * patch * patch]
  }
}

/// What gateways and clients need to know of a model: enough to check a request before any worker sees it. Stages make
/// it from their checkpoint and send it when they register; the gateway journals it with every job.
public struct ModelCard: Hashable, Sendable {
  /// The name that clients use, and the checkpoint.
  public var model: ModelIdentity
  /// `_class_name` of model_index.json: `QwenImagePipeline`.
  public var pipelineClass: String
  /// What the model can be asked for.
  public var pipelines: [PipelineName]
  /// What requests may ask for.
  public var limits: ModelLimits
  /// What requests that are silent get.
  public var defaults: GenerationDefaults
  /// Sizes that the model was trained for.
  public var recommendedSizes: [ImageSize]
  /// The shape of latents.
  public var latents: LatentGeometry
  /// In which sizes networks see images that are edited.
  public var references: ReferenceAreas
  /// Whether images have an alpha channel, those that are made and those that are edited.
  public var hasTransparency = false
  /// Under which licence the weights are published, by its SPDX identifier or its name; empty: unknown.
  public var license = ""
  /// The samplers that requests may name; denoisers before 0.2 have Euler's method alone.
  public var samplers = SamplerName.allCases
  /// The schedules that requests may name.
  public var schedules = ScheduleName.allCases

  /// Whether two workers say the same of a model. Workers of different versions may serve different pipelines and
  /// samplers of it, those before 0.2 do not know its licence, and denoisers may have different amounts of memory.
  public func isOfOneModel(with other: ModelCard) -> Bool {
    var other = other
    other.pipelines = pipelines
    (other.samplers, other.schedules) = (samplers, schedules)
    other.limits.maxReferenceTokens = limits.maxReferenceTokens
    other.limits.denoiserBlocks = limits.denoiserBlocks
    if license.isEmpty || other.license.isEmpty { other.license = license }
    return self == other
  }

  /// See the properties; transparency and licence are set afterwards.
  public init(
    model: ModelIdentity, pipelineClass: String, pipelines: [PipelineName], limits: ModelLimits,
    defaults: GenerationDefaults,
    recommendedSizes: [ImageSize], latents: LatentGeometry, references: ReferenceAreas = .published
  ) {
    self.model = model
    self.pipelineClass = pipelineClass
    self.pipelines = pipelines
    self.limits = limits
    self.defaults = defaults
    self.recommendedSizes = recommendedSizes
    self.latents = latents
    self.references = references
  }
}
