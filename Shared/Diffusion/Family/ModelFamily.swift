import ClusterCore
import Foundation
import Kernels
import Weights

/// A family of models: how its checkpoints are read, and what builds its three networks. A family is a module that
/// implements this protocol and the three seams (``PromptConditioner``, ``VelocityPredictor``, ``LatentCodec``), and
/// one line in the registry (`ModelFamilies.standard`).
///
/// Schedule, noise, guidance and the loop around the networks are shared by all families.
public protocol ModelFamily: Sendable {
  /// As documents and the command line call it: `qwen-image`.
  static var name: String { get }
  /// The pipeline classes (`_class_name` of `model_index.json`) whose checkpoints this family reads.
  static var classNames: [String] { get }
  /// Which layers the quantised modes quantise.
  static var layers: LayerPrecision { get }
  /// The folder of the tokenizer's files.
  static var tokenizerFolder: String { get }
  /// The components with weights, small ones first.
  static var components: [ModelComponent] { get }

  /// Reads the configurations of the checkpoint in `url` and checks that they fit together.
  init(contentsOf url: URL, index: ModelIndex) throws(ConfigurationError)

  /// The pipeline class that the checkpoint is run as, which is part of ``ModelDirectory/fingerprint``: one of
  /// ``classNames``. Classes whose checkpoints have the same weights are run as one.
  var className: String { get }
  /// What the configurations say, in a fixed order: ``ModelDirectory/fingerprint`` is made of it.
  var configurations: [(component: ModelComponent, value: any Encodable)] { get }
  /// How conditional and unconditional velocities are combined.
  var guidance: Guidance { get }
  /// How the shift of the noise schedule follows from the image size.
  var shiftRule: SchedulerConfiguration.ShiftRule { get }
  /// The constant shift that Lightning distillations of the model were trained with; nil: the model's own.
  var lightningShift: Double? { get }
  /// Noise levels that fix the schedule of a distilled model; nil: they are evenly spaced.
  var sampleSigmas: [Double]? { get }
  /// What the model takes and what it does when a request leaves something open, as documented by the family's authors.
  func card(of model: ModelIdentity) -> ModelCard
  /// What the denoising network computes in a step of an image of `size` pixels and a prompt of `textTokens` tokens.
  func denoisingWork(size: ImageSize, textTokens: Int) -> DenoisingWork
  /// What a component's configuration says it holds.
  func inventory(of component: ModelComponent) -> ParameterInventory
  /// Whether a tensor, by its published name, belongs to a part that no pipeline of the checkpoint's class needs: it
  /// may be missing.
  func isUnused(_ name: String, in component: ModelComponent) -> Bool
  /// Opens a component's weights; tensors have their published names, whichever names the files use.
  static func weights(
    of component: ModelComponent, from source: ComponentSource
  ) throws(WeightsError) -> ComponentWeights

  /// Loads what turns prompts into conditioning.
  ///
  /// - Parameter readsImages: whether prompts come with images: what reads them is loaded then only.
  /// - Throws: `TokenizerError`, `WeightsError` or ``PipelineError``, each naming the file at fault; the two below too.
  func conditioner(
    of model: ModelDirectory, loading: WeightLoading, pool: ThreadPool, limits: ModelLimits, readsImages: Bool
  ) throws -> any PromptConditioner
  /// Loads the denoising network.
  func predictor(
    of model: ModelDirectory, loading: WeightLoading, pool: ThreadPool, options: PredictorOptions
  ) throws -> any VelocityPredictor
  /// Loads the autoencoder, or one half of it.
  func codec(of model: ModelDirectory, pool: ThreadPool, parts: CodecParts) throws -> any LatentCodec

  /// The files of a checkpoint with random weights, by their paths, without the weights: published sizes, or tiny ones
  /// for tests.
  static func syntheticFiles(_ size: SyntheticSize, withTokenizer: Bool) throws -> [String: Data]
  /// Releases of the family whose checkpoints differ from the first one, which has the family's ``name``.
  static var syntheticReleases: [String] { get }
  /// As ``syntheticFiles(_:withTokenizer:)``, of one of ``syntheticReleases``.
  static func syntheticFiles(_ size: SyntheticSize, release: String, withTokenizer: Bool) throws -> [String: Data]
}

extension ModelFamily {
  /// The first of ``classNames``.
  public var className: String { Self.classNames[0] }
  /// `tokenizer`.
  public static var tokenizerFolder: String { ModelComponent.tokenizer.rawValue }
  /// The line that the scheduler's configuration describes.
  public var shiftRule: SchedulerConfiguration.ShiftRule { .line }
  /// That of the distillations of Qwen-Image.
  public var lightningShift: Double? { SchedulerConfiguration.publishedLightningShift }
  /// None.
  public static var syntheticReleases: [String] { [] }
  /// Those of the first release.
  public static func syntheticFiles(
    _ size: SyntheticSize, release: String, withTokenizer: Bool
  ) throws -> [String: Data] { try syntheticFiles(size, withTokenizer: withTokenizer) }
  /// Evenly spaced.
  public var sampleSigmas: [Double]? { nil }
  /// The autoencoder, the text encoder and the transformer.
  public static var components: [ModelComponent] { [.vae, .textEncoder, .transformer] }
  /// Opens weights whose tensors are named as published.
  public static func weights(
    of component: ModelComponent, from source: ComponentSource
  ) throws(WeightsError) -> ComponentWeights {
    try ComponentWeights(source, baseName: component.weightsBaseName) { _ in .published }
  }
}

/// What can be chosen about a denoising network.
public struct PredictorOptions: Sendable {
  /// Directories of control networks that are loaded beside it, in the order in which ``ControlInput/network`` counts.
  public var controlNetworks: [URL]
  /// Whether keys and values of text and references are kept for all steps, by networks where they are the same in
  /// every step. Images are the same without.
  public var usesPrefixCache: Bool
  /// Most bytes of these for one image, all its branches of guidance together.
  public var prefixCacheBytesMax: Int
  /// Most bytes of these that are kept for later images of the same prompt and references.
  public var prefixCacheKeptBytesMax: Int

  /// 8 GiB: two references of 1024×1024 pixels with guidance, in bf16.
  public static let standardPrefixCacheBytesMax = 8 << 30
  /// 2 GiB: one reference of 1024×1024 pixels without guidance, or many prompts without any, in bf16.
  public static let standardPrefixCacheKeptBytesMax = 2 << 30

  /// See the properties.
  public init(
    controlNetworks: [URL] = [], usesPrefixCache: Bool = true,
    prefixCacheBytesMax: Int = Self.standardPrefixCacheBytesMax,
    prefixCacheKeptBytesMax: Int = Self.standardPrefixCacheKeptBytesMax
  ) {
    self.controlNetworks = controlNetworks
    self.usesPrefixCache = usesPrefixCache
    self.prefixCacheBytesMax = prefixCacheBytesMax
    self.prefixCacheKeptBytesMax = prefixCacheKeptBytesMax
  }
}

/// A part of a checkpoint with a folder of its own.
public struct ModelComponent: RawRepresentable, Hashable, Sendable {
  /// The folder's name.
  public let rawValue: String

  /// The component in the folder `rawValue`.
  public init(rawValue: String) { self.rawValue = rawValue }

  /// The tokenizer, which some families keep in another folder.
  public static let tokenizer = ModelComponent(rawValue: "tokenizer")
  /// The network that reads prompts.
  public static let textEncoder = ModelComponent(rawValue: "text_encoder")
  /// The denoising network.
  public static let transformer = ModelComponent(rawValue: "transformer")
  /// The autoencoder.
  public static let vae = ModelComponent(rawValue: "vae")

  /// What the names of the files with weights begin with.
  package var weightsBaseName: String { self == .textEncoder ? "model" : "diffusion_pytorch_model" }
}

/// The sizes of a checkpoint with random weights.
public enum SyntheticSize: Sendable {
  /// As the family's first release.
  case published
  /// A few narrow layers.
  case tiny
}
