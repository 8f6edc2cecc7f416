import Diffusion
import Foundation

/// The files of a checkpoint with random weights besides the weights, as they are published.
enum SyntheticFiles {
  private struct Sizes {
    var layers, heads, headDim, ropeAxes: String
    var vocabulary, hidden, intermediate, encoderLayers, encoderHeads, keyValueHeads: Int
    var mrope: String
    var vaeBaseDim: Int
  }

  private static let published = Sizes(
    layers: "60", heads: "24", headDim: "128", ropeAxes: "[16, 56, 56]", vocabulary: 152_064, hidden: 3584,
    intermediate: 18_944,
    encoderLayers: 28, encoderHeads: 28, keyValueHeads: 4, mrope: "[16, 24, 24]", vaeBaseDim: 96)
  private static let tiny = Sizes(
    layers: "2", heads: "3", headDim: "16", ropeAxes: "[4, 6, 6]", vocabulary: 640, hidden: 64, intermediate: 160,
    encoderLayers: 3,
    encoderHeads: 4, keyValueHeads: 2, mrope: "[2, 3, 3]", vaeBaseDim: 6)

  /// The files by their paths; those of the tokenizer if `withTokenizer`.
  static func files(_ size: SyntheticSize, withTokenizer: Bool) throws -> [String: Data] {
    let sizes =
      switch size {
      case .published: published
      case .tiny: tiny
      }
    let tokenizer = SyntheticTokenizer(vocabularySize: sizes.vocabulary, templateWords: ChatTemplate.words)
    let texts = [
      "model_index.json": modelIndex, "scheduler/scheduler_config.json": scheduler, "vae/config.json": vae(sizes),
      "transformer/config.json": transformer(sizes),
      "text_encoder/config.json": textEncoder(sizes, imageTokenID: tokenizer.imageTokenID),
    ]
    var files = texts.mapValues { Data(($0 + "\n").utf8) }
    if withTokenizer { for (name, data) in try tokenizer.files() { files["tokenizer/\(name)"] = data } }
    return files
  }

  // MARK: - Texts

  private static let modelIndex = """
    {
      "_class_name": "QwenImagePipeline",
      "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
      "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
      "tokenizer": ["transformers", "Qwen2Tokenizer"],
      "transformer": ["diffusers", "QwenImageTransformer2DModel"],
      "vae": ["diffusers", "AutoencoderKLQwenImage"]
    }
    """

  private static let scheduler = """
    {
      "_class_name": "FlowMatchEulerDiscreteScheduler",
      "base_image_seq_len": 256, "max_image_seq_len": 8192, "base_shift": 0.5, "max_shift": 0.9, "shift": 1.0,
      "shift_terminal": 0.02,
      "num_train_timesteps": 1000, "time_shift_type": "exponential", "use_dynamic_shifting": true,
      "invert_sigmas": false, "stochastic_sampling": false, "use_beta_sigmas": false, "use_exponential_sigmas": false,
      "use_karras_sigmas": false
    }
    """

  private static func transformer(_ sizes: Sizes) -> String {
    """
    {
      "_class_name": "QwenImageTransformer2DModel",
      "patch_size": 2, "in_channels": 64, "out_channels": 16, "num_layers": \(sizes.layers),
      "attention_head_dim": \(sizes.headDim),
      "num_attention_heads": \(sizes.heads), "joint_attention_dim": \(sizes.hidden), "guidance_embeds": false,
      "axes_dims_rope": \(sizes.ropeAxes)
    }
    """
  }

  private static func textEncoder(_ sizes: Sizes, imageTokenID: Int) -> String {
    """
    {
      "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl",
      "hidden_size": \(sizes.hidden), "intermediate_size": \(sizes.intermediate),
      "num_hidden_layers": \(sizes.encoderLayers),
      "num_attention_heads": \(sizes.encoderHeads), "num_key_value_heads": \(sizes.keyValueHeads), "hidden_act": "silu",
      "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "max_position_embeddings": 128000,
      "vocab_size": \(sizes.vocabulary),
      "rope_scaling": {"mrope_section": \(sizes.mrope), "rope_type": "default", "type": "default"},
      "tie_word_embeddings": false, "use_sliding_window": false, "image_token_id": \(imageTokenID),
      "torch_dtype": "bfloat16"
    }
    """
  }

  private static func vae(_ sizes: Sizes) -> String {
    """
    {
      "_class_name": "AutoencoderKLQwenImage",
      "base_dim": \(sizes.vaeBaseDim), "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2,
      "attn_scales": [], "dropout": 0.0,
      "temperal_downsample": [false, true, true],
      "latents_mean": \(VAEConfiguration.published.latentsMean),
      "latents_std": \(VAEConfiguration.published.latentsStd)
    }
    """
  }
}
