import Diffusion
import Foundation

/// The files of a checkpoint with random weights besides the weights, as they are published.
enum SyntheticFiles {
  /// Releases that differ in more than their weights.
  enum Release: String, CaseIterable {
    case textToImage = "qwen-image"
    case edit = "qwen-image-edit"
    case edit2509 = "qwen-image-edit-2509"
    case edit2511 = "qwen-image-edit-2511"
    case layered = "qwen-image-layered"

    var pipelineClass: String {
      switch self {
      case .textToImage: "QwenImagePipeline"
      case .edit: "QwenImageEditPipeline"
      case .edit2509, .edit2511: "QwenImageEditPlusPipeline"
      case .layered: "QwenImageLayeredPipeline"
      }
    }

    var isForEditing: Bool { [.edit, .edit2509, .edit2511].contains(self) }
  }

  private struct Sizes {
    var layers, heads, headDim, ropeAxes: String
    var vocabulary, hidden, intermediate, encoderLayers, encoderHeads, keyValueHeads: Int
    var mrope: String
    var vaeBaseDim: Int
    var vision: VisionConfiguration
  }

  private static let published = Sizes(
    layers: "60", heads: "24", headDim: "128", ropeAxes: "[16, 56, 56]", vocabulary: 152_064, hidden: 3584,
    intermediate: 18_944,
    encoderLayers: 28, encoderHeads: 28, keyValueHeads: 4, mrope: "[16, 24, 24]", vaeBaseDim: 96,
    vision: .published)
  private static let tiny = Sizes(
    layers: "2", heads: "3", headDim: "16", ropeAxes: "[4, 6, 6]", vocabulary: 640, hidden: 64, intermediate: 160,
    encoderLayers: 3,
    encoderHeads: 4, keyValueHeads: 2, mrope: "[2, 3, 3]", vaeBaseDim: 6,
    vision: VisionConfiguration(
      depth: 4, hiddenSize: 32, intermediateSize: 42, headCount: 2, patchSize: 14, temporalPatchSize: 2, mergeSize: 2,
      windowSize: 112, fullAttentionBlocks: [1, 3], outputSize: 64))
  /// Rows for the words of the template for editing, too.
  private static let tinyEditingVocabulary = 1024

  /// The files by their paths; those of the tokenizer if `withTokenizer`.
  static func files(_ size: SyntheticSize, _ release: Release, withTokenizer: Bool) throws -> [String: Data] {
    var sizes =
      switch size {
      case .published: published
      case .tiny: tiny
      }
    if release.isForEditing { sizes.vocabulary = max(sizes.vocabulary, tinyEditingVocabulary) }
    let tokenizer = SyntheticTokenizer(
      vocabularySize: sizes.vocabulary,
      templateWords: ChatTemplate.textToImage.words + (release.isForEditing ? ChatTemplate.editing.words : []))
    var texts = [
      "model_index.json": modelIndex(release), "scheduler/scheduler_config.json": scheduler(release),
      "vae/config.json": vae(sizes, channels: release == .layered ? 4 : 3),
      "transformer/config.json": transformer(sizes, release),
      "text_encoder/config.json": textEncoder(
        sizes, imageTokenID: tokenizer.imageTokenID, vision: release.isForEditing ? sizes.vision : nil),
    ]
    if release.isForEditing { texts["processor/preprocessor_config.json"] = processor(sizes.vision) }
    var files = texts.mapValues { Data(($0 + "\n").utf8) }
    if withTokenizer { for (name, data) in try tokenizer.files() { files["tokenizer/\(name)"] = data } }
    return files
  }

  // MARK: - Texts

  private static func modelIndex(_ release: Release) -> String {
    """
    {
      "_class_name": "\(release.pipelineClass)",\
    \(release.isForEditing ? "\n  \"processor\": [\"transformers\", \"Qwen2VLProcessor\"]," : "")
      "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
      "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
      "tokenizer": ["transformers", "Qwen2Tokenizer"],
      "transformer": ["diffusers", "QwenImageTransformer2DModel"],
      "vae": ["diffusers", "AutoencoderKLQwenImage"]
    }
    """
  }

  private static func scheduler(_ release: Release) -> String {
    """
    {
      "_class_name": "FlowMatchEulerDiscreteScheduler",
      "base_image_seq_len": 256, "max_image_seq_len": 8192, "base_shift": 0.5, "max_shift": 0.9, "shift": 1.0,
      "shift_terminal": \(release == .layered ? "false" : "0.02"),
      "num_train_timesteps": 1000, "time_shift_type": "\(release == .layered ? "linear" : "exponential")",
      "use_dynamic_shifting": true,
      "invert_sigmas": false, "stochastic_sampling": false, "use_beta_sigmas": false, "use_exponential_sigmas": false,
      "use_karras_sigmas": false
    }
    """
  }

  private static func transformer(_ sizes: Sizes, _ release: Release) -> String {
    let flags: [String] =
      switch release {
      case .textToImage, .edit, .edit2509: []
      case .edit2511: ["zero_cond_t"]
      case .layered: ["use_additional_t_cond", "use_layer3d_rope"]
      }
    return """
      {
        "_class_name": "QwenImageTransformer2DModel",
        "patch_size": 2, "in_channels": 64, "out_channels": 16, "num_layers": \(sizes.layers),
        "attention_head_dim": \(sizes.headDim),
        "num_attention_heads": \(sizes.heads), "joint_attention_dim": \(sizes.hidden), "guidance_embeds": false,
        "axes_dims_rope": \(sizes.ropeAxes)\(flags.map { ",\n  \"\($0)\": true" }.joined())
      }
      """
  }

  private static func textEncoder(_ sizes: Sizes, imageTokenID: Int, vision: VisionConfiguration?) -> String {
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
      "torch_dtype": "bfloat16"\(vision.map { ",\n  \"vision_config\": \(visionConfiguration($0))" } ?? "")
    }
    """
  }

  private static func visionConfiguration(_ vision: VisionConfiguration) -> String {
    """
    {
        "depth": \(vision.depth), "hidden_size": \(vision.hiddenSize), "intermediate_size": \(vision.intermediateSize),
        "num_heads": \(vision.headCount), "hidden_act": "silu", "in_chans": 3, "out_hidden_size": \(vision.outputSize),
        "patch_size": \(vision.patchSize), "temporal_patch_size": \(vision.temporalPatchSize),
        "spatial_merge_size": \(vision.mergeSize), "window_size": \(vision.windowSize),
        "fullatt_block_indexes": \(vision.fullAttentionBlocks)
      }
    """
  }

  private static func processor(_ vision: VisionConfiguration) -> String {
    let images = ImageProcessorConfiguration.published
    return """
      {
        "image_processor_type": "Qwen2VLImageProcessor",
        "do_convert_rgb": true, "do_normalize": true, "do_rescale": true, "do_resize": true, "resample": 3,
        "image_mean": \(images.mean), "image_std": \(images.standardDeviation),
        "rescale_factor": \(images.rescaleFactor), "min_pixels": \(images.minPixels), "max_pixels": \(images.maxPixels),
        "patch_size": \(vision.patchSize), "temporal_patch_size": \(vision.temporalPatchSize),
        "merge_size": \(vision.mergeSize)
      }
      """
  }

  private static func vae(_ sizes: Sizes, channels: Int) -> String {
    // As published: absent for RGB.
    let input = channels == 3 ? "" : ",\n  \"input_channels\": \(channels)"
    return """
      {
        "_class_name": "AutoencoderKLQwenImage",
        "base_dim": \(sizes.vaeBaseDim), "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2,
        "attn_scales": [], "dropout": 0.0,
        "temperal_downsample": [false, true, true],
        "latents_mean": \(VAEConfiguration.published.latentsMean),
        "latents_std": \(VAEConfiguration.published.latentsStd)\(input)
      }
      """
  }
}
