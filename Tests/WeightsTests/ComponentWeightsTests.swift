import Foundation
import TensorCore
import Testing
import Weights

@Suite struct ComponentWeightsTests {
  private let checkpoint = golden.appending(path: "tiny/checkpoint")
  private let tensor = Tensor([1, 2, 3], shape: [3])

  @Test func opensShardsAndSingleFiles() throws {
    let transformer = try ComponentWeights(directory: checkpoint.appending(path: "transformer"), baseName: "diffusion_pytorch_model")
    #expect(transformer.files.count == 6)
    #expect(transformer.contains("img_in.weight"))
    #expect(try transformer.tensor("img_in.weight", [48, 64]).dtype == .bf16)
    let total = try transformer.names.reduce(0) { $0 + (try transformer.tensor($1, try #require(transformer.entry($1)).shape)).byteCount }
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
      _ = try ComponentWeights(directory: checkpoint.appending(path: "vae"), baseName: "diffusion_pytorch_model") { _ in "same" }
    }
    #expect(collision?.description.contains("both stand for \"same\"") == true)
  }

  @Test func namesMissingMisshapenAndUnexpectedTensors() throws {
    let vae = try ComponentWeights(directory: checkpoint.appending(path: "vae"), baseName: "diffusion_pytorch_model")
    #expect(
      weightsError { _ = try vae.tensor("decoder.nothing", [1, 2]) }
        == .missingTensor(component: vae.directory, tensor: "decoder.nothing", expected: [1, 2]))
    let misshapen = weightsError { _ = try vae.tensor("decoder.norm_out.gamma", [96, 1, 1, 1]) }
    #expect(misshapen?.description.contains("tensor \"decoder.norm_out.gamma\" has shape [6, 1, 1, 1], expected [96, 1, 1, 1]") == true)
    try vae.requireOnly(Set(vae.names))
    try vae.requireOnly([]) { _ in true }
    #expect(weightsError { try vae.requireOnly(Set(vae.names.dropFirst())) }?.description.contains(vae.names[0]) == true)
    let decoder = vae.names.filter { $0.hasPrefix("decoder.") }
    let surplus = weightsError { try vae.requireOnly(Set(vae.names).subtracting(decoder)) { $0.hasPrefix("decoder.up_blocks.") } }
    let expected = decoder.filter { !$0.hasPrefix("decoder.up_blocks.") }
    #expect(surplus == .unexpectedTensors(component: vae.directory, first: Array(expected.prefix(5)), count: expected.count))
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
        == .ambiguousWeights(directory: directory.url.path, candidates: ["model.bf16.safetensors", "model.fp16.safetensors"]))
    try SafetensorsWriter.write([("c", tensor)], to: directory.url.appending(path: "model.safetensors"))
    #expect(try open().names == ["c"])
    let absent = directory.url.appending(path: "absent")
    #expect(weightsError { _ = try ComponentWeights(directory: absent, baseName: "model") }?.description.contains("absent") == true)
  }

  @Test(
    arguments: [
      (#"{"weight_map":{"a":"s1.safetensors"}}"#, nil), (#"{"weight_map":{"a":"s2.safetensors"}}"#, "shard s2.safetensors does not exist"),
      (#"{"weight_map":{"z":"s1.safetensors"}}"#, "tensor \"z\" is not in shard s1.safetensors"),
      (#"{"weight_map":{"a":"../s1.safetensors"}}"#, "plain file name"), (#"{"weight_map":{"a":"/etc/passwd"}}"#, "plain file name"),
      (#"{"weight_map":{"a":".."}}"#, "plain file name"), (#"{"weight_map":{"a":"s1\u0000"}}"#, "plain file name"),
      (#"{"weight_map":{"a":""}}"#, "plain file name"), (#"{"weight_map":{"a":1}}"#, "a number"), (#"{"weight_map":[]}"#, "weight_map"),
      (#"{"weight_map":{}}"#, "empty"), ("{}", "weight_map"), ("{", "expected a string as key"), ("", "it is empty"),
      ("<html>", "an HTML or XML page"),
      (#"{"weight_map":{"a":"s1.safetensors","a":"s1.safetensors"}}"#, "duplicate key"),
    ] as [(String, String?)])
  func checksTheIndex(index: String, names: String?) throws {
    let directory = try TemporaryDirectory()
    try SafetensorsWriter.write([("a", tensor), ("unlisted", tensor)], to: directory.url.appending(path: "s1.safetensors"))
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
