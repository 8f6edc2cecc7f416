import Diffusion
import Foundation
import GoldenSupport
import ModelRegistry
import QwenImage
import TensorCore
import Testing
import Weights

@Suite struct ConfigurationTests {
  private let checkpoint = golden.appending(path: "tiny/checkpoint")

  @Test func readsTheTinyCheckpoint() throws {
    let model = try ModelDirectory(checkpoint)
    #expect(model.className == "QwenImagePipeline")
    #expect(model.scheduler == .published)
    #expect(model.qwenImage.textEncoder.mropeSection == [2, 3, 3])
    #expect(model.qwenImage.textEncoder.headDim == 16)
    #expect(model.qwenImage.textEncoder.imageTokenID == 579)
    #expect(model.qwenImage.transformer.innerDim == 48)
    #expect(
      model.qwenImage.vae.baseDim == 6 && model.qwenImage.vae.inputChannels == 3
        && model.qwenImage.vae.spatialScale == 8)
    #expect(model.qwenImage.vae.latentsMean == VAEConfiguration.published.latentsMean)
    #expect(model.qwenImage.vae.latentsStd == VAEConfiguration.published.latentsStd)
    #expect(try model.weights(of: .textEncoder).tensor("model.embed_tokens.weight", [640, 64]).dtype == .bf16)
  }

  @Test func readsPublishedValues() throws {
    let directory = try TemporaryDirectory()
    let transformer = try directory.write(
      """
      {"_class_name":"QwenImageTransformer2DModel","attention_head_dim":128,"axes_dims_rope":[16,
      56,56],"guidance_embeds":false,
       "in_channels":64,"joint_attention_dim":3584,"num_attention_heads":24,
       "num_layers":60,"out_channels":16,"patch_size":2,
       "pooled_projection_dim":768}
      """, as: "transformer.json")
    #expect(try TransformerConfiguration(contentsOf: transformer) == .published)
    let text =
      #""hidden_size":3584,"intermediate_size":18944,"num_hidden_layers":28,"#
      + #""num_attention_heads":28,"num_key_value_heads":4,"#
      + #""rms_norm_eps":1e-06,"vocab_size":152064,"max_position_embeddings":128000,"#
      + #""hidden_act":"silu","use_sliding_window":false"#
    let flat = try directory.write(
      #"{"model_type":"qwen2_5_vl",\#(text),"rope_theta":1000000.0,"tie_word_embeddings":false,"#
        + #""rope_scaling":{"mrope_section":[16,24,24],"rope_type":"default","type":"default"},"#
        + #""image_token_id":151655}"#,
      as: "flat.json")
    let nested = try directory.write(
      #"{"model_type":"qwen2_5_vl","text_config":{\#(text),"#
        + #""rope_parameters":{"mrope_section":[16,24,24],"rope_theta":1000000.0,"#
        + #""rope_type":"default"}},"image_token_id":151655}"#,
      as: "nested.json")
    #expect(try TextEncoderConfiguration(contentsOf: flat) == .published)
    #expect(try TextEncoderConfiguration(contentsOf: nested) == .published)
  }

  /// A file of the tiny checkpoint, a textual change to it, and what the error must name.
  private static let broken: [(file: String, old: String, new: String, names: String)] = [
    (
      "model_index.json", "QwenImagePipeline", "QwenImageVideoPipeline",
      #"_class_name "QwenImageVideoPipeline" is not supported, supported: QwenImagePipeline"#
    ),
    ("model_index.json", "AutoencoderKLQwenImage", "AutoencoderKL", "vae \"AutoencoderKL\""),
    ("model_index.json", "\"vae\"", "\"vea\"", "vae is missing"),
    ("transformer/config.json", "\"num_layers\": 2", "\"num_layers\": 0", "num_layers is 0, must be in 1...1024"),
    (
      "transformer/config.json", "\"num_layers\": 2", "\"num_layers\": 2.5",
      "num_layers is a number, expected an integer"
    ),
    (
      "transformer/config.json", "\"num_layers\": 2", "\"num_layers\": \"2\"",
      "num_layers is a string, expected an integer"
    ),
    ("transformer/config.json", "\"num_layers\": 2", "\"num_layers\": null", "num_layers is missing"),
    ("transformer/config.json", "\"num_layers\": 2", "\"num_layers\": 99999999999999999999", "num_layers"),
    ("transformer/config.json", "\"num_layers\": 2,", "", "num_layers is missing"),
    (
      "transformer/config.json", "\"num_layers\": 2,", "\"num_layers\": 2,\"num_layers\": 2,",
      "duplicate key \"num_layers\""
    ),
    (
      "transformer/config.json", "\"num_attention_heads\": 3", "\"num_attention_heads\": -3",
      "num_attention_heads is -3"
    ),
    ("transformer/config.json", "\"in_channels\": 64", "\"in_channels\": 68", "in_channels is 68, must be 64"),
    (
      "transformer/config.json", "\"guidance_embeds\": false", "\"guidance_embeds\": true",
      "guidance_embeds true is not supported"
    ),
    ("transformer/config.json", "\"guidance_embeds\": false", "\"guidance_embeds\": 0", "guidance_embeds is a number"),
    (
      "transformer/config.json", "\"guidance_embeds\": false", "\"zero_cond_t\": \"true\"",
      "zero_cond_t is a string, expected a boolean"
    ),
    ("transformer/config.json", "    4,\n    6,", "    5,\n    5,", "axes_dims_rope is [5, 5, 6]"),
    ("transformer/config.json", "    4,\n", "", "axes_dims_rope is 2 elements long, must be 3"),
    (
      "transformer/config.json", "\"joint_attention_dim\": 64", "\"joint_attention_dim\": 65",
      "the text encoder's hidden_size 64"
    ),
    ("transformer/config.json", "{", "[{", "expected"),
    ("vae/config.json", "\"z_dim\": 16", "\"z_dim\": 15", "latents_mean is 16 elements long, must be 15"),
    ("vae/config.json", "2.8184", "0", "latents_std[0] is 0.0"),
    ("vae/config.json", "2.8184", "\"2\"", "latents_std[0] is a string"),
    ("vae/config.json", "\"attn_scales\": []", "\"attn_scales\": [1.0]", "attn_scales"),
    ("vae/config.json", "    false,\n", "", "temperal_downsample is 2 elements long"),
    (
      "vae/config.json", "{", #"{"quantization_config": {"quant_method": "torchao", "quant_type": "int8wo"},"#,
      #"quantization_config "torchao" is not supported, supported: checkpoints in bf16"#
    ),
    (
      "text_encoder/config.json", "\"text_config\": {",
      #""text_config": {"quantization_config": {"load_in_8bit": true},"#,
      "text_config.quantization_config without quant_method (8 bits) is not supported"
    ),
    ("transformer/config.json", "\"num_layers\": 2,", "\"num_layers\": 2,,", "expected a string as key in line "),
    (
      "text_encoder/config.json", "\"num_attention_heads\": 4", "\"num_attention_heads\": 5",
      "num_attention_heads is 5, must be a divisor"
    ),
    (
      "text_encoder/config.json", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3",
      "num_key_value_heads is 3, must be a divisor"
    ),
    ("text_encoder/config.json", "\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 0", "text_config.rms_norm_eps is 0.0"),
    (
      "text_encoder/config.json", "\"rope_type\": \"default\"", "\"rope_type\": \"yarn\"",
      "text_config.rope_scaling.rope_type \"yarn\""
    ),
    ("text_encoder/config.json", "      3,\n", "      4,\n", "mrope_section is [2, 4, 3], must be 8 in sum"),
    (
      "text_encoder/config.json", "\"use_sliding_window\": false", "\"use_sliding_window\": true",
      "use_sliding_window true"
    ),
    ("text_encoder/config.json", "\"silu\"", "\"gelu\"", "hidden_act \"gelu\""),
    (
      "text_encoder/config.json", "\"image_token_id\": 579", "\"image_token_id\": 640",
      "image_token_id is 640, must be in 0...639"
    ),
    (
      "text_encoder/config.json", "\"text_config\": {", "\"text_config\": 1, \"x\": {",
      "text_config is a number, expected an object"
    ),
    (
      "scheduler/scheduler_config.json", "\"shift_terminal\": 0.02", "\"shift_terminal\": true",
      "shift_terminal is a boolean"
    ),
    ("scheduler/scheduler_config.json", "\"shift_terminal\": 0.02", "\"shift_terminal\": 1.5", "shift_terminal is 1.5"),
    (
      "scheduler/scheduler_config.json", "\"max_image_seq_len\": 8192", "\"max_image_seq_len\": 256",
      "must be above base_image_seq_len 256"
    ),
    ("scheduler/scheduler_config.json", "\"max_shift\": 0.9", "\"max_shift\": 1000", "max_shift is 1000.0"),
    ("scheduler/scheduler_config.json", "\"exponential\"", "\"cosine\"", "time_shift_type \"cosine\""),
    (
      "scheduler/scheduler_config.json", "\"use_karras_sigmas\": false", "\"use_karras_sigmas\": true",
      "use_karras_sigmas true"
    ),
    ("scheduler/scheduler_config.json", "FlowMatchEulerDiscreteScheduler", "EulerDiscreteScheduler", "_class_name"),
  ]

  private static let files = [
    "model_index.json", "transformer/config.json", "vae/config.json", "text_encoder/config.json",
    "scheduler/scheduler_config.json",
  ]

  private func copyOfConfigurations(to directory: borrowing TemporaryDirectory) throws {
    for file in Self.files {
      _ = try directory.write(try String(contentsOf: checkpoint.appending(path: file), encoding: .utf8), as: file)
    }
  }

  @Test(arguments: broken.indices) func namesFileAndField(index: Int) throws {
    let (file, old, new, names) = Self.broken[index]
    let directory = try TemporaryDirectory()
    try copyOfConfigurations(to: directory)
    let text = try String(contentsOf: checkpoint.appending(path: file), encoding: .utf8)
    try #require(text.contains(old))
    _ = try directory.write(text.replacingOccurrences(of: old, with: new), as: file)
    let error = #expect(throws: ConfigurationError.self) { try ModelDirectory(directory.url) }
    let message = try #require(error).description
    #expect(message.contains(file) && message.contains(names), "\(message)")
  }

  @Test(arguments: files) func namesMissingFiles(file: String) throws {
    let directory = try TemporaryDirectory()
    try copyOfConfigurations(to: directory)
    try FileManager.default.removeItem(at: directory.url.appending(path: file))
    let error = #expect(throws: ConfigurationError.self) { try ModelDirectory(directory.url) }
    #expect(error?.description.contains(file) == true)
  }

  @Test func mutationsNeverCrash() throws {
    let directory = try TemporaryDirectory()
    try copyOfConfigurations(to: directory)
    var generator = SeededGenerator(state: 4)
    var refused = 0
    for file in Self.files {
      let original = Array(try Data(contentsOf: checkpoint.appending(path: file)))
      for _ in 0..<200 {
        var bytes = original
        for _ in 0..<Int.random(in: 1...3, using: &generator) {
          bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
        }
        try Data(bytes).write(to: directory.url.appending(path: file))
        do { _ = try ModelDirectory(directory.url).fingerprint } catch { refused += 1 }
      }
      try Data(original).write(to: directory.url.appending(path: file))
    }
    #expect(refused > 500)
    _ = try ModelDirectory(directory.url)
  }

  /// What the checkpoints of Qwen-Image-Edit-2511 and Qwen-Image-Layered turn on.
  @Test func acceptsWhatIsImplemented() throws {
    for field in ["zero_cond_t", "use_additional_t_cond", "use_layer3d_rope"] {
      let directory = try TemporaryDirectory()
      try copyOfConfigurations(to: directory)
      let file = "transformer/config.json"
      let text = try String(contentsOf: checkpoint.appending(path: file), encoding: .utf8)
      _ = try directory.write(
        text.replacingOccurrences(of: "\"guidance_embeds\": false", with: "\"\(field)\": true"), as: file)
      let model = try ModelDirectory(directory.url), isLayered = field == "use_layer3d_rope"
      #expect(model.scheduler.shiftRule == (isLayered ? .squareRoot : .line))
      #expect(try model.fingerprint != ModelDirectory(checkpoint).fingerprint)
    }
  }

  @Test func lightningSettings() {
    let lightning = SchedulerConfiguration.published.lightning
    #expect(lightning.shiftTerminal == nil && lightning.baseShift == lightning.maxShift)
  }

  @Test func shiftTerminalMayBeSwitchedOff() throws {
    let directory = try TemporaryDirectory()
    for off in ["false", "null", "0", "0.0"] {
      let url = try directory.write(
        "{\"shift_terminal\": \(off), \"time_shift_type\": \"linear\"}", as: "scheduler.json")
      let configuration = try SchedulerConfiguration(contentsOf: url)
      #expect(configuration.shiftTerminal == nil)
      #expect(configuration.timeShiftType == .linear)
    }
  }
}

@Suite struct FingerprintTests {
  /// Jobs and caches of earlier releases name checkpoints so.
  @Test func isThatOfEarlierReleases() throws {
    let nano = golden.deletingLastPathComponent().deletingLastPathComponent().appending(
      path: "compose/models/nano-qwen-image")
    for (checkpoint, expected) in [
      (Golden.tinyCheckpoint, "eacc2e143ca43a9749874fee682df10f3c4f6fb54e0a896feb23c1faec4f8aa9"),
      (nano, "1c133f5405870bf4aa5ee67de999b0ff40720035104247b87169c62dfee505c6"),
    ] {
      let fingerprint = try ModelDirectory(checkpoint).fingerprint
      #expect(fingerprint == expected, "\(checkpoint.lastPathComponent)")
    }
  }

  @Test func dependsOnMeaningOnly() throws {
    let directory = try TemporaryDirectory()
    let source = golden.appending(path: "tiny/checkpoint")
    let copy = directory.url.appending(path: "copy")
    try FileManager.default.copyItem(at: source, to: copy)
    let original = try ModelDirectory(source)
    #expect(original.fingerprint.count == 64)
    let scheduler = copy.appending(path: "scheduler/scheduler_config.json")
    let text = try String(contentsOf: scheduler, encoding: .utf8)
    try Data(text.replacingOccurrences(of: "0.36.0.dev0", with: "1.0").replacingOccurrences(of: "\n", with: "").utf8)
      .write(to: scheduler)
    #expect(try ModelDirectory(copy).fingerprint == original.fingerprint)
    try Data(text.replacingOccurrences(of: "0.02", with: "0.03").utf8).write(to: scheduler)
    #expect(try ModelDirectory(copy).fingerprint != original.fingerprint)
  }

  @Test func seesWeightsNotTheirFiles() throws {
    let directory = try TemporaryDirectory()
    let source = golden.appending(path: "tiny/checkpoint")
    let copy = directory.url.appending(path: "copy")
    try FileManager.default.copyItem(at: source, to: copy)
    let original = try ModelDirectory(source)
    let model = try ModelDirectory(copy)
    for component in ModelComponent.all {
      #expect(try model.componentFingerprint(component) == original.componentFingerprint(component), "\(component)")
    }
    // The same weights in one file instead of six, then with one element of one tensor changed.
    let weights = try original.weights(of: .transformer)
    var tensors: [(name: String, tensor: Tensor)] = []
    for name in weights.names {
      tensors.append((name, try weights.tensor(name, try #require(weights.entry(name)).shape)))
    }
    let transformer = model.url(of: .transformer)
    try FileManager.default.removeItem(
      at: transformer.appending(path: "diffusion_pytorch_model.safetensors.index.json"))
    let single = transformer.appending(path: "diffusion_pytorch_model.safetensors")
    try SafetensorsWriter.write(tensors, to: single)
    #expect(try model.componentFingerprint(.transformer) == original.componentFingerprint(.transformer))
    let first = tensors[0].tensor
    var bytes = first.withBytes { $0.withUnsafeBytes { Array($0) } }
    bytes[0] ^= 1
    tensors[0].tensor = bytes.withUnsafeBytes { Tensor(copying: $0.bytes, shape: first.shape, dtype: first.dtype) }
    try SafetensorsWriter.write(tensors, to: single)
    #expect(try model.componentFingerprint(.transformer) != original.componentFingerprint(.transformer))

    try Data("x y\n".utf8).write(to: model.url(of: .tokenizer).appending(path: "merges.txt"))
    #expect(try model.componentFingerprint(.tokenizer) != original.componentFingerprint(.tokenizer))
  }
}
