import Diffusion
import Foundation
import GoldenSupport
import Testing

/// A checkpoint as people have them, made from the tiny one by a change, and what loading it must come to.
struct OddCheckpoint: CustomTestStringConvertible, Sendable {
  enum Outcome: Sendable {
    /// It draws the image of the sound checkpoint.
    case loads
    /// It is refused, in words that hold these.
    case refused([String])
  }

  let name: String
  let outcome: Outcome
  let change: @Sendable (borrowing CheckpointCopy) throws -> Void

  var testDescription: String { name }

  static func loads(_ name: String, _ change: @escaping @Sendable (borrowing CheckpointCopy) throws -> Void)
    -> OddCheckpoint
  {
    OddCheckpoint(name: name, outcome: .loads, change: change)
  }

  static func refused(
    _ name: String, _ words: String..., change: @escaping @Sendable (borrowing CheckpointCopy) throws -> Void
  ) -> OddCheckpoint {
    OddCheckpoint(name: name, outcome: .refused(words), change: change)
  }
}

extension OddCheckpoint {
  private static let transformer = "transformer/diffusion_pytorch_model"
  private static let encoder = "text_encoder/model"
  private static let vaeFile = "vae/diffusion_pytorch_model.safetensors"

  static let all = containers + contents + layouts + indexes + tensorNames + quantised + configurations + defaults

  // MARK: - The format of single files

  private static let containers: [OddCheckpoint] = [
    .loads("one file instead of shards") { try $0.merge(.transformer) },
    .loads("no __metadata__") { try $0.merge(.transformer) { $0.metadata = nil } },
    .loads("__metadata__ is null") { try $0.merge(.transformer) { $0.metadata = "null" } },
    .loads("__metadata__ is empty") { try $0.merge(.vae) { $0.metadata = "{}" } },
    .loads("a header padded with line breaks") { try $0.merge(.transformer) { $0.padding = 0x0a } },
    .loads("a header that ends anywhere") {
      try $0.merge(.transformer) {
        $0.alignment = 0
        $0.metadata = #"{"a":"xyz"}"#
      }
    },
    .refused("a number in __metadata__", "transformer/", "__metadata__.step is a number") {
      try $0.merge(.transformer) { $0.metadata = #"{"step":12}"# }
    },
    .refused("a header padded with NUL", "transformer/", "padded with NUL bytes") {
      try $0.merge(.transformer) {
        $0.padding = 0
        $0.metadata = #"{"a":"xyz"}"#
      }
    },
    .refused("bytes behind the tensors", "transformer/", "something was added at its end") {
      try $0.merge(.transformer) { $0.tail = [UInt8](repeating: 0, count: 16) }
    },
    .refused("half a file", vaeFile, "tensor \"", "it is incomplete, download it") { copy in
      let data = try Data(contentsOf: copy.file(vaeFile))
      try copy.write(data.prefix(data.count / 2), to: vaeFile)
    },
    .refused("the beginning of a header", vaeFile, "is truncated") { copy in
      try copy.write(Data(contentsOf: copy.file(vaeFile)).prefix(1000), to: vaeFile)
    },
  ]

  // MARK: - Files that are something else than their names say

  private static let contents: [OddCheckpoint] = [
    .refused("an empty file", vaeFile, "not a safetensors file: it is empty") { try $0.write("", to: vaeFile) },
    .refused("a Git LFS pointer", vaeFile, "a Git LFS pointer", "git lfs pull", "hf download") {
      try $0.write(lfsPointer, to: vaeFile)
    },
    .refused("an index that is a Git LFS pointer", "\(transformer).safetensors.index.json", "a Git LFS pointer") {
      try $0.write(lfsPointer, to: "\(transformer).safetensors.index.json")
    },
    .refused("a configuration that is a Git LFS pointer", "vae/config.json", "a Git LFS pointer") {
      try $0.write(lfsPointer, to: "vae/config.json")
    },
    .refused("a vocabulary that is a Git LFS pointer", "tokenizer/vocab.json", "a Git LFS pointer") {
      try $0.write(lfsPointer, to: "tokenizer/vocab.json")
    },
    .refused("a login page", vaeFile, "an HTML or XML page") {
      try $0.write("\n<!DOCTYPE html><html><body>Access to this model is restricted</body></html>\n", to: vaeFile)
    },
    .refused("a login page for a configuration", "model_index.json", "an HTML or XML page") {
      try $0.write("<html><body>Sign in</body></html>", to: "model_index.json")
    },
    .refused("an error message", vaeFile, "text that begins with \"Entry not found\"") {
      try $0.write("Entry not found", to: vaeFile)
    },
    .refused("a GGUF file", vaeFile, "a GGUF file") {
      try $0.write(Array("GGUF\u{3}\0\0\0".utf8) + [UInt8](repeating: 0, count: 500), to: vaeFile)
    },
    .refused("a new pickle", vaeFile, "a zip archive", "convert it to safetensors") {
      try $0.write(Array("PK\u{3}\u{4}\0\0\u{8}\u{8}".utf8) + [UInt8](repeating: 0, count: 500), to: vaeFile)
    },
    .refused("an old pickle", vaeFile, "a Python pickle", "convert it to safetensors") {
      try $0.write([0x80, 2, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8], to: vaeFile)
    },
    .refused("space for a download", vaeFile, "filled with zeros") {
      try $0.write([UInt8](repeating: 0, count: 4096), to: vaeFile)
    },
    .refused("a directory for a file", vaeFile, "not a regular file") { copy in
      try copy.remove(vaeFile)
      try FileManager.default.createDirectory(at: copy.file(vaeFile), withIntermediateDirectories: false)
    },
  ]

  private static let lfsPointer =
    "version https://git-lfs.github.com/spec/v1\noid sha256:\(String(repeating: "0c", count: 32))\nsize 253806966\n"

  // MARK: - Which files there are

  private static let layouts: [OddCheckpoint] = [
    .refused("a missing shard", "\(transformer).safetensors.index.json", "-00003-of-00006.safetensors does not exist") {
      try $0.remove("\(transformer)-00003-of-00006.safetensors")
    },
    .refused("shards without their index", "transformer has neither", "-00001-of-00006", "shards need their index") {
      try $0.remove("\(transformer).safetensors.index.json")
    },
    .refused("pickles only", "vae has neither", "diffusion_pytorch_model.bin: pickles are not read") {
      try $0.move(vaeFile, to: "vae/diffusion_pytorch_model.bin")
    },
    .refused("another file with the name of a GGUF file", "transformer/model-Q4_K_M.gguf", "it is not a GGUF file") {
      copy in
      try copy.merge(.transformer)
      try copy.move("\(transformer).safetensors", to: "transformer/model-Q4_K_M.gguf")
    },
    .refused("a component that was not downloaded", "vae/config.json", "No such file") { try $0.remove("vae") },
    // transformers takes a single file first, diffusers an index.
    .loads("an encoder's single file beside an old index") { copy in
      let index = try Data(contentsOf: copy.file("\(encoder).safetensors.index.json"))
      try copy.merge(.textEncoder)
      try copy.write(index, to: "\(encoder).safetensors.index.json")
    },
    .refused("a transformer's single file beside an old index", "does not exist", "or remove the index if") { copy in
      let index = try Data(contentsOf: copy.file("\(transformer).safetensors.index.json"))
      try copy.merge(.transformer)
      try copy.write(index, to: "\(transformer).safetensors.index.json")
    },
    .loads("one file of a variant") { copy in
      try copy.merge(.transformer)
      try copy.move("\(transformer).safetensors", to: "\(transformer).fp16.safetensors")
    },
    .loads("shards of a variant") { copy in
      try copy.edit("\(transformer).safetensors.index.json") { index in
        let map = index["weight_map"] as? [String: String] ?? [:]
        for shard in Set(map.values) { try copy.move("transformer/\(shard)", to: "transformer/\(variant(shard))") }
        index["weight_map"] = map.mapValues(variant)
      }
      try copy.move("\(transformer).safetensors.index.json", to: "\(transformer).safetensors.index.fp16.json")
    },
    .loads("a variant beside the plain file") { copy in
      try copy.write(Data(contentsOf: copy.file(vaeFile)), to: "vae/diffusion_pytorch_model.fp16.safetensors")
    },
    .loads("leftovers of macOS") { copy in
      for base in [transformer, encoder, "vae/diffusion_pytorch_model"] {
        let (folder, name) = (base.split(separator: "/")[0], base.split(separator: "/")[1])
        try copy.write([0, 5, 0x16, 7], to: "\(folder)/._\(name).safetensors")
        try copy.write([0, 0, 0, 1], to: "\(folder)/.DS_Store")
      }
    },
    .loads("a snapshot of links to blobs") { copy in
      let files = try FileManager.default.subpathsOfDirectory(atPath: copy.url.path)
      let blobs = copy.directory.url.appending(path: "blobs")
      try FileManager.default.createDirectory(at: blobs, withIntermediateDirectories: false)
      for (number, name) in files.sorted().enumerated() where name.contains(".") {
        try FileManager.default.moveItem(at: copy.file(name), to: blobs.appending(path: "\(number)"))
        try copy.link(name, to: (name.contains("/") ? "../" : "") + "../blobs/\(number)")
      }
    },
    .refused("a shard whose blob is gone", "-00003-of-00006.safetensors", "a symbolic link to ../../blobs/0f00") {
      try $0.link("\(transformer)-00003-of-00006.safetensors", to: "../../blobs/0f00")
    },
    .refused("a configuration whose blob is gone", "transformer/config.json", "a symbolic link to ../../blobs/0f01") {
      try $0.link("transformer/config.json", to: "../../blobs/0f01")
    },
    .refused("an index whose blob is gone", "model_index.json", "a symbolic link to ../blobs/0f02") {
      try $0.link("model_index.json", to: "../blobs/0f02")
    },
    .refused("a vocabulary whose blob is gone", "tokenizer/vocab.json", "a symbolic link to ../../blobs/0f03") {
      try $0.link("tokenizer/vocab.json", to: "../../blobs/0f03")
    },
    .refused("no tokenizer", "tokenizer", "it does not exist; download it") { try $0.remove("tokenizer") },
    .refused("half a tokenizer", "tokenizer", "has neither tokenizer.json nor vocab.json and merges.txt") {
      try $0.remove("tokenizer/merges.txt")
    },
  ]

  private static func variant(_ shard: String) -> String {
    shard.replacingOccurrences(of: "diffusion_pytorch_model-", with: "diffusion_pytorch_model.fp16-")
  }

  // MARK: - model_index.json

  private static let indexes: [OddCheckpoint] = [
    .loads("components that text to image does not have") {
      try $0.edit("model_index.json") {
        $0["_name_or_path"] = "Qwen/Qwen-Image"
        for name in ["processor", "feature_extractor"] { $0[name] = [NSNull(), NSNull()] }
        $0["tokenizer"] = ["transformers", "Qwen2TokenizerFast"]
      }
    },
    .loads("components of a modular pipeline") { try $0.edit("model_index.json", modular) },
    .refused("a component in another repository", "model_index.json", "vae.repo \"Qwen/Qwen-Image\" is not supported") {
      try $0.edit("model_index.json") {
        $0["vae"] = ["diffusers", "AutoencoderKLQwenImage", ["repo": "Qwen/Qwen-Image", "subfolder": "vae"]]
      }
    },
    .refused("a component in another folder", "model_index.json", "vae.subfolder \"decoder\" is not supported") {
      try $0.edit("model_index.json") {
        $0["vae"] = ["diffusers", "AutoencoderKLQwenImage", ["repo": NSNull(), "subfolder": "decoder"]]
      }
    },
    .refused("a component that is none", "model_index.json", "vae is [null, null], expected [library, class]") {
      try $0.edit("model_index.json") { $0["vae"] = [NSNull(), NSNull()] }
    },
    .loads("the pipeline for images to images") {
      try $0.edit("model_index.json") { $0["_class_name"] = "QwenImageImg2ImgPipeline" }
    },
    .loads("the pipeline for inpainting") {
      try $0.edit("model_index.json") { $0["_class_name"] = "QwenImageInpaintPipeline" }
    },
    .refused("the pipeline for layers, with other parts", "use_layer3d_rope is false", "QwenImageLayeredPipeline") {
      try $0.edit("model_index.json") { $0["_class_name"] = "QwenImageLayeredPipeline" }
    },
    .refused("a pipeline for editing without a processor", "model_index.json: processor is missing") {
      try $0.edit("model_index.json") { $0["_class_name"] = "QwenImageEditPlusPipeline" }
    },
    .loads("the encoder's class without an output head") {
      try $0.edit("model_index.json") { $0["text_encoder"] = ["transformers", "Qwen2_5_VLModel"] }
    },
    .loads("the tokenizer's class of transformers 5") {
      try $0.edit("model_index.json") { $0["tokenizer"] = ["transformers", "TokenizersBackend"] }
    },
    .refused("another VAE", "model_index.json", "vae \"AutoencoderKLWan\" is not supported") {
      try $0.edit("model_index.json") { $0["vae"] = ["diffusers", "AutoencoderKLWan"] }
    },
    .refused("another scheduler", "scheduler/scheduler_config.json", "_class_name \"UniPCMultistepScheduler\"") {
      try $0.edit("scheduler/scheduler_config.json") { $0["_class_name"] = "UniPCMultistepScheduler" }
    },
    .refused("another scheduler in the index", "model_index.json", "scheduler \"FlowMatchHeunDiscreteScheduler\"") {
      try $0.edit("model_index.json") { $0["scheduler"] = ["diffusers", "FlowMatchHeunDiscreteScheduler"] }
    },
  ]

  @Sendable private static func modular(_ index: inout [String: Any]) {
    for (name, value) in index {
      guard let pair = value as? [String] else { continue }
      index[name] = pair as [Any] + [["repo": NSNull(), "subfolder": name, "type_hint": pair]]
    }
  }

  // MARK: - Names of tensors

  private static let tensorNames: [OddCheckpoint] = [
    .loads("an encoder saved by transformers 4.52 or later") { copy in
      try copy.merge(.textEncoder) {
        rename(&$0) { name in
          if name.hasPrefix("model.") { return "model.language_" + name }
          return name.hasPrefix("visual.") ? "model." + name : name
        }
      }
    },
    .loads("an encoder saved without its output head") { copy in
      try copy.merge(.textEncoder) {
        $0["lm_head.weight"] = nil
        rename(&$0) { $0.hasPrefix("model.") ? "language_" + $0 : $0 }
      }
    },
    .loads("the language model alone") { copy in
      try copy.merge(.textEncoder) { file in
        file.tensors.removeAll { !$0.name.hasPrefix("model.") }
        rename(&file) { String($0.dropFirst("model.".count)) }
      }
    },
    .loads("an encoder without vision tower") { copy in
      try copy.merge(.textEncoder) { file in
        file.tensors.removeAll { $0.name.hasPrefix("visual.") || $0.name == "lm_head.weight" }
      }
    },
    .loads("rotary frequencies of old versions of transformers") { copy in
      try copy.merge(.textEncoder) { $0["model.layers.0.self_attn.rotary_emb.inv_freq"] = zeros([8]) }
    },
    .loads("a ComfyUI file") { copy in
      try copy.merge(.transformer) {
        rename(&$0) { "model.diffusion_model." + $0 }
        $0["model.diffusion_model.__index_timestep_zero__"] = zeros([0])
      }
      try copy.move("\(transformer).safetensors", to: "transformer/qwen_image_bf16.safetensors")
    },
    .refused("a pipeline in a ComfyUI file", "\"first_stage_model.conv1.bias\"", "ComfyUI single file") { copy in
      try copy.merge(.transformer) { $0["first_stage_model.conv1.bias"] = zeros([1]) }
    },
    .refused("names of two conventions", vaeFile, "\"decoder.middle.0.residual.0.gamma\"", "both stand for") { copy in
      try copy.merge(.vae) { $0["decoder.middle.0.residual.0.gamma"] = zeros([24, 1, 1, 1]) }
    },
    .refused("a compiled module", "\"_orig_mod.img_in.bias\"", "torch.compile") { copy in
      try copy.merge(.transformer) { rename(&$0) { "_orig_mod." + $0 } }
    },
    .refused("a LoRA left in", "to_q.lora_A.default.weight\" belongs to a LoRA adapter", "fuse") { copy in
      try copy.merge(.transformer) { $0["transformer_blocks.0.attn.to_q.lora_A.default.weight"] = zeros([4, 48]) }
    },
    .refused("a tensor too many", "\(transformer).safetensors", "1 tensor that the model does not have: extra") {
      copy in
      try copy.merge(.transformer) { $0["extra"] = zeros([4, 48]) }
    },
    .refused("a linear layer without weight", "to_q.weight\" of shape [48, 48] is missing") { copy in
      try copy.merge(.transformer) { $0["transformer_blocks.0.attn.to_q.weight"] = nil }
    },
  ]

  private static func rename(_ file: inout StoredFile, _ rename: (String) -> String) {
    file.tensors = file.tensors.map { (rename($0.name), $0.tensor) }
  }

  private static func zeros(_ shape: [Int], _ dtype: String = "F32") -> StoredTensor {
    let width = StoredTensor.widths[dtype] ?? 1
    return StoredTensor(dtype: dtype, shape: shape, bytes: [UInt8](repeating: 0, count: shape.reduce(width, *)))
  }

  // MARK: - Weights that other programs have quantised

  private static let quantised: [OddCheckpoint] = [
    .refused("bitsandbytes", "transformer/config.json", "\"bitsandbytes\" (nf4)", "`qwen-image quantize`") { copy in
      try copy.edit("transformer/config.json") {
        $0["quantization_config"] = [
          "load_in_4bit": true, "quant_method": "bitsandbytes", "bnb_4bit_quant_type": "nf4",
        ]
      }
      try copy.merge(.transformer, quantiseWithBitsAndBytes)
    },
    .refused("bitsandbytes by its tensors", "to_q.weight", "quantised by bitsandbytes") {
      try $0.merge(.transformer, quantiseWithBitsAndBytes)
    },
    .refused("a quantised encoder", "text_encoder/config.json", "quantization_config \"fp8\" is not supported") {
      copy in
      try copy.edit("text_encoder/config.json") { $0["quantization_config"] = ["quant_method": "fp8"] }
    },
    .refused("GPTQ", "to_q.qweight", "GPTQ, AWQ, Nunchaku") { copy in
      try copy.merge(.transformer) { $0["transformer_blocks.0.attn.to_q.qweight"] = zeros([6, 48], "I32") }
    },
    .refused("fp8 with scales", "to_q.weight_scale", "quantised by another program") { copy in
      try copy.merge(.transformer) { $0["transformer_blocks.0.attn.to_q.weight_scale"] = zeros([1]) }
    },
  ]

  @Sendable private static func quantiseWithBitsAndBytes(_ file: inout StoredFile) {
    let name = "transformer_blocks.0.attn.to_q.weight"
    file[name] = zeros([1152, 1], "U8")
    file["\(name).absmax"] = zeros([36], "U8")
    file["\(name).quant_state.bitsandbytes__nf4"] = zeros([4], "U8")
  }

  // MARK: - Other configurations

  private static let configurations: [OddCheckpoint] = [
    .loads("rope_parameters of transformers 5") { copy in
      try copy.edit("text_encoder/config.json") { members in
        moveRope(&members)
        guard var text = members["text_config"] as? [String: Any] else { return }
        moveRope(&text)
        members["text_config"] = text
      }
    },
    .refused("a comma too many", "scheduler/scheduler_config.json", "in line 18, column 1, behind a comma too many") {
      copy in
      let path = "scheduler/scheduler_config.json"
      let text = try String(contentsOf: copy.file(path), encoding: .utf8).trimmingCharacters(
        in: .whitespacesAndNewlines)
      try copy.write(text.dropLast().trimmingCharacters(in: .whitespacesAndNewlines) + ",\n}\n", to: path)
    },
    .refused("a byte-order mark", "vae/config.json", "begins with a byte-order mark") { copy in
      try copy.write([0xef, 0xbb, 0xbf] + Data(contentsOf: copy.file("vae/config.json")), to: "vae/config.json")
    },
    .refused("another patch", "transformer/config.json", "patch_size 1 is not supported, supported: 2") {
      try $0.edit("transformer/config.json") {
        $0["patch_size"] = 1
        $0["in_channels"] = 16
      }
    },
    .refused("a VAE of another depth", "vae/config.json", "dim_mult has 3 elements") {
      try $0.edit("vae/config.json") {
        $0["dim_mult"] = [1, 2, 4]
        $0["temperal_downsample"] = [false, true]
      }
    },
    .refused("a VAE of odd widths", "vae/config.json", "dim_mult is [1, 3, 4, 4]") {
      try $0.edit("vae/config.json") {
        $0["dim_mult"] = [1, 3, 4, 4]
        $0["base_dim"] = 3
      }
    },
  ]

  private static func moveRope(_ members: inout [String: Any]) {
    let scaling = members.removeValue(forKey: "rope_scaling") as? [String: Any]
    members["rope_parameters"] = [
      "rope_type": "default", "rope_theta": members.removeValue(forKey: "rope_theta") ?? 1e6,
      "mrope_section": scaling?["mrope_section"] ?? [2, 3, 3],
    ]
  }

  // MARK: - generation_defaults.json

  private static let defaults: [OddCheckpoint] = [
    defaults("a size that is a string", #"{"id": "x", "width": "64"}"#, "width is a string, expected an integer"),
    defaults("a misspelt field", #"{"id": "x", "widht": 64}"#, "no field \"widht\"; known are id, width"),
    defaults("no steps at all", #"{"max_steps": 0}"#, "max_steps is 0"),
    defaults("sides that exclude each other", #"{"min_side": 512, "max_side": 256}"#, "min_side is 512"),
    defaults("sides beyond counting", #"{"max_side": 9223372036854775807}"#, "max_side is 9223372036854775807"),
    defaults("a size that is none", #"{"recommended_sizes": ["64x64", "64x"]}"#, "recommended_sizes is \"64x\""),
    defaults("no name", #"{"id": ""}"#, "id is 0 bytes long"),
  ]

  private static func defaults(_ name: String, _ text: String, _ words: String) -> OddCheckpoint {
    .refused(name, "generation_defaults.json", words) { try $0.write(text, to: "generation_defaults.json") }
  }
}
