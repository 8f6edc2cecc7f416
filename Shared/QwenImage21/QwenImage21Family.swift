import ClusterCore
import Diffusion
import Foundation
import Kernels
import Weights

/// Qwen-Image-2.1 and 2.1-Turbo: Qwen3-VL, a single-stream transformer, and a residual autoencoder with 64 latent
/// channels for images with transparency.
public struct QwenImage21Family: ModelFamily {
  /// The name of the family and of its first release.
  public static let name = "qwen-image-2.1"
  /// One pipeline makes images of prompts, with or without references.
  public static let classNames = ["QwenImage21Pipeline"]
  /// Layers of transformer and language model are quantised, all but the first of either. The vision tower stays in
  /// bf16.
  public static let layers = SingleStreamTransformer.layers.adding(Qwen3LanguageModel.layers)
  /// There is no other folder with the tokenizer's files.
  public static let tokenizerFolder = "processor"

  /// `text_encoder/config.json`.
  public let textEncoder: Qwen3TextConfiguration
  /// How the images of prompts are read.
  public let promptImages: Qwen3PromptImages
  /// `transformer/config.json`.
  public let transformer: SingleStreamConfiguration
  /// `vae/config.json`.
  public let vae: ResidualVAEConfiguration
  /// The noise levels of a distilled checkpoint, as 2.1-Turbo is.
  public let sampleSigmas: [Double]?

  /// The velocities are combined as they come, and only where a request asks for guidance.
  public var guidance: Guidance { .plain }
  /// Lightning distillations of it were trained with its own shift.
  public var lightningShift: Double? { nil }

  /// Reads the configurations.
  public init(contentsOf url: URL, index: ModelIndex) throws(ConfigurationError) {
    try index.require("text_encoder", oneOf: ["Qwen3VLForConditionalGeneration", "Qwen3VLModel"])
    try index.require("processor", oneOf: ["Qwen3VLProcessor"])
    try index.require("transformer", oneOf: ["QwenImage21Transformer2DModel"])
    try index.require("vae", oneOf: ["AutoencoderKLQwenImage21"])
    textEncoder = try Qwen3TextConfiguration(contentsOf: url.appending(path: "text_encoder/config.json"))
    promptImages = try Qwen3PromptImages(contentsOf: url, text: textEncoder)
    transformer = try SingleStreamConfiguration(contentsOf: url.appending(path: "transformer/config.json"))
    vae = try ResidualVAEConfiguration(contentsOf: url.appending(path: "vae/config.json"))
    sampleSigmas = try index.sampleSigmas()
    try checkThatPartsFit(url)
  }

  private func checkThatPartsFit(_ url: URL) throws(ConfigurationError) {
    let file = url.appending(path: "transformer/config.json").path
    guard transformer.contextDim == textEncoder.hiddenSize else {
      throw .inconsistent(
        file: file,
        reason: "context_in_dim is \(transformer.contextDim), the text encoder's hidden_size \(textEncoder.hiddenSize)")
    }
    guard transformer.channels == vae.zDim else {
      throw .inconsistent(
        file: file, reason: "in_channels is \(transformer.channels), the VAE's z_dim \(vae.zDim)")
    }
    // A row of the text encoder's image stands for 2 × 2 tokens of the transformer's.
    let row = promptImages.vision.patchSize * promptImages.vision.mergeSize
    guard row == 2 * vae.spatialScale * QwenImage21Codec.patch else {
      throw .inconsistent(
        file: url.appending(path: "text_encoder/config.json").path,
        reason: "a row of an image stands for \(row)×\(row) pixels, but 2×2 tokens of the transformer for "
          + "\(2 * vae.spatialScale)×\(2 * vae.spatialScale)")
    }
  }

  /// The shape of latents.
  public var latents: LatentGeometry {
    LatentGeometry(channels: vae.zDim, downscale: vae.spatialScale, patch: QwenImage21Codec.patch)
  }

  /// All configurations, with what fixes the schedule of a distilled checkpoint as a part of the scheduler's.
  public var configurations: [(component: ModelComponent, value: any Encodable)] {
    [
      (.textEncoder, textEncoder), (ModelComponent(rawValue: "processor"), promptImages), (.transformer, transformer),
      (.vae, vae),
    ]
  }

  /// The sizes on the model card.
  private static let publishedSizes = [
    (2048, 2048), (2400, 1792), (1792, 2400), (2528, 1696), (1696, 2528), (2752, 1536), (1536, 2752),
  ].map { ImageSize(widthPx: $0.0, heightPx: $0.1) }

  /// The values of the model card and of diffusers' pipeline.
  public func card(of model: ModelIdentity) -> ModelCard {
    var card = ModelCard(
      model: model, pipelineClass: className, pipelines: [.textToImage, .editPlus],
      limits: ModelLimits(
        sizeMultiplePx: 2 * latents.tokenEdgePx, minSidePx: 32, maxSidePx: 4096, maxPixels: 2400 * 1792, maxSteps: 200,
        maxPromptTokens: 4096, maxPromptBytes: 32 << 10, scheduleSteps: sampleSigmas?.count),
      defaults: GenerationDefaults(
        size: ImageSize(widthPx: 1024, heightPx: 1024), steps: sampleSigmas?.count ?? 40, trueCFGScale: 1,
        negativePrompt: ""),
      recommendedSizes: Self.publishedSizes, latents: latents,
      // Text encoder and autoencoder see the same pixels.
      references: ReferenceAreas(
        referencePx: 1024 * 1024, conditionPx: 1024 * 1024, maxCount: Qwen3PromptEncoder.imagesMax))
    card.hasTransparency = true
    card.license = "Qwen Research License (non-commercial)"
    return card
  }

  /// The tensors of a component.
  public func inventory(of component: ModelComponent) -> ParameterInventory {
    switch component {
    case .textEncoder: ParameterInventory(qwen3: textEncoder, vision: promptImages.vision)
    case .transformer: ParameterInventory(singleStream: transformer)
    case .vae: ParameterInventory(residualVAE: vae)
    default: preconditionFailure("\(component.rawValue) has no weights")
    }
  }

  /// Whether a tensor is of the output head or the norm before it, or acts on time only.
  public func isUnused(_ name: String, in component: ModelComponent) -> Bool {
    switch component {
    case .textEncoder: Qwen3TextConfiguration.isUnused(name) && !name.hasPrefix("model.visual.")
    case .vae: ([.encoder, .decoder] as CodecParts).ignores(name)
    default: false
    }
  }

  /// The vision tower's modules as llama.cpp names them.
  private static let tower = LlamaNames.Tower(
    block: [
      "ln1": "norm1", "ln2": "norm2", "attn_qkv": "attn.qkv", "attn_out": "attn.proj", "ffn_up": "mlp.linear_fc1",
      "ffn_down": "mlp.linear_fc2",
    ],
    others: [
      "v.patch_embd": "patch_embed.proj", "v.position_embd": "pos_embed", "v.post_ln": "merger.norm",
      "mm.0": "merger.linear_fc1", "mm.2": "merger.linear_fc2",
    ])

  /// Opens weights: of the text encoder as transformers or llama.cpp name them, of the autoencoder as diffusers or its
  /// authors do, of the transformer as diffusers or ComfyUI do.
  public static func weights(
    of component: ModelComponent, from source: ComponentSource
  ) throws(WeightsError) -> ComponentWeights {
    if component == .transformer { return try SingleStreamTransformer.weights(from: source) }
    let isEncoder = component == .textEncoder
    return try ComponentWeights(
      source, baseName: component.weightsBaseName, preferring: isEncoder ? .singleFile : .index, acceptsAnyName: true
    ) { stored in
      isEncoder
        ? LlamaNames.naming(of: stored, tower: tower, published: Qwen3TextConfiguration.publishedTensorName)
        : OriginalNames.naming(of: stored)
    }
  }

  /// Loads the tokenizer of `processor/` and `text_encoder/`; of the latter the vision tower only if prompts come with
  /// images.
  public func conditioner(
    of model: ModelDirectory, loading: WeightLoading, pool: ThreadPool, limits: ModelLimits, readsImages: Bool
  ) throws -> any PromptConditioner {
    let (weights, compute) = try model.open(.textEncoder, pool: pool, loading)
    let images = readsImages ? try promptImages.reader(weights, compute: compute, pool: pool) : nil
    // The tower's mapped weights stay in memory.
    let residentMax = loading.residentLimit.map { max($0 - (images?.mappedByteCount ?? 0), 0) }
    let languageModel = try Qwen3LanguageModel(
      weights, configuration: textEncoder, compute: compute, residentMax: residentMax)
    loading.reportStreaming(languageModel.streaming, of: .textEncoder, layerCount: textEncoder.layerCount)
    return try Qwen3PromptEncoder(
      tokenizer: Tokenizer(directory: model.url(of: .tokenizer)), model: languageModel,
      maxPromptTokens: limits.maxPromptTokens, images: images, processor: promptImages.processor)
  }

  /// Loads `transformer/`. There are no control networks for it.
  public func predictor(
    of model: ModelDirectory, loading: WeightLoading, pool: ThreadPool, options: PredictorOptions
  ) throws -> any VelocityPredictor {
    guard options.controlNetworks.isEmpty else {
      throw PipelineError.checkpoint("\(options.controlNetworks[0].path): \(className) has no control networks")
    }
    let (weights, compute) = try model.open(.transformer, pool: pool, loading)
    let network = try SingleStreamTransformer(
      weights, configuration: transformer, compute: compute, residentMax: loading.residentLimit,
      usesPrefixCache: options.usesPrefixCache, prefixCacheBytesMax: options.prefixCacheBytesMax,
      prefixCacheKeptBytesMax: options.prefixCacheKeptBytesMax)
    loading.reportStreaming(network.streaming, of: .transformer, layerCount: transformer.layerCount)
    return network
  }

  /// Loads `vae/`, or half of it. The VAE computes in fp32 whatever the precision of the other stages, as the published
  /// weights expect.
  public func codec(of model: ModelDirectory, pool: ThreadPool, parts: CodecParts) throws -> any LatentCodec {
    try QwenImage21Codec(
      model.weights(of: .vae), configuration: vae, compute: Compute(precision: .fp32, pool: pool), parts: parts)
  }

  /// The files of a checkpoint with random weights besides the weights.
  public static func syntheticFiles(_ size: SyntheticSize, withTokenizer: Bool) throws -> [String: Data] {
    try SyntheticFiles21.files(size, .base, withTokenizer: withTokenizer)
  }

  /// The distilled one.
  public static var syntheticReleases: [String] {
    SyntheticFiles21.Release.allCases.filter { $0 != .base }.map(\.rawValue)
  }

  /// The same files of one of ``syntheticReleases``.
  public static func syntheticFiles(
    _ size: SyntheticSize, release: String, withTokenizer: Bool
  ) throws -> [String: Data] {
    guard let release = SyntheticFiles21.Release(rawValue: release) else {
      preconditionFailure("\(release) is no release")
    }
    return try SyntheticFiles21.files(size, release, withTokenizer: withTokenizer)
  }
}
