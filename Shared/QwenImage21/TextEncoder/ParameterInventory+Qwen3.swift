import Diffusion
import TensorCore

extension ParameterInventory {
  /// The tensors of `text_encoder/`: the vision tower's, the language model's, and the output head's.
  public init(qwen3 configuration: Qwen3TextConfiguration, vision: Qwen3VisionConfiguration = .published) {
    self.init()
    visionTower(vision)
    let hidden = configuration.hiddenSize, prefix = "model.language_model"
    add("\(prefix).embed_tokens.weight", [configuration.vocabularySize, hidden])
    for index in 0..<configuration.layerCount { decoderLayer("\(prefix).layers.\(index)", configuration) }
    add("\(prefix).norm.weight", [hidden])
    if !configuration.tieWordEmbeddings { add("lm_head.weight", [configuration.vocabularySize, hidden]) }
  }

  private mutating func decoderLayer(_ name: String, _ configuration: Qwen3TextConfiguration) {
    let (hidden, inner, headDim) = (configuration.hiddenSize, configuration.intermediateSize, configuration.headDim)
    let (queryDim, keyDim) = (configuration.headCount * headDim, configuration.keyValueHeadCount * headDim)
    linear("\(name).self_attn.q_proj", hidden, queryDim, bias: false)
    linear("\(name).self_attn.k_proj", hidden, keyDim, bias: false)
    linear("\(name).self_attn.v_proj", hidden, keyDim, bias: false)
    linear("\(name).self_attn.o_proj", queryDim, hidden, bias: false)
    for norm in ["q_norm", "k_norm"] { add("\(name).self_attn.\(norm).weight", [headDim]) }
    linear("\(name).mlp.gate_proj", hidden, inner, bias: false)
    linear("\(name).mlp.up_proj", hidden, inner, bias: false)
    linear("\(name).mlp.down_proj", inner, hidden, bias: false)
    for norm in ["input_layernorm", "post_attention_layernorm"] { add("\(name).\(norm).weight", [hidden]) }
  }

  private mutating func visionTower(_ configuration: Qwen3VisionConfiguration) {
    let hidden = configuration.hiddenSize, patch = configuration.patchSize, prefix = "model.visual"
    let merged = configuration.geometry.mergedPatches * hidden
    convolution(
      "\(prefix).patch_embed.proj", PatchGeometry.channels, hidden,
      kernel: [configuration.temporalPatchSize, patch, patch])
    add("\(prefix).pos_embed.weight", [configuration.positionSide * configuration.positionSide, hidden])
    for index in 0..<configuration.depth {
      let name = "\(prefix).blocks.\(index)"
      for norm in ["norm1", "norm2"] { affine("\(name).\(norm)", hidden) }
      linear("\(name).attn.qkv", hidden, 3 * hidden)
      linear("\(name).attn.proj", hidden, hidden)
      linear("\(name).mlp.linear_fc1", hidden, configuration.intermediateSize)
      linear("\(name).mlp.linear_fc2", configuration.intermediateSize, hidden)
    }
    let mergers =
      [("merger", hidden)] + configuration.deepStackBlocks.indices.map { ("deepstack_merger_list.\($0)", merged) }
    for (name, norm) in mergers {
      affine("\(prefix).\(name).norm", norm)
      linear("\(prefix).\(name).linear_fc1", merged, merged)
      linear("\(prefix).\(name).linear_fc2", merged, configuration.outputSize)
    }
  }

  private mutating func affine(_ name: String, _ width: Int) {
    add("\(name).weight", [width])
    add("\(name).bias", [width])
  }
}
