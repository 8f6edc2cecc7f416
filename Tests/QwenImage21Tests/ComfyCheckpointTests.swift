import Diffusion
import Foundation
import GoldenSupport
import Kernels
import QwenImage21
import TensorCore
import Testing
import Weights

/// Transformers in ComfyUI's single files, with layers in 8 bits.
@Suite struct ComfyCheckpointTests {
  private static let pool = ThreadPool(threads: 2)
  private static let int8 = Compute(precision: .int8, pool: pool)
  private static let families = ModelFamilies([QwenImage21Family.self])
  private static let file = "transformer/qwen_image_2.1_int8_convrot.safetensors"

  // MARK: - Making files

  /// The numbers [out, in] and scales of a layer that this program has quantised.
  private static func numbers(of layer: Linear) throws -> Int8Weight {
    let parts = try #require(layer.parts), depth = layer.inFeatures, padded = (depth + 3) / 4 * 4
    let bytes = try #require(parts["panels"]).withElements(as: UInt8.self) { elements in
      elements.indices.map { elements[$0] }
    }
    // Panels of 48 rows, each of words of four inputs.
    let numbers = (0..<layer.outFeatures * depth).map { index in
      let (row, input) = (index / depth, index % depth)
      return Int8(bitPattern: bytes[row / 48 * 48 * padded + (input / 4 * 48 + row % 48) * 4 + input % 4])
    }
    return Int8Weight(
      numbers: Tensor(numbers, .int8, shape: [layer.outFeatures, depth]), scales: try #require(parts["scales"]),
      rotation: layer.rotation)
  }

  private static func elements(_ numbers: Tensor) -> [Int8] {
    numbers.withElements(as: Int8.self) { elements in elements.indices.map { elements[$0] } }
  }

  private static func published() throws -> ComponentWeights {
    try SingleStreamTransformer.weights(in: Golden.checkpoint.appending(path: "transformer"))
  }

  /// The layers of all blocks, or of those that the quantised modes quantise.
  private static func quantisedNames(everywhere: Bool) throws -> [String] {
    try published().names.filter {
      $0.hasPrefix("transformer_blocks.") && !$0.contains(".norm_")
        && (everywhere || !$0.hasPrefix("transformer_blocks.0."))
    }
  }

  /// How a file is made.
  private struct Form {
    var isFused = true
    var prefix = "model.diffusion_model."
    var usesMetadata = false
    /// Whether the first block is quantised too.
    var everywhere = false
    var rotates = true
  }

  /// A checkpoint whose transformer is a file of ComfyUI's.
  private static func checkpoint(_ form: Form = Form()) throws -> TemporaryCheckpoint {
    let copy = try TemporaryCheckpoint(), source = try published()
    let folder = copy.url.appending(path: "transformer")
    for name in try FileManager.default.contentsOfDirectory(atPath: folder.path) where name != "config.json" {
      try FileManager.default.removeItem(at: folder.appending(path: name))
    }
    let quantised = Set(try quantisedNames(everywhere: form.everywhere))
    var tensors: [String: Tensor] = [:], layers: [String] = []
    for name in source.names where !(form.isFused && name.hasSuffix(".img_mlp.proj.weight")) {
      let shape = try #require(source.entry(name)).shape
      let isFused = form.isFused && name.hasSuffix(".img_mlp.gate_layer.weight")
      let names = isFused ? [name, name.replacing("gate_layer", with: "proj")] : [name]
      let stored = form.prefix + (isFused ? name.replacing("gate_layer", with: "gate_up") : name)
      let plain = try names.map { try source.tensor($0, shape) }
      guard quantised.contains(name) else {
        tensors[stored] = Tensor.stacking(plain)
        continue
      }
      let weights = try plain.map { try numbers(of: int8.prepareLinear(weight: $0, rotates: form.rotates)) }
      let layer = String(stored.dropLast(".weight".count)), rotation = weights[0].rotation
      tensors[stored] = Tensor.stacking(weights.map(\.numbers))
      let scales = Tensor.stacking(weights.map(\.scales))
      tensors["\(layer).weight_scale"] = scales.reshaped([scales.elementCount, 1])
      let convrot = rotation == 1 ? "" : #","convrot":true,"convrot_groupsize":\#(rotation)"#
      let description = #"{"format":"int8_tensorwise"\#(convrot)}"#
      layers.append("\"\(layer)\":\(description)")
      if form.usesMetadata { continue }
      tensors["\(layer).comfy_quant"] = Tensor(
        Array(description.utf8), .uint8, shape: [description.utf8.count])
    }
    try SafetensorsWriter.write(
      tensors.map { (name: $0.key, tensor: $0.value) }, to: copy.url.appending(path: file),
      metadata: form.usesMetadata ? ["_quantization_metadata": "{\"layers\":{\(layers.joined(separator: ","))}}"] : [:])
    return copy
  }

  // MARK: - Running them

  /// What the network of a checkpoint predicts.
  private static func velocity(_ checkpoint: URL, _ loading: WeightLoading) throws -> [Float] {
    let recorded = try DenoisingCase("t2i_64x64"), model = try ModelDirectory(checkpoint, families: families)
    let (weights, compute) = try model.open(.transformer, pool: pool, loading)
    let transformer = try SingleStreamTransformer(
      weights,
      configuration: SingleStreamConfiguration(contentsOf: model.url.appending(path: "transformer/config.json")),
      compute: compute)
    let scheduler = try recorded.scheduler()
    return try Denoiser(transformer, scheduler: scheduler, guidance: .plain)(recorded.input()).floats()
  }

  private static func relativeError(_ found: [Float], _ expected: [Float]) -> Double {
    var error = 0.0, norm = 0.0
    for (value, wanted) in zip(found, expected) {
      let difference = Double(value) - Double(wanted)
      error += difference * difference
      norm += Double(wanted) * Double(wanted)
    }
    return (error / norm).squareRoot()
  }

  /// Numbers times scales, rotated by groups of 16 with the matrix as ConvRot gives it.
  private static func values(_ weight: Int8Weight) -> [Double] {
    let depth = weight.numbers.shape[1], scales = weight.scales.floats()
    let scaled = weight.numbers.withElements(as: Int8.self) { numbers in
      numbers.indices.map { Double(numbers[$0]) * Double(scales[$0 / depth]) }
    }
    guard weight.rotation > 1 else { return scaled }
    let seed: [[Double]] = [[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]]
    return scaled.indices.map { index in
      let start = index - index % 16, column = index % 16
      var sum = 0.0
      for row in 0..<16 {
        let sign = seed[row / 4][column / 4] * seed[row % 4][column % 4]
        sum += scaled[start + row] * sign / 4
      }
      return sum
    }
  }

  /// In int8 the numbers of the file are those that this program makes of the original, and so is the result.
  @Test func int8IsWhatTheFileHolds() throws {
    let expected = try Self.velocity(Golden.checkpoint, WeightLoading(precision: .int8))
    for form in [
      Form(), Form(isFused: false, prefix: ""), Form(prefix: "", usesMetadata: true),
      Form(isFused: false, usesMetadata: true),
    ] {
      let copy = try Self.checkpoint(form)
      #expect(try Self.velocity(copy.url, WeightLoading(precision: .int8)) == expected, "\(form)")
      #expect(try Self.velocity(copy.url, WeightLoading()) == expected, "auto: \(form)")
    }
  }

  /// Values are numbers times scales, times the matrix of ConvRot, which is its own inverse.
  @Test(arguments: [true, false]) func valuesAreRotatedBack(_ rotates: Bool) throws {
    let copy = try Self.checkpoint(Form(everywhere: true, rotates: rotates)), original = try Self.published()
    let weights = try SingleStreamTransformer.weights(in: copy.url.appending(path: "transformer"))
    let compute = Compute(precision: .fp32, pool: Self.pool), names = try Self.quantisedNames(everywhere: true)
    #expect(names.count == 3 * 7)
    for name in names {
      let shape = try #require(original.entry(name)).shape
      guard case .int8(let weight) = try weights.linearWeight(name, shape) else {
        Issue.record("\(name) is quantised")
        continue
      }
      // The widths are 80 and 240.
      #expect(weight.rotation == (rotates ? 16 : 1))
      let found = compute.values(of: weight).floats()
      let differences = zip(found, Self.values(weight)).map { abs(Double($0) - $1) }
      let limit = 1e-5 * Double(weight.scales.floats().max() ?? 0) * 128
      #expect(differences.allSatisfy { $0 <= limit }, "\(name)")
      #expect(Self.relativeError(found, try original.tensor(name, shape).floats()) < 0.012, "\(name)")
    }
  }

  /// In the other modes values are those of the file, as accurate as 8 bits.
  @Test(arguments: [PrecisionChoice.fp32, .bf16, .q4]) func otherModesUseTheValues(_ choice: PrecisionChoice) throws {
    let copy = try Self.checkpoint(Form(everywhere: true))
    let expected = try Self.velocity(Golden.checkpoint, WeightLoading(precision: .fp32))
    let error = Self.relativeError(try Self.velocity(copy.url, WeightLoading(precision: choice)), expected)
    let original = Self.relativeError(
      try Self.velocity(Golden.checkpoint, WeightLoading(precision: choice)), expected)
    #expect(error > 0 && error < max(2 * original, 0.03), "\(error), of the original \(original)")
  }

  /// The cache and `quantize` have what the file holds.
  @Test func packedWeightsAreTheSame() throws {
    let copy = try Self.checkpoint(Form(everywhere: true)), folder = try TemporaryCheckpoint(empty: true)
    let model = try ModelDirectory(copy.url, families: Self.families)
    for choice in [PrecisionChoice.int8, .bf16, .q4] {
      let cache = WeightLoading(
        precision: choice, cache: .directory(folder.url.appending(path: "cache").path),
        report: { if $0.contains("no cache") { Issue.record("\($0)") } })
      let expected = try Self.velocity(copy.url, WeightLoading(precision: choice))
      #expect(try Self.velocity(copy.url, cache) == expected, "filling the cache: \(choice)")
      #expect(try Self.velocity(copy.url, cache) == expected, "from the cache: \(choice)")
      let target = folder.url.appending(path: choice.rawValue),
        precision = try #require(Precision(rawValue: choice.rawValue))
      let report = try QuantisedCheckpoint.write(model, precision: precision, to: target, pool: Self.pool) { _, _ in }
      #expect(try Self.velocity(target, WeightLoading()) == expected, "quantised: \(choice)")
      let layers = try #require(report.components.first { $0.name == "transformer" }).layers
      let taken = layers.filter { $0.kept == "int8" }
      #expect(taken.count == (choice == .int8 ? 3 * 7 : 0) && taken.allSatisfy { $0.relativeError == nil })
    }

    // Bit for bit what the file has.
    let target = try ModelDirectory(folder.url.appending(path: "int8"), families: Self.families)
    let cached = try model.open(
      .transformer, pool: Self.pool,
      WeightLoading(precision: .int8, cache: .directory(folder.url.appending(path: "cache").path))
    ).weights
    let weights = try model.weights(of: .transformer)
    for name in try Self.quantisedNames(everywhere: true) {
      let shape = try #require(weights.entry(name)).shape
      guard case .int8(let stored) = try weights.linearWeight(name, shape) else {
        Issue.record("\(name) is quantised")
        continue
      }
      for packed in [cached, try target.weights(of: .transformer)] {
        let layer = try #require(
          try packed.packedLayer(name, output: shape[0], input: shape[1], bias: nil, compute: Self.int8))
        let found = try Self.numbers(of: layer)
        #expect(found.rotation == stored.rotation && found.scales.floats() == stored.scales.floats())
        #expect(Self.elements(found.numbers) == Self.elements(stored.numbers), "\(name)")
      }
    }
  }

  /// What tells checkpoints from one another covers scales and descriptions.
  @Test func fingerprintsDiffer() throws {
    func fingerprint(_ form: Form) throws -> String {
      let copy = try Self.checkpoint(form)
      return try withExtendedLifetime(copy) {
        try ModelDirectory(copy.url, families: Self.families).componentFingerprint(.transformer)
      }
    }
    let forms = [Form(), Form(rotates: false), Form(everywhere: true), Form(usesMetadata: true)]
    #expect(try Set(forms.map(fingerprint)).count == 4)
    #expect(try fingerprint(Form()) == fingerprint(Form(prefix: "")))
  }

  /// A damaged file is refused when the model is loaded and when it is packed, by the names of file and tensor.
  @Test func damageIsNamed() throws {
    let copy = try Self.checkpoint(), url = copy.url.appending(path: Self.file)
    var bytes = try Data(contentsOf: url)
    // The format's name in one of the descriptions.
    let place = try #require(bytes.range(of: Data("int8_tensorwise".utf8), options: .backwards))
    bytes.replaceSubrange(place, with: Data("int8_blockwise_".utf8))
    try bytes.write(to: url)
    let model = try ModelDirectory(copy.url, families: Self.families)
    let error = #expect(throws: WeightsError.self) {
      _ = try model.open(.transformer, pool: Self.pool, WeightLoading(precision: .int8))
    }
    let text = "\(try #require(error))"
    #expect(text.hasPrefix(url.path) && text.contains(".comfy_quant\""), "\(text)")
    #expect(text.contains("\"int8_blockwise_\"") && text.contains("take the checkpoint in bf16"), "\(text)")
  }
}
