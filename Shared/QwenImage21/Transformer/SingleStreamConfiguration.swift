import Diffusion
import Foundation
import TensorCore

/// `transformer/config.json` of the second family: the single-stream transformer (diffusers
/// `QwenImage21Transformer2DModel`).
public struct SingleStreamConfiguration: Sendable, Equatable, Codable {
  /// Channels of a latent token, which are predicted too.
  public var channels: Int
  /// Number of blocks.
  public var layerCount: Int
  /// Width of an attention head.
  public var headDim: Int
  /// Number of attention heads.
  public var headCount: Int
  /// Width of the prompt embeddings.
  public var contextDim: Int
  /// Width of the hidden layer of a block's MLP, in widths of the residual stream.
  public var mlpRatio: Int
  /// Added to the variances of all norms.
  public var normEpsilon: Double
  /// How the head width is shared among the rotary axes frame, row and column.
  public var ropeAxes: [Int]

  /// Width of the residual stream.
  public var innerDim: Int { headDim * headCount }
  /// Width of the hidden layer of a block's MLP.
  public var mlpDim: Int { mlpRatio * innerDim }

  /// The values published with Qwen-Image-2.1 and 2.1-Turbo.
  public static let published = SingleStreamConfiguration(
    channels: 64, layerCount: 32, headDim: 128, headCount: 32, contextDim: 4096, mlpRatio: 3, normEpsilon: 1e-6,
    ropeAxes: [16, 56, 56])

  /// Reads the configuration.
  public init(contentsOf url: URL) throws(ConfigurationError) {
    let fields = try ConfigurationFields(contentsOf: url)
    try fields.require("_class_name", oneOf: ["QwenImage21Transformer2DModel"])
    try fields.requireUnquantised()
    // Latents are not packed: a token is a latent element.
    _ = try fields.integer("patch_size", in: 1...1)
    channels = try fields.integer("in_channels", in: 1...65536)
    layerCount = try fields.integer("num_layers", in: 1...1024)
    headDim = try fields.integer("attention_head_dim", in: 2...1024)
    headCount = try fields.integer("num_attention_heads", in: 1...1024)
    contextDim = try fields.integer("context_in_dim", in: 1...65536)
    mlpRatio = try fields.integer("mlp_ratio", in: 1...64)
    normEpsilon = try fields.number("eps", in: 1e-12...0.1)
    ropeAxes = try fields.integers("axes_dims_rope", count: 3...3, in: 2...1024)
    guard try fields.boolean("causal_condition") else {
      throw fields.outOfRange("causal_condition", false, "true: text and references do not see the image that is made")
    }
    guard ropeAxes.allSatisfy({ $0 % 2 == 0 }), ropeAxes.reduce(0, +) == headDim else {
      throw fields.outOfRange("axes_dims_rope", ropeAxes, "even, and \(headDim) in sum as attention_head_dim is")
    }
    let outChannels = try fields.integer("out_channels", in: 1...65536)
    guard outChannels == channels else {
      throw fields.outOfRange("out_channels", outChannels, "\(channels) as in_channels is")
    }
  }

  init(
    channels: Int, layerCount: Int, headDim: Int, headCount: Int, contextDim: Int, mlpRatio: Int, normEpsilon: Double,
    ropeAxes: [Int]
  ) {
    self.channels = channels
    self.layerCount = layerCount
    self.headDim = headDim
    self.headCount = headCount
    self.contextDim = contextDim
    self.mlpRatio = mlpRatio
    self.normEpsilon = normEpsilon
    self.ropeAxes = ropeAxes
  }

  /// Bytes of the cached keys and values of `tokens` tokens of text and references, of elements of `dtype`.
  public func prefixCacheBytes(tokens: Int, _ dtype: DType) -> Int {
    2 * layerCount * innerDim * tokens * dtype.byteWidth
  }
}

extension ParameterInventory {
  /// The tensors of `transformer/`.
  public init(singleStream configuration: SingleStreamConfiguration) {
    self.init()
    let dim = configuration.innerDim, context = configuration.contextDim
    linear("img_in", configuration.channels, dim, bias: false)
    linear("modulation.1", dim, SharedModulation.vectorCount * dim, bias: false)
    linear("norm_out.linear", dim, dim, bias: false)
    linear("proj_out", dim, configuration.channels, bias: false)
    linear("time_text_embed.timestep_embedder.linear_1", TimestepSinusoid.width, dim, bias: false)
    linear("time_text_embed.timestep_embedder.linear_2", dim, dim, bias: false)
    for index in 0..<configuration.layerCount {
      let block = "transformer_blocks.\(index)"
      for norm in ["norm_q", "norm_k"] { add("\(block).attn.\(norm).weight", [configuration.headDim]) }
      for name in ["to_q", "to_k", "to_v", "to_out.0"] { linear("\(block).attn.\(name)", dim, dim, bias: false) }
      for name in ["gate_layer", "proj"] { linear("\(block).img_mlp.\(name)", dim, configuration.mlpDim, bias: false) }
      linear("\(block).img_mlp.out", configuration.mlpDim, dim, bias: false)
    }
    linear("txt_in.in_layer", context, dim, bias: false)
    linear("txt_in.out_layer", dim, dim, bias: false)
    add("txt_in.text_norm.weight", [context])
  }
}
