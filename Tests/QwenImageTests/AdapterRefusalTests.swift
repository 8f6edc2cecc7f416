import Diffusion
import Foundation
import GoldenSupport
import Kernels
import ModelRegistry
import QwenImage
import TensorCore
import Testing
import Weights

/// Files that are no adapters, or none for the network: refused with the names of file and tensor.
@Suite struct AdapterRefusalTests {
  private static let layer = "transformer_blocks.0.attn.to_q"
  private static let network: MMDiT? = try? { () throws -> MMDiT in
    let model = try ModelDirectory(Golden.tinyCheckpoint)
    return try MMDiT(
      model.weights(of: .transformer), configuration: model.qwenImage.transformer,
      compute: Compute(precision: .fp32, pool: ThreadPool(threads: 1)))
  }()

  /// Reads a file with `tensors` and puts it beside the network's weights; returns the error's message.
  private func refusal(_ tensors: [String: Tensor], metadata: [String: String] = [:]) throws -> String {
    let directory = try TemporaryDirectory(), network = try #require(Self.network)
    do {
      let adapter = try AdapterFiles.adapter(tensors, metadata: metadata, in: directory.url)
      _ = try network.adapted(by: AdapterFiles.set(adapter))
    } catch let error as WeightsError {
      #expect("\(error)".contains("a.safetensors"), "\(error)")
      return "\(error)"
    }
    Issue.record("no error for \(tensors.keys.sorted())")
    return ""
  }

  private static let down = AdapterFiles.random([2, 48], seed: 1), up = AdapterFiles.random([48, 2], seed: 2)
  private static func lora(_ layer: String) -> [String: Tensor] {
    ["\(layer).lora_A.weight": down, "\(layer).lora_B.weight": up]
  }

  private static func with(_ more: [String: Tensor], _ layer: String = layer) -> [String: Tensor] {
    lora(layer).merging(more) { $1 }
  }

  private func expect(
    _ tensors: [String: Tensor], _ parts: String..., sourceLocation: SourceLocation = #_sourceLocation
  )
    throws
  {
    let message = try refusal(tensors)
    for part in parts { #expect(message.contains(part), "\(message)", sourceLocation: sourceLocation) }
  }

  @Test func unknownTensors() throws {
    for name in ["hello", "\(Self.layer).weight", "\(Self.layer).lora_C.weight", ".alpha", "alpha", "lora_A.weight"] {
      try expect(Self.with([name: Self.up]), "\"\(name)\"", "no adapter that is known")
    }
    for layer in [
      "transformer_blocks.2.attn.to_q", "transformer_blocks.0.attn.qkv", "lora_unet_x", "controlnet.img_in",
    ] {
      try expect(Self.lora(layer), "\"\(layer).lora_A.weight\"", "does not have")
    }
    try expect([:], "no tensors")
  }

  @Test func unsupportedKinds() throws {
    for (name, meaning) in [
      ("dora_scale", "DoRA"), ("lora_magnitude_vector.default", "DoRA"), ("lora_mid.weight", "Tucker"),
      ("hada_t1", "Tucker"), ("diff", "whole difference"), ("diff_b", "biases"), ("oft_blocks", "OFT"),
      ("lora_B.bias", "bias"),
    ] {
      try expect(Self.with(["\(Self.layer).\(name)": Self.up]), "\"\(Self.layer).\(name)\"", meaning)
    }
  }

  @Test func tensorsForTextEncoders() throws {
    let directory = try TemporaryDirectory(), name = "text_encoder.model.layers.0.self_attn.q_proj"
    try expect(Self.lora(name), "all 2 tensors are for a text encoder")
    let adapter = try AdapterFiles.adapter(Self.with(Self.lora("lora_te_layers_0_q_proj")), in: directory.url)
    #expect(adapter.textEncoderTensorCount == 2)
    _ = try #require(Self.network).adapted(by: AdapterFiles.set(adapter))
  }

  @Test func tensorsOfOtherShapes() throws {
    let a = "\(Self.layer).lora_A.weight", b = "\(Self.layer).lora_B.weight"
    let cases: [(name: String, shape: Shape)] = [
      (a, [2, 47]), (b, [47, 2]), (b, [48, 3]), (a, [0, 48]), (a, [2, 48, 3]),
    ]
    for (name, shape) in cases {
      try expect(Self.with([name: Tensor.zeros(shape)]), "\"\(name)\"", "\(shape)")
    }
    try expect(Self.with([a: Tensor.zeros([96])]), "\"\(a)\"", "no matrix")
    try expect([a: Self.down], "\"\(Self.layer).up\"", "missing")
    try expect([b: Self.up], "\"\(Self.layer).down\"", "missing")
    try expect(
      Self.with(["\(Self.layer).alpha": Tensor.zeros([2])]), "\"\(Self.layer).alpha\"")
  }

  /// As scripts for networks with convolutions write them.
  @Test func linearLayersAsConvolutions() throws {
    let directory = try TemporaryDirectory(), network = try #require(Self.network)
    let tensors = Self.lora(Self.layer).mapValues { $0.reshaped(Shape($0.shape.dimensions + [1, 1])) }
    _ = try network.adapted(by: AdapterFiles.set(AdapterFiles.adapter(tensors, in: directory.url)))
  }

  @Test func numbersThatCannotBeMeant() throws {
    let a = "\(Self.layer).lora_A.weight", alpha = "\(Self.layer).alpha"
    var values = Self.down.floats()
    values[3] = .nan
    try expect(Self.with([a: Tensor(values, shape: [2, 48])]), "\"\(a)\"", "element 3")
    try expect(Self.with([a: Tensor([Int8](repeating: 1, count: 96), .int8, shape: [2, 48])]), "\"\(a)\"", "I8")
    try expect(Self.with([alpha: Tensor([.infinity], shape: [])]), "\"\(alpha)\"", "finite")
    try expect(Self.with([alpha: Tensor([Int8(1)], .int8, shape: [])]), "\"\(alpha)\"", "I8")
  }

  @Test func layersThatAreThereTwice() throws {
    let other = "lora_unet_\(Self.layer.replacing(".", with: "_"))"
    try expect(Self.with(Self.lora(other)), Self.layer, "by another name")
    try expect(Self.with(["\(Self.layer).lora_A.default.weight": Self.down]), "same part of one layer")
    try expect(Self.with(["\(Self.layer).hada_w1_a": Self.up]), "different kinds")
  }

  @Test func factorsThatDoNotFit() throws {
    func tensor(_ rows: Int, _ columns: Int) -> Tensor { AdapterFiles.random([rows, columns], seed: 5) }
    let layer = Self.layer
    try expect(["\(layer).lokr_w1": tensor(5, 6), "\(layer).lokr_w2": tensor(8, 8)], "\(layer).lokr_w1", "[5, 6]")
    try expect(["\(layer).lokr_w1": tensor(6, 6), "\(layer).lokr_w2": tensor(8, 7)], "\(layer).lokr_w2", "[8, 7]")
    try expect(["\(layer).lokr_w1": tensor(6, 6)], "lokr_w2_b", "missing")
    try expect(
      ["\(layer).lokr_w1": tensor(6, 6), "\(layer).lokr_w1_a": tensor(6, 2), "\(layer).lokr_w2": tensor(8, 8)],
      "lokr_w1_a", "takes its place")
    try expect(
      ["\(layer).lokr_w1_a": tensor(600, 1), "\(layer).lokr_w1_b": tensor(1, 6), "\(layer).lokr_w2": tensor(8, 8)],
      "lokr_w1_a", "larger")
    let loha = [
      "hada_w1_a": tensor(48, 80), "hada_w1_b": tensor(80, 48), "hada_w2_a": tensor(48, 80),
      "hada_w2_b": tensor(80, 48),
    ]
    try expect(
      Dictionary(uniqueKeysWithValues: loha.map { ("\(layer).\($0.key)", $0.value) }), "6400", "4096")
  }

  @Test func configurationsThatCannotBeMeant() throws {
    for (text, meaning) in [
      ("[]", "array"), ("{", "no JSON"), (#"{"r": 0}"#, "no r"), (#"{"r": 2, "lora_alpha": "x"}"#, "lora_alpha"),
      (#"{"r": 2, "use_dora": true}"#, "use_dora"), (#"{"r": 2, "peft_type": "IA3"}"#, "IA3"),
      (#"{"r": 2, "alpha_pattern": {".*to_q": 3}}"#, "regular expression"),
      (#"{"r": 2, "alpha_pattern": {"to_q": null}}"#, "no number"), (#"{"r": 2, "rank_pattern": 3}"#, "no object"),
    ] {
      let message = try refusal(Self.lora(Self.layer), metadata: ["lora_adapter_metadata": text])
      #expect(message.contains(meaning), "\(message)")
    }
  }

  @Test func whatIsNoFile() throws {
    let directory = try TemporaryDirectory()
    for name in ["nothing.safetensors", ""] {
      #expect(throws: WeightsError.self) { try Adapter(directory.url.appending(path: name)) }
    }
    let text = try directory.write("<!doctype html>", as: "page.safetensors")
    #expect(throws: WeightsError.self) { try Adapter(text) }
  }
}
