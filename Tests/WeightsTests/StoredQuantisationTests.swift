import Foundation
import Kernels
import TensorCore
import Testing
import Weights

/// Layers that ComfyUI's files hold quantised.
@Suite struct StoredQuantisationTests {
  /// A file with one layer `a` of 6 outputs and 64 inputs.
  private struct Layer {
    var tensors: [String: Tensor]
    var metadata: [String: String] = [:]

    init(_ description: String? = #"{"format":"int8_tensorwise","convrot":true,"convrot_groupsize":64}"#) {
      tensors = [
        "a.weight": Tensor((0..<384).map { Int8($0 % 256 - 128) }, .int8, shape: [6, 64]),
        "a.weight_scale": Tensor((1...6).map { Float($0) / 64 }, shape: [6, 1]), "norm": Tensor([1], shape: [1]),
      ]
      if let description { describe(description) }
    }

    mutating func describe(_ text: String) {
      tensors["a.comfy_quant"] = Tensor(Array(text.utf8), .uint8, shape: [text.utf8.count])
    }

    func weights(in directory: URL, rename: @escaping (String) -> String = { $0 }) throws -> ComponentWeights {
      try SafetensorsWriter.write(
        tensors.map { (name: $0.key, tensor: $0.value) }, to: directory.appending(path: "model.safetensors"),
        metadata: metadata)
      return try ComponentWeights(directory: directory, baseName: "model", rename: rename)
    }

    /// Opens the file and reads the layer, and nothing else.
    func read(in directory: URL, rename: @escaping (String) -> String = { $0 }) throws -> Int8Weight {
      let weights = try weights(in: directory, rename: rename)
      try weights.requireOnly(["a.weight", "norm"])
      let weight = try weights.linearWeight("a.weight", [6, 64])
      guard case .int8(let numbers) = weight, weight.precision == weights.storedPrecision else {
        throw WeightsError.missingTensor(component: "", tensor: "a.weight", expected: nil)
      }
      return numbers
    }
  }

  @Test func layersAreReadAsTheyAre() throws {
    let directory = try TemporaryDirectory(), layer = Layer(), weight = try layer.read(in: directory.url)
    let numbers = weight.numbers.withElements(as: Int8.self) { elements in elements.indices.map { elements[$0] } }
    #expect(numbers == (0..<384).map { Int8($0 % 256 - 128) } && weight.numbers.shape == [6, 64])
    #expect(weight.scales.floats() == (1...6).map { Float($0) / 64 } && weight.rotation == 64)
    let weights = try layer.weights(in: directory.url)
    #expect(weights.quantisation(of: "a.weight")?.description == "int8/64" && weights.storedPrecision == .int8)
    #expect(weights.quantisation(of: "norm") == nil && weights.packedPrecision == nil)
    #expect(weights.isCompanion("a.weight_scale") && weights.isCompanion("a.comfy_quant"))
    #expect(!weights.isCompanion("a.weight") && !weights.isCompanion("norm"))
    guard case .plain(let norm) = try weights.linearWeight("norm", [1]) else {
      Issue.record("norm is not quantised")
      return
    }
    #expect(norm.floats() == [1])
    let misshapen = weightsError { _ = try weights.linearWeight("a.weight", [64, 6]) }
    #expect(
      misshapen
        == .misshapenTensor(file: weights.files[0].path, tensor: "a.weight", expected: [64, 6], found: [6, 64]))
    let asNumbers = weightsError { _ = try weights.tensor("a.weight", [6, 64]) }
    #expect(asNumbers?.description.contains("\"a.weight\": is quantised (int8/64) where plain numbers") == true)
  }

  /// What descriptions may say and how scales may be arranged.
  @Test func formsOfDescriptionsAndScales() throws {
    let directory = try TemporaryDirectory()
    func rotation(_ description: String) throws -> Int {
      try Layer(description).read(in: directory.url).rotation
    }
    #expect(try rotation(#"{"format": "int8_tensorwise"}"#) == 1)
    #expect(try rotation(#"{"format":"int8_tensorwise","convrot":false,"convrot_groupsize":7}"#) == 1)
    #expect(try rotation(#"{"format":"int8_tensorwise","convrot":true,"convrot_groupsize":16,"per_row":true}"#) == 16)
    #expect(
      try rotation(#"{"format":"int8_tensorwise","params":{"convrot":true,"convrot_groupsize":16}}"#) == 16)
    for (shape, count) in [(Shape([]), 1), ([1], 1), ([1, 1], 1), ([6], 6)] {
      var layer = Layer()
      layer.tensors["a.weight_scale"] = Tensor((0..<count).map { Float($0) }, shape: shape)
      let scales = try layer.read(in: directory.url).scales.floats()
      #expect(scales == (count == 1 ? [0, 0, 0, 0, 0, 0] : [0, 1, 2, 3, 4, 5]), "\(shape)")
    }
  }

  /// The header may describe layers instead, or too, by the names of the file or of the model.
  @Test func metadataDescribeLayers() throws {
    let directory = try TemporaryDirectory()
    func metadata(_ name: String, group: Int = 64) -> String {
      #"{"format_version":"1.0","layers":{"\#(name)":{"format":"int8_tensorwise","convrot":true,"#
        + #""convrot_groupsize":\#(group)}}}"#
    }
    var layer = Layer(nil)
    layer.metadata["_quantization_metadata"] = metadata("a")
    #expect(try layer.read(in: directory.url).rotation == 64)
    layer.describe(#"{"format":"int8_tensorwise","convrot":true,"convrot_groupsize":64}"#)
    #expect(try layer.read(in: directory.url).rotation == 64)
    for (text, message) in [
      (metadata("a", group: 16), "\"a.weight\": is int8/16 by _quantization_metadata and int8/64 by a.comfy_quant"),
      (metadata("b"), "\"b.weight\": is described by _quantization_metadata, but the file has none"),
      ("{", "_quantization_metadata is not JSON"), ("{\"layers\":[]}", "_quantization_metadata has no object"),
      (#"{"layers":{"a":{"format":"nvfp4"}}}"#, "\"a.weight\": says that the layer is quantised as \"nvfp4\""),
      ("\"" + String(repeating: "x", count: 5 << 20) + "\"", "the limit is 4194304"),
    ] {
      layer.metadata["_quantization_metadata"] = text
      let error = weightsError { _ = try layer.weights(in: directory.url) }
      #expect(error?.description.contains(message) == true, "\(String(describing: error))")
    }
    // The prefix of a whole pipeline's file may be left out.
    var prefixed = Layer(nil)
    prefixed.tensors = Dictionary(uniqueKeysWithValues: prefixed.tensors.map { ("net.\($0.key)", $0.value) })
    for name in ["a", "net.a"] {
      prefixed.metadata["_quantization_metadata"] = metadata(name)
      let rotation = try prefixed.read(in: directory.url) { $0.replacing("net.", with: "") }.rotation
      #expect(rotation == 64)
    }
  }

  @Test(
    arguments: [
      (
        "int8_blockwise",
        "\"int8_blockwise\"; of ComfyUI's formats, int8_tensorwise, convrot_w4a4, float8_e4m3fn, float8_e5m2 are read"
      ),
      ("nvfp4", "\"nvfp4\""), ("mxfp8", "`qwen-image quantize`"), ("asym_w4a8_int8", "bf16"),
      ("a\u{1b}[2J", "\"a\\u{1B}[2J\""),
    ])
  func otherFormatsAreRefused(_ format: String, _ message: String) throws {
    let directory = try TemporaryDirectory()
    let escaped = format.replacing("\u{1b}", with: "\\u001b")
    let error = weightsError { _ = try Layer("{\"format\":\"\(escaped)\"}").weights(in: directory.url) }
    let text = try #require(error).description
    #expect(text.contains(message) && text.contains("\"a.comfy_quant\""), "\(text)")
    #expect(text.contains(directory.url.path) && !text.contains("\u{1b}"), "\(text)")
  }

  /// Each damages a file that is right; the message must name file, tensor and what is wrong.
  private static let damages: [(message: String, damage: @Sendable (inout Layer) -> Void)] = [
    ("\"a.comfy_quant\": is not the JSON of a quantised layer", { $0.describe("{\"format\":") }),
    ("\"a.comfy_quant\": is not the JSON of a quantised layer", { $0.describe("") }),
    ("\"a.comfy_quant\": does not say the \"format\"", { $0.describe("{\"convrot\":true,\"per_row\":true}") }),
    ("\"a.comfy_quant\": does not say the \"format\"", { $0.describe("[]") }),
    ("has 5000 bytes of JSON, the limit is 4096", { $0.describe(String(repeating: " ", count: 5000)) }),
    (
      "\"a.comfy_quant\" has element type F32, supported are U8",
      { $0.tensors["a.comfy_quant"] = Tensor([1], shape: [1]) }
    ),
    ("has convrot as a number", { $0.describe(#"{"format":"int8_tensorwise","convrot":1}"#) }),
    (
      "has convrot_groupsize as a string",
      { $0.describe(#"{"format":"int8_tensorwise","convrot":true,"convrot_groupsize":"64"}"#) }
    ),
    // The default.
    (
      "has convrot_groupsize 256, which does not divide the layer's 64 inputs",
      { $0.describe(#"{"format":"int8_tensorwise","convrot":true}"#) }
    ),
    (
      "has convrot_groupsize 32, which is not supported; supported are 16, 64, 256",
      { $0.describe(#"{"format":"int8_tensorwise","convrot":true,"convrot_groupsize":32}"#) }
    ),
    (
      "has convrot_groupsize -64, which is not supported",
      { $0.describe(#"{"format":"int8_tensorwise","convrot":true,"convrot_groupsize":-64}"#) }
    ),
    (
      "\"a.comfy_quant\": describes a.weight, which the file does not have", { $0.tensors["a.weight"] = nil }
    ),
    (
      "\"a.weight\": is F32 [6, 64], but said to be quantised",
      { $0.tensors["a.weight"] = Tensor.zeros([6, 64]) }
    ),
    (
      "\"a.weight\": is I8 [384], but said to be quantised",
      { $0.tensors["a.weight"] = $0.tensors["a.weight"]?.reshaped([384]) }
    ),
    (
      "\"a.weight\": is quantised, but its scales a.weight_scale are missing",
      { $0.tensors["a.weight_scale"] = nil }
    ),
    (
      "\"a.weight_scale\" has element type U8, supported are F32",
      { $0.tensors["a.weight_scale"] = Tensor([UInt8](repeating: 1, count: 6), .uint8, shape: [6, 1]) }
    ),
    (
      "\"a.weight_scale\" has shape [7, 1], expected [6, 1]",
      { $0.tensors["a.weight_scale"] = Tensor.zeros([7, 1]) }
    ),
    (
      "\"a.weight_scale\" has shape [1, 6], expected [6, 1]",
      { $0.tensors["a.weight_scale"] = Tensor.zeros([1, 6]) }
    ),
    (
      "\"a.weight_scale\": is nan in row 4",
      { $0.tensors["a.weight_scale"] = Tensor([1, 1, 1, 1, .nan, 1], shape: [6]) }
    ),
    (
      "\"a.weight_scale\": is -1.0 in row 2",
      { $0.tensors["a.weight_scale"] = Tensor([1, 1, -1, 1, 1, 1], shape: [6]) }
    ),
    (
      "\"a.weight_scale\": is inf in row 0", { $0.tensors["a.weight_scale"] = Tensor([Float.infinity], shape: [1]) }
    ),
    // A scale that nothing describes.
    ("\"a.weight_scale\" is a scale of weights quantised by another program", { $0.tensors["a.comfy_quant"] = nil }),
    (
      "\"a.input_scale\" is a scale of weights quantised by another program",
      { $0.tensors["a.input_scale"] = Tensor([1], shape: [1]) }
    ),
  ]

  @Test(arguments: damages.indices) func damagedLayersAreRefused(_ index: Int) throws {
    let directory = try TemporaryDirectory(), (message, damage) = Self.damages[index]
    var layer = Layer()
    damage(&layer)
    let error = weightsError { _ = try layer.read(in: directory.url) }
    let text = try #require(error).description
    #expect(text.contains(message) && text.contains(directory.url.path), "\(text)")
  }

  /// Halves of a fused layer have their rows' scales.
  @Test func partsOfALayerHaveTheirScales() throws {
    let directory = try TemporaryDirectory()
    _ = try Layer().weights(in: directory.url)
    let halves = try ComponentWeights(
      directory: directory.url, baseName: "model", dividing: { $0 == "a.weight" ? ["b.weight", "c.weight"] : nil })
    try halves.requireOnly(["b.weight", "c.weight", "norm"])
    for (index, name) in ["b.weight", "c.weight"].enumerated() {
      guard case .int8(let weight) = try halves.linearWeight(name, [3, 64]) else {
        Issue.record("\(name) is quantised")
        continue
      }
      #expect(weight.scales.floats() == (1...3).map { Float(3 * index + $0) / 64 } && weight.rotation == 64)
      #expect(weight.numbers.withElements(as: Int8.self) { $0[0] } == Int8(index * 192 - 128))
    }
  }

  /// A file of any name will do only where it is asked for and is the only one.
  @Test func filesOfOtherNames() throws {
    let directory = try TemporaryDirectory(), layer = Layer()
    _ = try layer.weights(in: directory.url)
    let single = directory.url.appending(path: "model.safetensors")
    let other = directory.url.appending(path: "model_int8_convrot.safetensors")
    func open(_ acceptsAnyName: Bool) throws -> ComponentWeights {
      try ComponentWeights(directory: directory.url, baseName: "model", acceptsAnyName: acceptsAnyName)
    }
    try FileManager.default.copyItem(at: single, to: other)
    #expect(try open(true).files[0].path == single.path)
    try FileManager.default.removeItem(at: single)
    #expect(try open(true).files[0].path == other.path)
    #expect(
      weightsError { _ = try open(false) }
        == .noWeights(directory: directory.url.path, baseName: "model", others: ["model_int8_convrot.safetensors"]))
    try FileManager.default.copyItem(at: other, to: directory.url.appending(path: "b.safetensors"))
    #expect(
      weightsError { _ = try open(true) }
        == .ambiguousWeights(
          directory: directory.url.path, candidates: ["b.safetensors", "model_int8_convrot.safetensors"]))
  }
}
