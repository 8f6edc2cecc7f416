import Diffusion
import Foundation

/// `transformer/config.json`: the MMDiT (diffusers `QwenImageTransformer2DModel`).
public struct TransformerConfiguration: Sendable, Equatable, Codable {
  /// Latent pixels per token along each side.
  public var patchSize: Int
  /// Channels of a packed token.
  public var inChannels: Int
  /// Latent channels predicted per latent pixel; a token has `outChannels * patchSize * patchSize` of them.
  public var outChannels: Int
  /// Number of double-stream blocks.
  public var layerCount: Int
  /// Width of an attention head.
  public var headDim: Int
  /// Number of attention heads.
  public var headCount: Int
  /// Width of the prompt embeddings.
  public var jointAttentionDim: Int
  /// How the head width is shared among the rotary axes frame, height and width.
  public var ropeAxes: [Int]
  /// Whether the model takes a distilled guidance scale as input.
  public var guidanceEmbeds: Bool
  /// Whether condition images are modulated as at time 0 (Qwen-Image-Edit-2511).
  public var zeroCondT: Bool
  /// Whether an embedding is added to the time embedding (Qwen-Image-Layered).
  public var useAdditionalTCond: Bool
  /// Whether image layers have rotary positions of their own (Qwen-Image-Layered).
  public var useLayer3DRope: Bool

  /// Width of both residual streams.
  public var innerDim: Int { headDim * headCount }

  /// The values published with Qwen-Image, Qwen-Image-2512, -Edit and -Edit-2509.
  public static let published = TransformerConfiguration(
    patchSize: 2, inChannels: 64, outChannels: 16, layerCount: 60, headDim: 128, headCount: 24, jointAttentionDim: 3584,
    ropeAxes: [16, 56, 56], guidanceEmbeds: false, zeroCondT: false, useAdditionalTCond: false, useLayer3DRope: false)

  /// Reads the configuration.
  public init(contentsOf url: URL) throws(ConfigurationError) {
    try self.init(ConfigurationFields(contentsOf: url), className: "QwenImageTransformer2DModel")
  }

  /// Reads the fields of a network of the class `className`.
  init(_ fields: ConfigurationFields, className: String) throws(ConfigurationError) {
    try fields.require("_class_name", oneOf: [className])
    try fields.requireUnquantised()
    patchSize = try fields.integer("patch_size", in: 1...16)
    inChannels = try fields.integer("in_channels", in: 1...65536)
    outChannels = try fields.integer("out_channels", in: 1...1024)
    layerCount = try fields.integer("num_layers", in: 1...1024)
    headDim = try fields.integer("attention_head_dim", in: 2...1024)
    headCount = try fields.integer("num_attention_heads", in: 1...1024)
    jointAttentionDim = try fields.integer("joint_attention_dim", in: 1...65536)
    ropeAxes = try fields.integers("axes_dims_rope", count: 3...3, in: 2...1024)
    guidanceEmbeds = try fields.boolean("guidance_embeds", default: false)
    zeroCondT = try fields.boolean("zero_cond_t", default: false)
    useAdditionalTCond = try fields.boolean("use_additional_t_cond", default: false)
    useLayer3DRope = try fields.boolean("use_layer3d_rope", default: false)

    guard ropeAxes.allSatisfy({ $0 % 2 == 0 }), ropeAxes.reduce(0, +) == headDim else {
      throw fields.outOfRange("axes_dims_rope", ropeAxes, "even, and \(headDim) in sum as attention_head_dim is")
    }
    // The sampler adds the prediction to the packed latents, so both have the same channels.
    guard inChannels == outChannels * patchSize * patchSize else {
      throw fields.outOfRange(
        "in_channels", inChannels, "\(outChannels * patchSize * patchSize), out_channels times patch_size squared")
    }
  }

  init(
    patchSize: Int, inChannels: Int, outChannels: Int, layerCount: Int, headDim: Int, headCount: Int,
    jointAttentionDim: Int,
    ropeAxes: [Int], guidanceEmbeds: Bool, zeroCondT: Bool, useAdditionalTCond: Bool, useLayer3DRope: Bool
  ) {
    self.patchSize = patchSize
    self.inChannels = inChannels
    self.outChannels = outChannels
    self.layerCount = layerCount
    self.headDim = headDim
    self.headCount = headCount
    self.jointAttentionDim = jointAttentionDim
    self.ropeAxes = ropeAxes
    self.guidanceEmbeds = guidanceEmbeds
    self.zeroCondT = zeroCondT
    self.useAdditionalTCond = useAdditionalTCond
    self.useLayer3DRope = useLayer3DRope
  }
}
