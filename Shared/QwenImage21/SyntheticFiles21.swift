import Diffusion
import Foundation

/// The files of a checkpoint with random weights besides the weights, as they are published.
enum SyntheticFiles21 {
  /// Releases that differ in more than their weights.
  enum Release: String, CaseIterable {
    case base = "qwen-image-2.1"
    case turbo = "qwen-image-2.1-turbo"

    /// The noise levels of the steps that a distilled release was trained for; nil: they are evenly spaced.
    var sampleSigmas: [Double]? {
      switch self {
      case .base: nil
      case .turbo: [1.0, 0.978453, 0.95418, 0.926626, 0.89508, 0.845148, 0.704534, 0.414568]
      }
    }
  }

  private struct Sizes {
    var layers, heads, headDim, ropeAxes: String
    var vocabulary, hidden, intermediate, textLayers, textHeads, keyValueHeads, textHeadDim: Int
    var mrope: String
    var visionDepth, visionWidth, visionInner, visionHeads, positions: Int
    var deepStack: String
    var vaeBaseDim, vaeDecoderDim, minPixels: Int
  }

  private static let published = Sizes(
    layers: "32", heads: "32", headDim: "128", ropeAxes: "[16, 56, 56]", vocabulary: 151_936, hidden: 4096,
    intermediate: 12_288, textLayers: 36, textHeads: 32, keyValueHeads: 8, textHeadDim: 128, mrope: "[24, 20, 20]",
    visionDepth: 27, visionWidth: 1152, visionInner: 4304, visionHeads: 16, positions: 2304, deepStack: "[8, 16, 24]",
    vaeBaseDim: 96, vaeDecoderDim: 144, minPixels: 65_536)
  private static let tiny = Sizes(
    layers: "3", heads: "5", headDim: "16", ropeAxes: "[4, 6, 6]", vocabulary: 576, hidden: 48, intermediate: 112,
    textLayers: 4, textHeads: 4, keyValueHeads: 2, textHeadDim: 16, mrope: "[4, 2, 2]", visionDepth: 4,
    visionWidth: 32, visionInner: 52, visionHeads: 2, positions: 36, deepStack: "[1, 2]", vaeBaseDim: 3,
    vaeDecoderDim: 4, minPixels: 1024)

  /// The files by their paths; those of the tokenizer if `withTokenizer`.
  static func files(_ size: SyntheticSize, _ release: Release, withTokenizer: Bool) throws -> [String: Data] {
    let sizes =
      switch size {
      case .published: published
      case .tiny: tiny
      }
    let tokenizer = SyntheticTokenizer(
      vocabularySize: sizes.vocabulary, templateWords: templateWords, addedTokens: SyntheticTokenizer.qwen3AddedTokens)
    let texts = [
      "model_index.json": modelIndex(release), "scheduler/scheduler_config.json": scheduler(release),
      "vae/config.json": vae(sizes), "transformer/config.json": transformer(sizes),
      "processor/preprocessor_config.json": processor(sizes),
      "text_encoder/config.json": textEncoder(sizes, imageTokenID: tokenizer.imageTokenID),
    ]
    var files = texts.mapValues { Data(($0 + "\n").utf8) }
    if withTokenizer { for (name, data) in try tokenizer.files() { files["processor/\(name)"] = data } }
    return files
  }

  /// The published tokenizer has three tokens for the only long word of the template. They come last, so that their
  /// merges do not apply within the other words.
  private static let templateWords =
    Qwen3Template.words.filter { $0 != Array("Comprehend".utf8) } + ["Com", "prehen", "d"].map { Array($0.utf8) }

  // MARK: - Texts

  private static func modelIndex(_ release: Release) -> String {
    """
    {
      "_class_name": "QwenImage21Pipeline",
      "processor": ["transformers", "Qwen3VLProcessor"],\
    \(release.sampleSigmas.map { "\n  \"sample_sigmas\": \($0)," } ?? "")
      "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
      "text_encoder": ["transformers", "Qwen3VLForConditionalGeneration"],
      "transformer": ["diffusers", "QwenImage21Transformer2DModel"],
      "vae": ["diffusers", "AutoencoderKLQwenImage21"]
    }
    """
  }

  /// Noise levels that a release fixes are neither shifted nor stretched.
  private static func scheduler(_ release: Release) -> String {
    let isFixed = release.sampleSigmas != nil
    return """
      {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "base_image_seq_len": 256, "max_image_seq_len": 8192, "base_shift": 0.5, "max_shift": 0.9, "shift": 1.0,
        "shift_terminal": \(isFixed ? "null" : "0.02"), "num_train_timesteps": 1000,
        "time_shift_type": "exponential", "use_dynamic_shifting": \(!isFixed)
      }
      """
  }

  private static func transformer(_ sizes: Sizes) -> String {
    """
    {
      "_class_name": "QwenImage21Transformer2DModel",
      "patch_size": 1, "in_channels": 64, "out_channels": 64, "num_layers": \(sizes.layers),
      "attention_head_dim": \(sizes.headDim), "num_attention_heads": \(sizes.heads),
      "context_in_dim": \(sizes.hidden), "mlp_ratio": 3, "eps": 1e-06, "causal_condition": true,
      "axes_dims_rope": \(sizes.ropeAxes)
    }
    """
  }

  private static func textEncoder(_ sizes: Sizes, imageTokenID: Int) -> String {
    """
    {
      "architectures": ["Qwen3VLForConditionalGeneration"], "model_type": "qwen3_vl", "dtype": "bfloat16",
      "image_token_id": \(imageTokenID), "tie_word_embeddings": false,
      "text_config": {
        "model_type": "qwen3_vl_text", "hidden_size": \(sizes.hidden), "intermediate_size": \(sizes.intermediate),
        "num_hidden_layers": \(sizes.textLayers), "num_attention_heads": \(sizes.textHeads),
        "num_key_value_heads": \(sizes.keyValueHeads), "head_dim": \(sizes.textHeadDim), "hidden_act": "silu",
        "attention_bias": false, "rms_norm_eps": 1e-06, "rope_theta": 5000000, "max_position_embeddings": 262144,
        "vocab_size": \(sizes.vocabulary),
        "rope_scaling": {"mrope_interleaved": true, "mrope_section": \(sizes.mrope), "rope_type": "default"}
      },
      "vision_config": {
        "model_type": "qwen3_vl", "depth": \(sizes.visionDepth), "hidden_size": \(sizes.visionWidth),
        "intermediate_size": \(sizes.visionInner), "num_heads": \(sizes.visionHeads), "in_channels": 3,
        "patch_size": 16, "temporal_patch_size": 2, "spatial_merge_size": 2,
        "num_position_embeddings": \(sizes.positions), "deepstack_visual_indexes": \(sizes.deepStack),
        "out_hidden_size": \(sizes.hidden), "hidden_act": "gelu_pytorch_tanh"
      }
    }
    """
  }

  private static func processor(_ sizes: Sizes) -> String {
    """
    {
      "image_processor_type": "Qwen2VLImageProcessorFast", "processor_class": "Qwen3VLProcessor",
      "size": {"shortest_edge": \(sizes.minPixels), "longest_edge": 16777216},
      "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2,
      "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]
    }
    """
  }

  private static func vae(_ sizes: Sizes) -> String {
    """
    {
      "_class_name": "AutoencoderKLQwenImage21",
      "base_dim": \(sizes.vaeBaseDim), "decoder_base_dim": \(sizes.vaeDecoderDim), "z_dim": 64,
      "dim_mult": [1, 2, 4, 8, 8], "num_res_blocks": 2, "attn_scales": [], "dropout": 0.0,
      "temperal_downsample": [false, true, true, true], "is_residual": true, "in_channels": 4, "out_channels": 4,
      "patch_size": null, "scale_factor_spatial": 16, "scale_factor_temporal": 8,
      "latents_mean": \(ResidualVAEConfiguration.published.latentsMean),
      "latents_std": \(ResidualVAEConfiguration.published.latentsStd)
    }
    """
  }
}
