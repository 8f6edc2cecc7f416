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
  /// The pipelines with these parts. Checkpoints for image-to-image and for inpainting have the parts and weights of
  /// the first and are run as it; those for editing have weights of their own, and prompts with images.
  public static let classNames = textToImageClasses + editClasses + [layeredClass]
  private static let layeredClass = "QwenImageLayeredPipeline"
  private static let textToImageClasses = [
    "QwenImagePipeline", "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline",
  ]
  private static let editClasses = [
    "QwenImageEditPipeline", "QwenImageEditPlusPipeline", "QwenImageEditInpaintPipeline",
  ]
  /// Blocks are quantised, all but the first of either network. The vision tower stays in bf16: int8 makes it faster by
  /// a quarter, but its error four times as large, and it runs once for each image
  /// (`Tests/Benchmarks/PERFORMANCE-LOG.md`).
  public static let layers = LayerPrecision(
    version: 1, repeated: ["transformer_blocks.", "model.layers."], modulations: [".img_mod.", ".txt_mod."])

  /// Classes that have the language model, with or without output head and vision tower.
  private static let textEncoders = ["Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLModel", "Qwen2_5_VLTextModel"]
  /// Classes that read the tokenizer's files, by name or whatever they are; the files are checked when they are read.
  private static let tokenizers = [
    "Qwen2Tokenizer", "Qwen2TokenizerFast", "TokenizersBackend", "PreTrainedTokenizerFast",
  ]

  /// Classes that prepare images and prompts.
  private static let processors = ["Qwen2VLProcessor", "Qwen2_5_VLProcessor"]

  /// The pipeline class that the checkpoint is run as.
  public let className: String
  /// `text_encoder/config.json`.
  public let textEncoder: TextEncoderConfiguration
  /// `vision_config` of the same file; nil where a checkpoint that reads no images has none that can be used.
  public let vision: VisionConfiguration?
  /// What reads the images of prompts; nil where prompts come without.
  private let promptImages: PromptImages?
  /// `transformer/config.json`.
  public let transformer: TransformerConfiguration
  /// `vae/config.json`.
  public let vae: VAEConfiguration

  /// Guidance that keeps the norm of the conditional velocity, but for layers, whose authors do not.
  public var guidance: Guidance { transformer.useLayer3DRope ? .plain : .normPreserving }
  /// The line of the scheduler's configuration, but for layers.
  public var shiftRule: SchedulerConfiguration.ShiftRule { transformer.useLayer3DRope ? .squareRoot : .line }

  /// How the images of prompts are read.
  private struct PromptImages: Encodable {
    var vision: VisionConfiguration
    var processor: ImageProcessorConfiguration

    init(contentsOf url: URL, _ textEncoder: TextEncoderConfiguration) throws(ConfigurationError) {
      vision = try VisionConfiguration(
        contentsOf: url.appending(path: "text_encoder/config.json"), hiddenSize: textEncoder.hiddenSize)
      processor = try ImageProcessorConfiguration(directory: url.appending(path: "processor"), vision: vision)
    }
  }

  /// Reads the three configurations.
  public init(contentsOf url: URL, index: ModelIndex) throws(ConfigurationError) {
    try index.require("text_encoder", oneOf: Self.textEncoders)
    try index.require("tokenizer", oneOf: Self.tokenizers)
    try index.require("transformer", oneOf: ["QwenImageTransformer2DModel"])
    try index.require("vae", oneOf: ["AutoencoderKLQwenImage"])
    let isForEditing = Self.editClasses.contains(index.className)
    className = Self.textToImageClasses.contains(index.className) ? Self.classNames[0] : index.className
    if isForEditing { try index.require("processor", oneOf: Self.processors) }
    textEncoder = try TextEncoderConfiguration(contentsOf: url.appending(path: "text_encoder/config.json"))
    if isForEditing {
      let images = try PromptImages(contentsOf: url, textEncoder)
      (promptImages, vision) = (images, images.vision)
    } else {
      promptImages = nil
      vision = try? VisionConfiguration(
        contentsOf: url.appending(path: "text_encoder/config.json"), hiddenSize: textEncoder.hiddenSize)
    }
    transformer = try TransformerConfiguration(contentsOf: url.appending(path: "transformer/config.json"))
    vae = try VAEConfiguration(contentsOf: url.appending(path: "vae/config.json"))
    try checkThatPartsFit(url)
  }

  private func checkThatPartsFit(_ url: URL) throws(ConfigurationError) {
    let file = url.appending(path: "transformer/config.json").path
    if className == Self.layeredClass {
      guard transformer.useLayer3DRope else {
        throw .inconsistent(file: file, reason: "use_layer3d_rope is false, but the checkpoint is a \(className)")
      }
      guard vae.inputChannels == 4 else {
        throw .inconsistent(
          file: url.appending(path: "vae/config.json").path,
          reason: "input_channels is \(vae.inputChannels), but a \(className) has layers with transparency, of 4")
      }
    }
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

  /// The three configurations. Checkpoints whose prompts have images add how these are read, apart from the text
  /// encoder's own values, so that the fingerprints of all others are what they were before images could be read.
  public var configurations: [(component: ModelComponent, value: any Encodable)] {
    [(.textEncoder, textEncoder), (.transformer, transformer), (.vae, vae)]
      + (promptImages.map { [(ModelComponent(rawValue: "processor"), $0)] } ?? [])
  }

  /// The sizes on the model card of Qwen-Image.
  private static let publishedSizes = [
    (1328, 1328), (1664, 928), (928, 1664), (1472, 1104), (1104, 1472), (1584, 1056), (1056, 1584),
  ].map { ImageSize(widthPx: $0.0, heightPx: $0.1) }

  /// The values of the model card of Qwen-Image.
  public func card(of model: ModelIdentity) -> ModelCard {
    var card = ModelCard(
      model: model, pipelineClass: className, pipelines: pipelines,
      limits: ModelLimits(
        sizeMultiplePx: latents.tokenEdgePx, minSidePx: 64, maxSidePx: 4096, maxPixels: 4096 * 2048, maxSteps: 200,
        // The reference keeps 512 rows of a prompt's embedding, of which the template takes five, and cuts the rest off
        // silently.
        maxPromptTokens: 507, maxPromptBytes: 32 << 10),
      defaults: GenerationDefaults(
        size: ImageSize(widthPx: 1024, heightPx: 1024), steps: 50, trueCFGScale: 4, negativePrompt: " "),
      recommendedSizes: Self.publishedSizes, latents: latents,
      references: className == Self.layeredClass ? .layered : .published)
    card.license = "Apache-2.0"
    return card
  }

  /// Checkpoints for editing have all that image-to-image and inpainting need, too.
  private var pipelines: [PipelineName] {
    switch className {
    case "QwenImageEditPipeline", "QwenImageEditInpaintPipeline":
      [.textToImage, .edit, .editInpaint, .imageToImage, .inpaint]
    case "QwenImageEditPlusPipeline": [.textToImage, .editPlus, .editInpaint, .imageToImage, .inpaint]
    case Self.layeredClass: [.layered]
    default: [.textToImage, .imageToImage, .inpaint, .controlNet, .controlNetInpaint]
    }
  }

  /// The tensors of a component.
  public func inventory(of component: ModelComponent) -> ParameterInventory {
    switch component {
    case .textEncoder:
      return ParameterInventory(textEncoder: textEncoder, vision: vision)
    case .transformer: return ParameterInventory(transformer: transformer)
    case .vae: return ParameterInventory(vae: vae)
    default: preconditionFailure("\(component.rawValue) has no weights")
    }
  }

  /// Whether a tensor is of the vision tower and prompts have no images, of the output head, of the VAE's encoder, or
  /// acts on time only.
  public func isUnused(_ name: String, in component: ModelComponent) -> Bool {
    switch component {
    case .textEncoder:
      TextEncoderConfiguration.isUnused(name) && !(promptImages != nil && VisionTower.isTensor(name))
    case .vae: (promptImages == nil ? CodecParts.decoder : [.encoder, .decoder]).ignores(name)
    case .transformer: MMDiT.isUnused(name)
    default: false
    }
  }

  /// The vision tower's modules as llama.cpp names them.
  private static let tower = LlamaNames.Tower(
    block: [
      "ln1": "norm1", "ln2": "norm2", "attn_qkv": "attn.qkv", "attn_out": "attn.proj", "ffn_gate": "mlp.gate_proj",
      "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    ],
    others: ["v.post_ln": "merger.ln_q", "mm.0": "merger.mlp.0", "mm.2": "merger.mlp.2"])

  /// Opens weights: of the text encoder as transformers or llama.cpp name them, of the autoencoder as diffusers or its
  /// authors do, of the transformer as diffusers or ComfyUI do.
  public static func weights(
    of component: ModelComponent, from source: ComponentSource
  ) throws(WeightsError) -> ComponentWeights {
    let isEncoder = component == .textEncoder
    return try ComponentWeights(
      source, baseName: component.weightsBaseName, preferring: isEncoder ? .singleFile : .index, acceptsAnyName: true
    ) { stored in
      switch component {
      case .textEncoder:
        LlamaNames.naming(of: stored, tower: tower, published: TextEncoderConfiguration.publishedTensorName)
      case .vae: OriginalNames.naming(of: stored)
      default: TensorNaming(rename: SingleFileNames.withoutPrefix)
      }
    }
  }

  /// Loads `tokenizer/` and `text_encoder/`; of the latter the vision tower only if prompts come with images.
  public func conditioner(
    of model: ModelDirectory, loading: WeightLoading, pool: ThreadPool, limits: ModelLimits, readsImages: Bool
  ) throws -> any PromptConditioner {
    let (weights, compute) = try model.open(.textEncoder, pool: pool, loading)
    let images = readsImages ? try imageReader(of: model, weights, compute, pool) : nil
    // The tower's mapped weights stay in memory.
    let residentMax = loading.residentLimit.map { max($0 - (images?.mappedByteCount ?? 0), 0) }
    let languageModel = try LanguageModel(
      weights, configuration: textEncoder, compute: compute, residentMax: residentMax)
    loading.reportStreaming(languageModel.streaming, of: .textEncoder, layerCount: textEncoder.layerCount)
    return try PromptEncoder(
      tokenizer: Tokenizer(directory: model.url(of: .tokenizer)), model: languageModel,
      maxPromptTokens: limits.maxPromptTokens, images: images)
  }

  private func imageReader(
    of model: ModelDirectory, _ weights: ComponentWeights, _ compute: Compute, _ pool: ThreadPool
  ) throws -> ImageReader {
    // Those of a checkpoint for text-to-image have not been checked yet.
    let images = if let promptImages { promptImages } else { try PromptImages(contentsOf: model.base, textEncoder) }
    return ImageReader(
      tower: try VisionTower(weights, configuration: images.vision, compute: compute),
      preprocessor: ImagePreprocessor(vision: images.vision, processor: images.processor, pool: pool))
  }

  /// Loads `transformer/`, and control networks beside it.
  public func predictor(
    of model: ModelDirectory, loading: WeightLoading, pool: ThreadPool, options: PredictorOptions
  ) throws -> any VelocityPredictor {
    let (weights, compute) = try model.open(.transformer, pool: pool, loading)
    // Before the limit is asked for: their weights stay in memory.
    let networks = try options.controlNetworks.map {
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
    try SyntheticFiles.files(size, .textToImage, withTokenizer: withTokenizer)
  }

  /// Those for editing and for layers.
  public static var syntheticReleases: [String] {
    SyntheticFiles.Release.allCases.filter { $0 != .textToImage }.map(\.rawValue)
  }

  /// The same files of one of ``syntheticReleases``.
  public static func syntheticFiles(
    _ size: SyntheticSize, release: String, withTokenizer: Bool
  ) throws -> [String: Data] {
    guard let release = SyntheticFiles.Release(rawValue: release) else {
      preconditionFailure("\(release) is no release")
    }
    return try SyntheticFiles.files(size, release, withTokenizer: withTokenizer)
  }
}
