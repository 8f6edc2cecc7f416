import Diffusion
import TensorCore

// MARK: - Transformer

extension ParameterInventory {
  /// The tensors of `transformer/`.
  public init(transformer configuration: TransformerConfiguration) {
    self.init()
    let dim = configuration.innerDim
    transformerTrunk(configuration)
    linear("norm_out.linear", dim, 2 * dim)
    linear(
      "proj_out", dim, configuration.patchSize * configuration.patchSize * configuration.outChannels)
  }

  /// The tensors of a control network.
  public init(controlNetwork configuration: ControlNetworkConfiguration) {
    self.init()
    let dim = configuration.transformer.innerDim
    transformerTrunk(configuration.transformer)
    for index in 0..<configuration.transformer.layerCount { linear("controlnet_blocks.\(index)", dim, dim) }
    linear("controlnet_x_embedder", configuration.conditionChannels, dim)
  }

  private mutating func transformerTrunk(_ configuration: TransformerConfiguration) {
    let dim = configuration.innerDim
    linear("time_text_embed.timestep_embedder.linear_1", 256, dim)
    linear("time_text_embed.timestep_embedder.linear_2", dim, dim)
    if configuration.useAdditionalTCond {
      add("time_text_embed.addition_t_embedding.weight", [TimestepModulation.additionCount, dim])
    }
    add("txt_norm.weight", [configuration.jointAttentionDim])
    linear("img_in", configuration.inChannels, dim)
    linear("txt_in", configuration.jointAttentionDim, dim)
    for index in 0..<configuration.layerCount { transformerBlock("transformer_blocks.\(index)", configuration) }
  }

  private mutating func transformerBlock(_ name: String, _ configuration: TransformerConfiguration) {
    let dim = configuration.innerDim
    linear("\(name).img_mod.1", dim, 6 * dim)
    for norm in ["norm_q", "norm_k"] { add("\(name).attn.\(norm).weight", [configuration.headDim]) }
    for projection in ["to_q", "to_k", "to_v", "add_k_proj", "add_v_proj", "add_q_proj", "to_out.0", "to_add_out"] {
      linear("\(name).attn.\(projection)", dim, dim)
    }
    for norm in ["norm_added_q", "norm_added_k"] { add("\(name).attn.\(norm).weight", [configuration.headDim]) }
    linear("\(name).img_mlp.net.0.proj", dim, 4 * dim)
    linear("\(name).img_mlp.net.2", 4 * dim, dim)
    linear("\(name).txt_mod.1", dim, 6 * dim)
    linear("\(name).txt_mlp.net.0.proj", dim, 4 * dim)
    linear("\(name).txt_mlp.net.2", 4 * dim, dim)
  }
}

// MARK: - Text encoder

extension ParameterInventory {
  /// The tensors of `text_encoder/`: the vision tower's if there is one, the language model's, and the output head's.
  public init(textEncoder configuration: TextEncoderConfiguration, vision: VisionConfiguration? = .published) {
    self.init()
    if let vision { visionTower(vision) }
    let hidden = configuration.hiddenSize
    add("model.embed_tokens.weight", [configuration.vocabularySize, hidden])
    for index in 0..<configuration.layerCount { decoderLayer("model.layers.\(index)", configuration) }
    add("model.norm.weight", [hidden])
    if !configuration.tieWordEmbeddings { add("lm_head.weight", [configuration.vocabularySize, hidden]) }
  }

  private mutating func decoderLayer(_ name: String, _ configuration: TextEncoderConfiguration) {
    let (hidden, inner) = (configuration.hiddenSize, configuration.intermediateSize)
    let keyDim = configuration.keyValueHeadCount * configuration.headDim
    linear("\(name).self_attn.q_proj", hidden, configuration.headCount * configuration.headDim)
    linear("\(name).self_attn.k_proj", hidden, keyDim)
    linear("\(name).self_attn.v_proj", hidden, keyDim)
    linear("\(name).self_attn.o_proj", configuration.headCount * configuration.headDim, hidden, bias: false)
    linear("\(name).mlp.gate_proj", hidden, inner, bias: false)
    linear("\(name).mlp.up_proj", hidden, inner, bias: false)
    linear("\(name).mlp.down_proj", inner, hidden, bias: false)
    add("\(name).input_layernorm.weight", [hidden])
    add("\(name).post_attention_layernorm.weight", [hidden])
  }

  private mutating func visionTower(_ configuration: VisionConfiguration) {
    let (hidden, intermediate) = (configuration.hiddenSize, configuration.intermediateSize)
    let merged = configuration.mergedPatches * hidden, patch = configuration.patchSize
    add(
      "visual.patch_embed.proj.weight",
      [hidden, PatchGeometry.channels, configuration.temporalPatchSize, patch, patch])
    for index in 0..<configuration.depth {
      let name = "visual.blocks.\(index)"
      add("\(name).norm1.weight", [hidden])
      add("\(name).norm2.weight", [hidden])
      linear("\(name).attn.qkv", hidden, 3 * hidden)
      linear("\(name).attn.proj", hidden, hidden)
      linear("\(name).mlp.gate_proj", hidden, intermediate)
      linear("\(name).mlp.up_proj", hidden, intermediate)
      linear("\(name).mlp.down_proj", intermediate, hidden)
    }
    add("visual.merger.ln_q.weight", [hidden])
    linear("visual.merger.mlp.0", merged, merged)
    linear("visual.merger.mlp.2", merged, configuration.outputSize)
  }
}

// MARK: - VAE

extension ParameterInventory {
  /// The tensors of `vae/`, encoder and decoder. None is quantised.
  public init(vae configuration: VAEConfiguration) {
    self.init()
    let z = configuration.zDim
    vaeEncoder(configuration)
    convolution("quant_conv", 2 * z, 2 * z, kernel: [1, 1, 1])
    convolution("post_quant_conv", z, z, kernel: [1, 1, 1])
    vaeDecoder(configuration)
  }

  private mutating func vaeEncoder(_ configuration: VAEConfiguration) {
    let widths = configuration.dimMultipliers.map { $0 * configuration.baseDim }
    convolution("encoder.conv_in", configuration.inputChannels, configuration.baseDim, kernel: [3, 3, 3])
    var (channels, index) = (configuration.baseDim, 0)
    for (level, width) in widths.enumerated() {
      for _ in 0..<configuration.resBlockCount {
        residualBlock("encoder.down_blocks.\(index)", channels, width, hasTimeAxis: true)
        (channels, index) = (width, index + 1)
      }
      guard level + 1 < widths.count else { continue }
      convolution("encoder.down_blocks.\(index).resample.1", channels, channels, kernel: [3, 3])
      if configuration.temporalDownsample[level] {
        convolution("encoder.down_blocks.\(index).time_conv", channels, channels, kernel: [3, 1, 1])
      }
      index += 1
    }
    middleBlock("encoder.mid_block", channels, hasTimeAxis: true)
    add("encoder.norm_out.gamma", [channels, 1, 1, 1])
    convolution("encoder.conv_out", channels, 2 * configuration.zDim, kernel: [3, 3, 3])
  }

  private mutating func vaeDecoder(_ configuration: VAEConfiguration) {
    let widths = configuration.dimMultipliers.reversed().map { $0 * configuration.baseDim }
    var channels = widths[0]
    convolution("decoder.conv_in", configuration.zDim, channels, kernel: [3, 3, 3])
    middleBlock("decoder.mid_block", channels, hasTimeAxis: true)
    for (level, width) in widths.enumerated() {
      let name = "decoder.up_blocks.\(level)"
      for block in 0...configuration.resBlockCount {
        residualBlock("\(name).resnets.\(block)", channels, width, hasTimeAxis: true)
        channels = width
      }
      guard level + 1 < widths.count else { continue }
      convolution("\(name).upsamplers.0.resample.1", width, width / 2, kernel: [3, 3])
      if configuration.temporalDownsample.reversed()[level] {
        convolution("\(name).upsamplers.0.time_conv", width, 2 * width, kernel: [3, 1, 1])
      }
      channels = width / 2
    }
    add("decoder.norm_out.gamma", [channels, 1, 1, 1])
    convolution("decoder.conv_out", channels, configuration.inputChannels, kernel: [3, 3, 3])
  }
}
