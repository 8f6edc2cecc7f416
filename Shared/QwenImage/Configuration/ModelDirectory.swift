import Foundation
import Weights

/// A part of a checkpoint with a directory of its own.
public enum ModelComponent: String, Sendable, CaseIterable, Codable {
  case tokenizer
  case textEncoder = "text_encoder"
  case transformer
  case vae
}

/// A checkpoint directory in the diffusers layout, with its configurations read and checked.
public struct ModelDirectory: Sendable {
  /// The directory that holds `model_index.json`.
  public let url: URL
  /// `model_index.json`.
  public let modelIndex: ModelIndex
  /// `text_encoder/config.json`.
  public let textEncoder: TextEncoderConfiguration
  /// `transformer/config.json`.
  public let transformer: TransformerConfiguration
  /// `vae/config.json`.
  public let vae: VAEConfiguration
  /// `scheduler/scheduler_config.json`.
  public let scheduler: SchedulerConfiguration

  /// Reads all configurations in `url` and checks that they fit together. Weights are opened by ``weights(of:)``.
  public init(_ url: URL) throws(ConfigurationError) {
    try ModelLocation.check(url)
    self.url = url
    modelIndex = try ModelIndex(contentsOf: url.appending(path: "model_index.json"))
    textEncoder = try TextEncoderConfiguration(contentsOf: url.appending(path: "text_encoder/config.json"))
    transformer = try TransformerConfiguration(contentsOf: url.appending(path: "transformer/config.json"))
    vae = try VAEConfiguration(contentsOf: url.appending(path: "vae/config.json"))
    scheduler = try SchedulerConfiguration(contentsOf: url.appending(path: "scheduler/scheduler_config.json"))

    let file = url.appending(path: "transformer/config.json").path
    guard transformer.jointAttentionDim == textEncoder.hiddenSize else {
      throw .inconsistent(
        file: file,
        reason:
          "joint_attention_dim is \(transformer.jointAttentionDim), the text encoder's hidden_size \(textEncoder.hiddenSize)"
      )
    }
    guard transformer.outChannels == vae.zDim else {
      throw .inconsistent(file: file, reason: "out_channels is \(transformer.outChannels), the VAE's z_dim \(vae.zDim)")
    }
    guard transformer.patchSize == LatentPacking.patch else {
      throw .unsupported(
        file: file, field: "patch_size", value: "\(transformer.patchSize)", supported: ["\(LatentPacking.patch)"])
    }
    guard vae.spatialScale == VAEDecoder.spatialScale else {
      throw .inconsistent(
        file: url.appending(path: "vae/config.json").path,
        reason:
          "dim_mult has \(vae.dimMultipliers.count) elements, which makes latents \(vae.spatialScale) times smaller "
          + "than images; supported is \(VAEDecoder.spatialScale)")
    }
    // The supported pipelines have no input for these.
    for (field, isOn) in [
      ("guidance_embeds", transformer.guidanceEmbeds), ("zero_cond_t", transformer.zeroCondT),
      ("use_additional_t_cond", transformer.useAdditionalTCond), ("use_layer3d_rope", transformer.useLayer3DRope),
    ] where isOn {
      throw .unsupported(file: file, field: field, value: "true", supported: ["false"])
    }
  }

  /// The directory of a component.
  public func url(of component: ModelComponent) -> URL { url.appending(path: component.rawValue) }

  /// Opens a component's weights. The text encoder's tensors are named as published (`model.layers.…`, `visual.…`, `lm_head.…`),
  /// whichever generation of names the files use.
  public func weights(of component: ModelComponent) throws(WeightsError) -> ComponentWeights {
    precondition(component != .tokenizer, "the tokenizer has no weights")
    guard component == .textEncoder else {
      return try ComponentWeights(directory: url(of: component), baseName: component.weightsBaseName)
    }
    return try ComponentWeights(
      directory: url(of: component), baseName: component.weightsBaseName, preferring: .singleFile,
      rename: TextEncoderConfiguration.publishedTensorName)
  }
}
