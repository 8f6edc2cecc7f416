import Diffusion
import Foundation

/// `config.json` of a control network (diffusers `QwenImageControlNetModel`).
public struct ControlNetworkConfiguration: Sendable, Equatable {
  /// What its blocks have in common with the transformer's.
  public var transformer: TransformerConfiguration
  /// Channels of a control token beyond those of the latents: those of a mask.
  public var extraConditionChannels: Int

  /// Channels of a control token.
  public var conditionChannels: Int { transformer.inChannels + extraConditionChannels }

  /// Reads the configuration.
  public init(contentsOf url: URL) throws(ConfigurationError) {
    let fields = try ConfigurationFields(contentsOf: url)
    transformer = try TransformerConfiguration(fields, className: "QwenImageControlNetModel")
    for field in ["guidance_embeds", "zero_cond_t", "use_additional_t_cond", "use_layer3d_rope"] {
      try fields.requireOff(field)
    }
    extraConditionChannels = try fields.integer("extra_condition_channels", in: 0...65536, default: 0)
  }

  /// Requires that the network's residuals and inputs are those of `transformer`.
  ///
  /// - Parameter file: of this configuration, for errors.
  func requireFit(_ transformer: TransformerConfiguration, file: String) throws(ConfigurationError) {
    let own = self.transformer
    for (field, found, expected) in [
      ("num_attention_heads times attention_head_dim", own.innerDim, transformer.innerDim),
      ("joint_attention_dim", own.jointAttentionDim, transformer.jointAttentionDim),
      ("in_channels", own.inChannels, transformer.inChannels),
    ] where found != expected {
      throw .inconsistent(file: file, reason: "\(field) is \(found), the transformer's \(expected)")
    }
  }
}
