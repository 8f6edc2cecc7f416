/// Checkpoints of other programs, quantised formats and leftovers, recognised by the names of their tensors.
///
/// Without this, a checkpoint of another kind would be refused because of the first tensor that a model misses, which
/// tells its owner nothing.
enum ForeignTensors {
  /// What the names of such checkpoints have in common.
  private struct Convention {
    var prefixes: [String] = []
    var suffixes: [String] = []
    var infixes: [String] = []
    /// What the tensors are.
    let meaning: String
    /// What to do about them.
    let advice: String

    func includes(_ name: String) -> Bool {
      prefixes.contains { name.hasPrefix($0) } || suffixes.contains { name.hasSuffix($0) }
        || infixes.contains { name.contains($0) }
    }
  }

  /// The first name that belongs to a checkpoint of another kind, and what it means. Quantised formats come first:
  /// other names would not help there.
  static func first(in names: [String]) -> (name: String, meaning: String)? {
    for convention in conventions {
      if let name = names.first(where: convention.includes) {
        return (name, "\(convention.meaning); \(convention.advice)")
      }
    }
    return nil
  }

  private static let original = "take the checkpoint in bf16, of which `qwen-image quantize` makes int8 or q4"
  private static let diffusers = "take the model in the diffusers layout, as `hf download Qwen/Qwen-Image` gives it"

  private static let conventions = [
    Convention(
      suffixes: [".weight_scale", ".weight_scale_inv", ".weight_scale_2", ".input_scale"],
      meaning: "is a scale of weights quantised by another program, and nothing says in which format",
      advice: original),
    Convention(
      suffixes: [".absmax", ".nested_absmax", ".quant_map", ".SCB"], infixes: [".quant_state.bitsandbytes__"],
      meaning: "is part of a weight quantised by bitsandbytes", advice: original),
    Convention(
      suffixes: [
        ".qweight", ".qzeros", ".g_idx", ".wscales", ".weight_packed", ".weight._data", ".weight._scale",
        ".weight_qdata",
      ],
      meaning: "is part of a quantised weight (GPTQ, AWQ, Nunchaku, compressed-tensors, quanto or torchao)",
      advice: original),
    Convention(
      prefixes: ["base_model.model.", "lora_unet_", "lora_te_"],
      infixes: [
        ".lora_A.", ".lora_B.", ".lora_down.", ".lora_up.", ".lora_magnitude_vector", ".base_layer.", ".hada_w",
        ".lokr_w",
      ],
      meaning: "belongs to a LoRA adapter",
      advice: "fuse the adapter into the weights and unload it before saving, or remove its tensors"),
    Convention(
      prefixes: [
        "model.diffusion_model.", "diffusion_model.", "first_stage_model.", "cond_stage_model.", "conditioner.",
        "text_encoders.",
      ],
      meaning: "is named as in a ComfyUI single file, where a model's tensors are below model.diffusion_model.",
      advice: diffusers),
    Convention(
      prefixes: ["decoder.middle.", "decoder.upsamples.", "encoder.middle.", "encoder.downsamples."],
      meaning: "is named as in the VAE of Wan and ComfyUI", advice: diffusers),
    Convention(
      prefixes: ["module.", "_orig_mod.", "_fsdp_wrapped_module."],
      meaning: "was saved with the wrapper of torch.compile, DDP or FSDP in its name",
      advice: "save the module inside the wrapper, or take the prefix off"),
  ]
}
