import Foundation
import Kernels
import TensorCore
import Testing
import Weights

/// What the bytes of every format stand for, by the programs that define them (Tests/Golden/make_formats.py).
@Suite struct FormatTests {
  private static let folder = golden.appending(path: "formats")
  private static let ggufTypes = [
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL",
    "IQ4_XS",
  ]

  private static func expected(_ name: String) throws -> Tensor {
    try SafetensorsFile(folder.appending(path: "formats.safetensors")).tensor(name)
  }

  private static func blocks() throws -> ComponentWeights {
    try ComponentWeights(.files([folder.appending(path: "blocks.gguf")]), baseName: "model") { _ in .published }
  }

  /// The elements' bits; NaN is NaN, whatever its bits.
  private func bits(_ values: [Float]) -> [UInt32] { values.map { $0.isNaN ? 0x7fc0_0000 : $0.bitPattern } }

  @Test(arguments: ggufTypes) func everyElementIsThatOfGGUF(_ name: String) throws {
    let weights = try Self.blocks(), shape = Shape([3, 512]), expected = try Self.expected(name)
    #expect(weights.entry(name)?.dtypeName == name && weights.entry(name)?.shape == shape)
    #expect(bits(try weights.tensor(name, shape).floats()) == bits(expected.floats()))
    // Piece by piece, and on several threads.
    for row in 0..<3 {
      let rows = try weights.rows(row..<row + 1, of: name, shape)
      #expect(bits(rows.floats()) == bits(expected.rows(row..<row + 1).floats()), "row \(row)")
    }
    guard case .encoded(let tensor) = try weights.linearWeight(name, shape) else {
      #expect(["F32", "F16", "BF16"].contains(name) && weights.quantisation(of: name) == nil)
      return
    }
    #expect(weights.quantisation(of: name)?.description == name && weights.storedPrecision == nil)
    let compute = Compute(precision: .bf16, pool: testPool)
    #expect(bits(compute.values(of: tensor).floats()) == bits(expected.floats()))
    #expect(
      bits(compute.gatherRows(tensor, [2, 0, 2]).floats())
        == bits(Tensor.stacking([2, 0, 2].map { expected.rows($0..<$0 + 1) }).floats()))
    #expect(try weights.dtype(of: name, shape) == .fp32)
  }

  /// Rows need not begin with a block.
  @Test(arguments: [BlockFormat.q4_0, .q6K, .int4, .float8E4M3]) func rowsMayBeginInsideABlock(
    _ format: BlockFormat
  ) throws {
    var generator = SeededGenerator(state: 3)
    let count = 24 * 32,
      bytes = (0..<count / format.blockElements * format.blockBytes).map { _ in
        // Neither NaN nor infinite as a scale, whatever the place.
        UInt8.random(in: 0..<0x70, using: &generator)
      }
    let whole = EncodedTensor(Tensor(bytes, .uint8, shape: [bytes.count]), format, shape: [count])
    let narrow = EncodedTensor(
      Tensor(bytes, .uint8, shape: [bytes.count]), format, shape: [32, 24], scales: Tensor([2], shape: [1]))
    let values = whole.values().floats().map { 2 * $0 }
    #expect(narrow.values().floats() == values)
    for rows in [0..<1, 1..<2, 3..<11, 31..<32, 5..<5] {
      #expect(narrow.rows(rows).values().floats() == Array(values[rows.lowerBound * 24..<rows.upperBound * 24]))
      #expect(narrow.rows(rows).shape == [rows.count, 24])
    }
    let nested = narrow.rows(3..<20).rows(2..<9)
    #expect(nested.values().floats() == Array(values[5 * 24..<12 * 24]))
  }

  @Test(arguments: [BlockFormat.float8E4M3, .float8E5M2]) func everyNumberIsThatOfTorch(_ format: BlockFormat) throws {
    let numbers = Tensor((0...255).map { UInt8($0) }, .uint8, shape: [256])
    let found = EncodedTensor(numbers, format, shape: [256]).values().floats()
    let expected = try Self.expected(format.rawValue).floats()
    #expect(bits(found) == bits(expected))
    #expect(zip(found, expected).allSatisfy { $0.sign == $1.sign })
  }

  // MARK: - Safetensors

  private static func write(
    _ tensors: [(String, String, [Int], [UInt8])], in directory: borrowing TemporaryDirectory
  ) throws -> ComponentWeights {
    var entries: [String] = [], data: [UInt8] = []
    for (name, dtype, shape, bytes) in tensors {
      let range = "[\(data.count),\(data.count + bytes.count)]"
      entries.append("\"\(name)\":{\"dtype\":\"\(dtype)\",\"shape\":\(shape),\"data_offsets\":\(range)}")
      data += bytes
    }
    _ = try directory.write(safetensors("{\(entries.joined(separator: ","))}", data: data), as: "model.safetensors")
    return try ComponentWeights(directory: directory.url, baseName: "model")
  }

  private static func bytes(_ values: [Float]) -> [UInt8] {
    values.flatMap { value in (0..<4).map { UInt8(truncatingIfNeeded: value.bitPattern >> (8 * $0)) } }
  }

  /// Plain 8-bit numbers, as `torch_dtype` and layerwise casting of diffusers leave them.
  @Test func plainFloat8() throws {
    let directory = try TemporaryDirectory(), numbers = (0...255).map { UInt8($0) }
    let weights = try Self.write(
      [("a.weight", "F8_E4M3", [16, 16], numbers), ("b", "F8_E5M2", [256], numbers)], in: directory)
    #expect(
      try bits(weights.tensor("a.weight", [16, 16]).floats()) == bits(Self.expected("F8_E4M3").floats()))
    #expect(try bits(weights.tensor("b", [256]).floats()) == bits(Self.expected("F8_E5M2").floats()))
    try weights.requireOnly(["a.weight", "b"])
  }

  @Test(arguments: ["scale_weight", "comfy_quant", "rows"]) func scaledFloat8(_ form: String) throws {
    let directory = try TemporaryDirectory(), numbers = (0..<64).map { UInt8($0) }
    let factors: [Float] = form == "rows" ? [0.25, 3, 1, 0.1] : [0.37]
    var tensors = [("a.weight", "F8_E4M3", [4, 16], numbers), ("norm", "F32", [1], Self.bytes([1]))]
    if form == "scale_weight" {
      tensors += [
        ("a.scale_weight", "F32", [], Self.bytes(factors)), ("a.scale_input", "F32", [], Self.bytes([1])),
        ("scaled_fp8", "F8_E4M3", [0], []),
      ]
    } else {
      let text = Array(#"{"format":"float8_e4m3fn"}"#.utf8)
      tensors += [
        ("a.weight_scale", "F32", form == "rows" ? [4, 1] : [], Self.bytes(factors)),
        ("a.comfy_quant", "U8", [text.count], text), ("a.input_scale", "F32", [], Self.bytes([1])),
      ]
    }
    let weights = try Self.write(tensors, in: directory)
    try weights.requireOnly(["a.weight", "norm"])
    let plain = try Self.expected("F8_E4M3").floats()
    let expected = (0..<64).map { plain[$0] * factors[form == "rows" ? $0 / 16 : 0] }
    #expect(try weights.tensor("a.weight", [4, 16]).floats() == expected)
    guard case .encoded(let tensor) = try weights.linearWeight("a.weight", [4, 16]) else {
      Issue.record("a.weight is not encoded")
      return
    }
    #expect(Compute(precision: .bf16, pool: testPool).values(of: tensor).floats() == expected)
    #expect(tensor.rows(1..<3).values().floats() == Array(expected[16..<48]))
  }

  /// The 4 bits of ComfyUI, of which layers in 8 bits are made without loss.
  @Test func numbersOf4BitsAreThoseOfComfyUI() throws {
    let directory = try TemporaryDirectory()
    func stored(_ name: String) throws -> [UInt8] {
      try Self.expected("convrot_w4a4.\(name)").withBytes { span in span.withUnsafeBytes { Array($0) } }
    }
    let text = Array(#"{"format":"convrot_w4a4","convrot_groupsize":256,"linear_dtype":"int8"}"#.utf8)
    let weights = try Self.write(
      [
        ("a.weight", "I8", [12, 128], stored("weight")), ("a.weight_scale", "F32", [12], stored("weight_scale")),
        ("a.comfy_quant", "U8", [text.count], text),
      ], in: directory)
    #expect(weights.entry("a.weight")?.shape == [12, 256] && weights.storedPrecision == .int8)
    #expect(weights.quantisation(of: "a.weight")?.description == "I4/256")
    let weight = try weights.linearWeight("a.weight", [12, 256]), compute = Compute(precision: .int8, pool: testPool)
    guard case .encoded(let tensor) = weight else {
      Issue.record("a.weight is not encoded")
      return
    }
    let expected = try Self.expected("convrot_w4a4.values").floats(), found = compute.values(of: tensor).floats()
    let largest = expected.map(abs).max() ?? 0
    #expect(zip(found, expected).allSatisfy { abs($0 - $1) <= 1e-6 * largest })
    // A product in 8 bits has the same numbers and scales.
    #expect(compute.values(of: tensor.widenedToInt8()).floats() == found)
    #expect(tensor.widenedToInt8().rotation == 256 && tensor.rows(4..<6).widenedToInt8().scales.elementCount == 2)
    // So has one in 4 bits.
    let (layer, report) = compute.prepareLinear("a.weight", stored: weight, precision: .q4, rotates: false)
    #expect(layer.precision == .q4 && layer.rotation == 256 && report.relativeError == nil)
    #expect(compute.weight(of: layer).floats() == found)
    let error = weightsError { _ = try weights.tensor("a.weight", [12, 256]) }
    #expect(error?.description.contains("is quantised (I4/256) where plain numbers are needed") == true)
  }

  @Test func whatCannotBeMeantIsRefused() throws {
    let directory = try TemporaryDirectory()
    func refusal(_ tensors: [(String, String, [Int], [UInt8])]) throws -> String {
      let error = weightsError {
        let weights = try Self.write(tensors, in: directory)
        _ = try weights.linearWeight("a.weight", [4, 2])
      }
      return try #require(error).description
    }
    let numbers = [UInt8](repeating: 1, count: 8), scale = ("a.scale_weight", "F32", [Int](), Self.bytes([1]))
    #expect(try refusal([scale]).contains("\"a.scale_weight\": is the scale of a.weight, which is missing"))
    #expect(
      try refusal([scale, ("a.weight", "U8", [4, 2], numbers)]).contains(
        "\"a.weight\": is U8 [4, 2], but has the scale a.scale_weight"))
    let weight = ("a.weight", "F8_E4M3", [4, 2], numbers)
    #expect(
      try refusal([("a.scale_weight", "F32", [3], Self.bytes([1, 1, 1])), weight]).contains("expected [4, 1]"))
    #expect(try refusal([("a.scale_weight", "U8", [1], [1]), weight]).contains("element type U8"))
    #expect(
      try refusal([("a.scale_weight", "F32", [1], Self.bytes([.nan])), weight]).contains(
        "is nan in row 0; scales are finite"))
    #expect(try refusal([("a.weight", "F8_E4M3", [2, 4], numbers)]).contains("has shape [2, 4], expected [4, 2]"))
    #expect(try refusal([("a.weight", "F8_E8M0", [4, 2], numbers)]).contains("F8_E8M0, supported are F32"))
  }
}
