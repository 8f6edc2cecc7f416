import ClusterCore
import Diffusion
import Foundation
import Kernels
import TensorCore
import Weights

/// Qwen-Image, Qwen-Image-2512 and their descendants: Qwen2.5-VL, a dual-stream MMDiT, and a causal video autoencoder
/// with 16 latent channels.
public struct QwenImageFamily: ModelFamily {
  /// The name of the family and of its first release.
  public static let name = "qwen-image"
  /// The pipelines with these parts: checkpoints for image-to-image and for inpainting have the parts and weights of
  /// the first.
  public static let classNames = ["QwenImagePipeline", "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline"]
  /// Blocks are quantised, all but the first of either network.
  public static let layers = LayerPrecision(
    version: 1, repeated: ["transformer_blocks.", "model.layers."], modulations: [".img_mod.", ".txt_mod."])

  /// Classes that have the language model, with or without output head and vision tower.
  private static let textEncoders = ["Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLModel", "Qwen2_5_VLTextModel"]
  /// Classes that read the tokenizer's files, by name or whatever they are; the files are checked when they are read.
  private static let tokenizers = [
    "Qwen2Tokenizer", "Qwen2TokenizerFast", "TokenizersBackend", "PreTrainedTokenizerFast",
  ]

  /// `text_encoder/config.json`.
  public let textEncoder: TextEncoderConfiguration
  /// `transformer/config.json`.
  public let transformer: TransformerConfiguration
  /// `vae/config.json`.
  public let vae: VAEConfiguration

  /// Guidance that keeps the norm of the conditional velocity, but for layers, whose authors do not.
  public var guidance: Guidance { transformer.useLayer3DRope ? .plain : .normPreserving }
  /// The line of the scheduler's configuration, but for layers.
  public var shiftRule: SchedulerConfiguration.ShiftRule { transformer.useLayer3DRope ? .squareRoot : .line }

  /// Reads the three configurations.
  public init(contentsOf url: URL, index: ModelIndex) throws(ConfigurationError) {
    try index.require("text_encoder", oneOf: Self.textEncoders)
    try index.require("tokenizer", oneOf: Self.tokenizers)
    try index.require("transformer", oneOf: ["QwenImageTransformer2DModel"])
    try index.require("vae", oneOf: ["AutoencoderKLQwenImage"])
    textEncoder = try TextEncoderConfiguration(contentsOf: url.appending(path: "text_encoder/config.json"))
    transformer = try TransformerConfiguration(contentsOf: url.appending(path: "transformer/config.json"))
    vae = try VAEConfiguration(contentsOf: url.appending(path: "vae/config.json"))
    try checkThatPartsFit(url)
  }

  private func checkThatPartsFit(_ url: URL) throws(ConfigurationError) {
    let file = url.appending(path: "transformer/config.json").path
    guard transformer.jointAttentionDim == textEncoder.hiddenSize else {
      throw .inconsistent(
        file: file,
        reason: "joint_attention_dim is \(transformer.jointAttentionDim), the text encoder's hidden_size "
          + "\(textEncoder.hiddenSize)")
    }
    guard transformer.outChannels == vae.zDim else {
      throw .inconsistent(
        file: file, reason: "out_channels is \(transformer.outChannels), the VAE's z_dim \(vae.zDim)")
    }
    guard transformer.patchSize == Self.patch else {
      throw .unsupported(
        file: file, field: "patch_size", value: "\(transformer.patchSize)", supported: ["\(Self.patch)"])
    }
    guard vae.spatialScale == VAEDecoder.spatialScale else {
      throw .inconsistent(
        file: url.appending(path: "vae/config.json").path,
        reason:
          "dim_mult has \(vae.dimMultipliers.count) elements, which makes latents \(vae.spatialScale) times smaller "
          + "than images; supported is \(VAEDecoder.spatialScale)")
    }
    guard !transformer.guidanceEmbeds else {
      throw .unsupported(file: file, field: "guidance_embeds", value: "true", supported: ["false"])
    }
  }

  /// Latent pixels per token along each side.
  static let patch = 2

  /// The shape of latents.
  public var latents: LatentGeometry {
    LatentGeometry(channels: vae.zDim, downscale: VAEDecoder.spatialScale, patch: Self.patch)
  }

  /// The three configurations.
  public var configurations: [(component: ModelComponent, value: any Encodable)] {
    [(.textEncoder, textEncoder), (.transformer, transformer), (.vae, vae)]
  }

  /// The sizes on the model card of Qwen-Image.
  private static let publishedSizes = [
    (1328, 1328), (1664, 928), (928, 1664), (1472, 1104), (1104, 1472), (1584, 1056), (1056, 1584),
  ].map { ImageSize(widthPx: $0.0, heightPx: $0.1) }

  /// The values of the model card of Qwen-Image.
  public func card(of model: ModelIdentity) -> ModelCard {
    ModelCard(
      model: model, pipelineClass: Self.classNames[0], pipelines: [.textToImage],
      limits: ModelLimits(
        sizeMultiplePx: latents.tokenEdgePx, minSidePx: 64, maxSidePx: 2048, maxPixels: 1664 * 1664, maxSteps: 200,
        // The reference keeps 512 rows of a prompt's embedding, of which the template takes five, and cuts the rest off
        // silently.
        maxPromptTokens: 507, maxPromptBytes: 32 << 10),
      defaults: GenerationDefaults(
        size: ImageSize(widthPx: 1024, heightPx: 1024), steps: 50, trueCFGScale: 4, negativePrompt: " "),
      recommendedSizes: Self.publishedSizes, latents: latents)
  }

  /// The tensors of a component.
  public func inventory(of component: ModelComponent) -> ParameterInventory {
    switch component {
    case .textEncoder:
      // The inventory knows the published vision tower only; smaller models do without one.
      let hasVision = textEncoder.hiddenSize == TextEncoderConfiguration.published.hiddenSize
      return ParameterInventory(textEncoder: textEncoder).filter { hasVision || !$0.name.hasPrefix("visual.") }
    case .transformer: return ParameterInventory(transformer: transformer)
    case .vae: return ParameterInventory(vae: vae)
    default: preconditionFailure("\(component.rawValue) has no weights")
    }
  }

  /// Whether a tensor is of the vision tower, the output head, the VAE's encoder, or acts on time only: checkpoints for
  /// text-to-image may do without.
  public static func isUnused(_ name: String, in component: ModelComponent) -> Bool {
    switch component {
    case .textEncoder: TextEncoderConfiguration.isUnused(name)
    case .vae: VAEConfiguration.isUnused(name, by: .decoder)
    default: false
    }
  }

  /// Opens weights; those of the text encoder by their published names.
  public static func weights(
    of component: ModelComponent, in folder: URL
  ) throws(WeightsError) -> ComponentWeights {
    guard component == .textEncoder else {
      return try ComponentWeights(directory: folder, baseName: component.weightsBaseName)
    }
    return try ComponentWeights(
      directory: folder, baseName: component.weightsBaseName, preferring: .singleFile,
      rename: TextEncoderConfiguration.publishedTensorName)
  }

  /// Loads `tokenizer/` and `text_encoder/`.
  public func conditioner(
    of model: ModelDirectory, loading: WeightLoading, pool: ThreadPool, limits: ModelLimits, readsImages: Bool
  ) throws -> any PromptConditioner {
    let (weights, compute) = try model.open(.textEncoder, pool: pool, loading)
    let languageModel = try LanguageModel(
      weights, configuration: textEncoder, compute: compute, residentMax: loading.residentLimit)
    loading.reportStreaming(languageModel.streaming, of: .textEncoder, layerCount: textEncoder.layerCount)
    return try PromptEncoder(
      tokenizer: Tokenizer(directory: model.url(of: .tokenizer)), model: languageModel,
      maxPromptTokens: limits.maxPromptTokens)
  }

  /// Loads `transformer/`, and control networks beside it.
  public func predictor(
    of model: ModelDirectory, loading: WeightLoading, pool: ThreadPool, controlNetworks: [URL]
  ) throws -> any VelocityPredictor {
    let (weights, compute) = try model.open(.transformer, pool: pool, loading)
    // Before the limit is asked for: their weights stay in memory.
    let networks = try controlNetworks.map {
      try ControlNetwork(directory: $0, for: self.transformer, compute: compute)
    }
    let transformer = try MMDiT(
      weights, configuration: self.transformer, compute: compute, residentMax: loading.residentLimit,
      controlNetworks: networks)
    loading.reportStreaming(transformer.streaming, of: .transformer, layerCount: self.transformer.layerCount)
    return transformer
  }

  /// Loads `vae/`, or half of it. The VAE computes in fp32 whatever the precision of the other stages, as the published
  /// weights expect.
  public func codec(of model: ModelDirectory, pool: ThreadPool, parts: CodecParts) throws -> any LatentCodec {
    try QwenImageCodec(
      model.weights(of: .vae), configuration: vae, compute: Compute(precision: .fp32, pool: pool), parts: parts)
  }

  /// The files of a checkpoint with random weights besides the weights.
  public static func syntheticFiles(_ size: SyntheticSize, withTokenizer: Bool) throws -> [String: Data] {
    try SyntheticFiles.files(size, withTokenizer: withTokenizer)
  }
}
