import Foundation
import TensorCore
import Testing
import Weights

@Suite struct ComponentWeightsTests {
  private let checkpoint = golden.appending(path: "tiny/checkpoint")
  private let tensor = Tensor([1, 2, 3], shape: [3])

  @Test func opensShardsAndSingleFiles() throws {
    let transformer = try ComponentWeights(
      directory: checkpoint.appending(path: "transformer"), baseName: "diffusion_pytorch_model")
    #expect(transformer.files.count == 6)
    #expect(transformer.contains("img_in.weight"))
    #expect(try transformer.tensor("img_in.weight", [48, 64]).dtype == .bf16)
    let total = try transformer.names.reduce(0) {
      $0 + (try transformer.tensor($1, try #require(transformer.entry($1)).shape)).byteCount
    }
    #expect(total == 395_456, "total_size of the index")
    let vae = try ComponentWeights(directory: checkpoint.appending(path: "vae"), baseName: "diffusion_pytorch_model")
    #expect(vae.files.count == 1)
    #expect(try vae.tensor("decoder.norm_out.gamma", [6, 1, 1, 1]).dtype == .fp32)
  }

  @Test func renamesBothGenerationsOfNames() throws {
    let encoder = try ComponentWeights(directory: checkpoint.appending(path: "text_encoder"), baseName: "model") {
      $0.hasPrefix("model.") ? "model.language_model." + $0.dropFirst(6) : $0
    }
    #expect(try encoder.tensor("model.language_model.norm.weight", [64]).shape == [64])
    #expect(!encoder.contains("model.norm.weight"))
    let collision = weightsError {
      _ = try ComponentWeights(directory: checkpoint.appending(path: "vae"), baseName: "diffusion_pytorch_model") { _ in
        "same"
      }
    }
    #expect(collision?.description.contains("both stand for \"same\"") == true)
  }

  @Test func namesMissingMisshapenAndUnexpectedTensors() throws {
    let vae = try ComponentWeights(directory: checkpoint.appending(path: "vae"), baseName: "diffusion_pytorch_model")
    #expect(
      weightsError { _ = try vae.tensor("decoder.nothing", [1, 2]) }
        == .missingTensor(component: vae.files[0].path, tensor: "decoder.nothing", expected: [1, 2]))
    let misshapen = weightsError { _ = try vae.tensor("decoder.norm_out.gamma", [96, 1, 1, 1]) }
    #expect(
      misshapen?.description.contains(
        "tensor \"decoder.norm_out.gamma\" has shape [6, 1, 1, 1], expected [96, 1, 1, 1]") == true)
    try vae.requireOnly(Set(vae.names))
    try vae.requireOnly([]) { _ in true }
    #expect(
      weightsError { try vae.requireOnly(Set(vae.names.dropFirst())) }?.description.contains(vae.names[0]) == true)
    let decoder = vae.names.filter { $0.hasPrefix("decoder.") }
    let surplus = weightsError {
      try vae.requireOnly(Set(vae.names).subtracting(decoder)) { $0.hasPrefix("decoder.up_blocks.") }
    }
    let expected = decoder.filter { !$0.hasPrefix("decoder.up_blocks.") }
    #expect(
      surplus
        == .unexpectedTensors(component: vae.files[0].path, first: Array(expected.prefix(5)), count: expected.count))
  }

  @Test func refusesIntegerWeights() throws {
    let directory = try TemporaryDirectory()
    let integers = Tensor([Int64(0)], .int64, shape: [1])
    try SafetensorsWriter.write([("a", integers)], to: directory.url.appending(path: "model.safetensors"))
    let weights = try ComponentWeights(directory: directory.url, baseName: "model")
    #expect(weightsError { _ = try weights.tensor("a", [1]) }?.description.contains("element type I64") == true)
  }

  @Test func findsVariants() throws {
    let directory = try TemporaryDirectory()
    func open() throws -> ComponentWeights { try ComponentWeights(directory: directory.url, baseName: "model") }
    #expect(weightsError { _ = try open() } == .noWeights(directory: directory.url.path, baseName: "model"))
    try SafetensorsWriter.write([("a", tensor)], to: directory.url.appending(path: "model.fp16.safetensors"))
    #expect(try open().names == ["a"])
    try SafetensorsWriter.write([("b", tensor)], to: directory.url.appending(path: "model.bf16.safetensors"))
    #expect(
      weightsError { _ = try open() }
        == .ambiguousWeights(
          directory: directory.url.path, candidates: ["model.bf16.safetensors", "model.fp16.safetensors"]))
    try SafetensorsWriter.write([("c", tensor)], to: directory.url.appending(path: "model.safetensors"))
    #expect(try open().names == ["c"])
    let absent = directory.url.appending(path: "absent")
    #expect(
      weightsError { _ = try ComponentWeights(directory: absent, baseName: "model") }?.description.contains("absent")
        == true)
  }

  @Test func prefersWhatItsLibraryPrefers() throws {
    let directory = try TemporaryDirectory()
    try SafetensorsWriter.write([("a", tensor)], to: directory.url.appending(path: "s1.safetensors"))
    try SafetensorsWriter.write([("b", tensor)], to: directory.url.appending(path: "model.safetensors"))
    let index = "model.safetensors.index.json"
    func names(_ preference: ComponentWeights.Preference) throws -> [String] {
      try ComponentWeights(directory: directory.url, baseName: "model", preferring: preference).names
    }
    _ = try directory.write(Array(#"{"weight_map":{"a":"s1.safetensors"}}"#.utf8), as: index)
    #expect(try names(.index) == ["a"] && names(.singleFile) == ["b"])
    _ = try directory.write(Array(#"{"weight_map":{"a":"s2.safetensors"}}"#.utf8), as: index)
    #expect(try names(.singleFile) == ["b"])
    let error = weightsError { _ = try names(.index) }
    let indexPath = directory.url.appending(path: index).path
    #expect(error == .missingShard(index: indexPath, shard: "s2.safetensors", single: "model.safetensors"))
    #expect(error?.description.hasSuffix("or remove the index if model.safetensors is complete") == true)
  }

  @Test(arguments: [
    ("model-00001-of-00002.safetensors", "shards need their index"), ("pytorch_model.bin", "pickles are not read"),
    ("model.ckpt", "pickles are not read"), ("model-Q8_0.gguf", "GGUF is not read"),
    ("other.safetensors", "it has other.safetensors"),
    ("model.safetensors.incomplete", "it has model.safetensors.incomplete"),
  ])
  func saysWhatIsThereInsteadOfWeights(name: String, words: String) throws {
    let directory = try TemporaryDirectory()
    _ = try directory.write([0], as: name)
    _ = try directory.write([0], as: ".hidden.safetensors")
    let error = weightsError { _ = try ComponentWeights(directory: directory.url, baseName: "model") }
    #expect(error == .noWeights(directory: directory.url.path, baseName: "model", others: [name]))
    #expect(error?.description.contains(words) == true && error?.description.contains(name) == true)
  }

  @Test(arguments: [
    ("model.diffusion_model.img_in.weight", "ComfyUI single file"),
    ("text_encoders.qwen25_7b.model.norm.weight", "ComfyUI single file"),
    ("a.weight_scale_inv", "another program"), ("a.weight.absmax", "bitsandbytes"), ("a.weight.SCB", "bitsandbytes"),
    ("a.weight.quant_state.bitsandbytes__fp4", "bitsandbytes"), ("a.qweight", "GPTQ, AWQ"),
    ("a.weight._data", "quanto"),
    ("transformer.a.lora_A.weight", "LoRA adapter"), ("lora_unet_a.lora_down.weight", "LoRA adapter"),
    ("a.base_layer.weight", "LoRA"),
    ("decoder.upsamples.0.residual.0.gamma", "Wan and ComfyUI"), ("module.a.weight", "DDP"),
    ("_orig_mod.a.weight", "torch.compile"),
  ])
  func recognisesTheCheckpointsOfOthers(name: String, words: String) throws {
    let directory = try TemporaryDirectory(), file = directory.url.appending(path: "model.safetensors")
    try SafetensorsWriter.write([("a.weight", tensor), (name, tensor)], to: file)
    let error = try #require(weightsError { _ = try ComponentWeights(directory: directory.url, baseName: "model") })
    guard case .foreignTensor(file.path, name, _) = error else {
      Issue.record("\(error)")
      return
    }
    #expect(
      error.description.hasPrefix("\(file.path): tensor \"\(name)\" ") && error.description.contains(words), "\(error)")
  }

  /// Names in files are foreign text: nothing of it may reach a terminal as a command, and no message becomes megabytes
  /// long.
  @Test func namesInErrorsAreShortAndPrintable() throws {
    let directory = try TemporaryDirectory(), file = directory.url.appending(path: "model.safetensors")
    let tail = String(repeating: "x", count: 100_000), name = "\u{1b}[2J\n\u{202e}é漢" + tail
    try Data(
      safetensors(
        #"{"\u001b[2J\n\u202eé漢\#(tail)":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
        data: [0, 0, 0, 0])
    ).write(to: file)
    let weights = try ComponentWeights(directory: directory.url, baseName: "model")
    for error in [weightsError { try weights.requireOnly([]) }, weightsError { _ = try weights.tensor(name, [2]) }] {
      let message = try #require(error).description
      #expect(
        message.count < 600 && message.contains(#"\u{1B}[2J\n\u{202E}é漢xxx"#) && message.contains("…"), "\(message)")
      #expect(message.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value != 0x202e })
    }
  }

  @Test(
    arguments: [
      (#"{"weight_map":{"a":"s1.safetensors"}}"#, nil),
      (#"{"weight_map":{"a":"s2.safetensors"}}"#, "shard s2.safetensors does not exist"),
      (#"{"weight_map":{"z":"s1.safetensors"}}"#, "tensor \"z\" is not in shard s1.safetensors"),
      (#"{"weight_map":{"a":"../s1.safetensors"}}"#, "plain file name"),
      (#"{"weight_map":{"a":"/etc/passwd"}}"#, "plain file name"),
      (#"{"weight_map":{"a":".."}}"#, "plain file name"), (#"{"weight_map":{"a":"s1\u0000"}}"#, "plain file name"),
      (#"{"weight_map":{"a":""}}"#, "plain file name"), (#"{"weight_map":{"a":1}}"#, "a number"),
      (#"{"weight_map":[]}"#, "weight_map"),
      (#"{"weight_map":{}}"#, "empty"), ("{}", "weight_map"), ("{", "expected a string as key"), ("", "it is empty"),
      ("<html>", "an HTML or XML page"),
      (#"{"weight_map":{"a":"s1.safetensors","a":"s1.safetensors"}}"#, "duplicate key"),
    ] as [(String, String?)])
  func checksTheIndex(index: String, names: String?) throws {
    let directory = try TemporaryDirectory()
    try SafetensorsWriter.write(
      [("a", tensor), ("unlisted", tensor)], to: directory.url.appending(path: "s1.safetensors"))
    _ = try directory.write(Array(index.utf8), as: "model.safetensors.index.json")
    var found: [String] = []
    let error = weightsError { found = try ComponentWeights(directory: directory.url, baseName: "model").names }
    if let names {
      let message = try #require(error).description
      #expect(message.contains("model.safetensors.index.json") && message.contains(names), "\(message)")
    } else {
      #expect(error == nil && found == ["a"])
    }
  }
}
