import Foundation
import Kernels
import TensorCore
import Testing

/// What products are compared with.
struct LinearReference: Sendable {
  let product: Reference.Product

  /// Weights of q4 are given as they were after quantization.
  init(x: Tensor, weight: Tensor, bias: Tensor?, precision: Precision) {
    product = Reference.product(
      Reference.represented(x, precision), precision == .q4 ? weight.doubles : Reference.represented(weight, precision),
      bias: bias?.doubles, depth: x.shape[1])
  }

  /// Errors allowed: one rounding per product and sum (vdpbf16ps rounds products too), and the rounding of the result.
  func check(_ result: Tensor, depth: Int, _ comment: String, sourceLocation: SourceLocation = #_sourceLocation) {
    expectClose(result, product.sums, comment, sourceLocation: sourceLocation) { index, expected in
      Double(2 * depth + 4) * 0x1p-24 * product.magnitudes[index] + roundoff(result.dtype) * abs(expected) + 1e-37
    }
    let sumError = result.dtype == .fp32 ? 3e-7 * Double(max(depth, 1)).squareRoot() : 0x1p-8
    #expect(relativeError(result, product.sums) <= sumError, "\(comment)", sourceLocation: sourceLocation)
  }
}

@Suite struct LinearTests {
  /// The weights [out, in] that a layer without bias stands for: its products with the unit vectors.
  static func weights(of layer: Linear) -> Tensor {
    let n = layer.inFeatures, identity = Tensor((0..<n * n).map { $0 / n == $0 % n ? 1 : 0 }, shape: [n, n])
    let columns = Compute(precision: .bf16, pool: testPool, instructionSet: .portable).linear(
      identity, layer, output: .fp32
    ).floats()
    let out = layer.outFeatures
    return Tensor((0..<out * n).map { columns[$0 % n * out + $0 / n] }, shape: [out, n])
  }

  static let references = SharedReferences<[String], LinearReference>()

  static let shapes: [(m: Int, n: Int, k: Int)] = [
    (1, 1, 1), (1, 3, 16), (5, 12, 42), (37, 24, 48), (7, 64, 64), (13, 50, 63), (2, 97, 3420), (25, 48, 65),
    (400, 49, 17), (3, 200, 301),
  ]

  @Test(arguments: everyComputeAndBLAS) func matchesDoubles(_ compute: Compute) {
    for (index, shape) in Self.shapes.enumerated() {
      for weightType in [DType.fp32, .bf16, .fp16] {
        let seed = UInt64(index * 10)
        let x = randomTensor([shape.m, shape.k], compute.activationDType, seed: seed),
          bias = randomTensor([shape.n], .bf16, seed: seed + 2)
        let weight = randomTensor([shape.n, shape.k], weightType, scale: 0.3, seed: seed + 1)
        let layer = compute.prepareLinear(weight: weight, bias: bias)
        #expect(layer.precision == compute.precision)
        #expect(layer.outFeatures == shape.n && layer.inFeatures == shape.k)
        let reference = Self.references.value([compute.precision.rawValue, "\(shape)", weightType.rawValue]) {
          let exact = compute.precision == .q4 ? compute.weight(of: layer) : weight
          return LinearReference(x: x, weight: exact, bias: bias, precision: compute.precision)
        }
        let label = "\(compute.numericsClass) \(shape) \(weightType)"
        reference.check(compute.linear(x, layer), depth: shape.k, label)
        reference.check(compute.linear(x, layer, output: .fp32), depth: shape.k, label)
        #expect(compute.linear(x, layer).dtype == compute.activationDType)
      }
    }
  }

  @Test(arguments: everyComputeAndBLAS) func matchesDoublesOnRandomShapes(_ compute: Compute) {
    var generator = SeededGenerator(42)
    for round in 0..<25 {
      let m = Int.random(in: 1...60, using: &generator), n = Int.random(in: 1...150, using: &generator)
      let k = Int.random(in: 1...300, using: &generator), seed = UInt64(round)
      let x = randomTensor([m, k], seed: seed), weight = randomTensor([n, k], seed: seed + 100)
      let layer = compute.prepareLinear(weight: weight, bias: nil)
      Self.references.value([compute.precision.rawValue, "\(round)"]) {
        let exact = compute.precision == .q4 ? compute.weight(of: layer) : weight
        return LinearReference(x: x, weight: exact, bias: nil, precision: compute.precision)
      }
      .check(compute.linear(x, layer, output: .fp32), depth: k, "\(compute.numericsClass) \(m)×\(n)×\(k)")
    }
  }

  @Test(arguments: everyComputeAndBLAS) func fusesActivations(_ compute: Compute) {
    let x = randomTensor([19, 77], seed: 1), weight = randomTensor([53, 77], scale: 0.3, seed: 2),
      bias = randomTensor([53], seed: 3)
    let layer = compute.prepareLinear(weight: weight, bias: bias)
    let plain = compute.linear(x, layer, output: .fp32).doubles
    expectClose(compute.linear(x, layer, activation: .silu, output: .fp32), plain.map(Reference.silu)) {
      6e-7 * abs($1)
    }
    // Far out on the negative side gelu is the exponential of a large rounded number: only absolutely accurate.
    for (activation, reference) in [(Activation.geluTanh, Reference.geluTanh), (.gelu, Reference.gelu)] {
      expectClose(compute.linear(x, layer, activation: activation, output: .fp32), plain.map(reference)) {
        1e-6 * abs($1) + (plain[$0] < 0 ? 1e-7 * abs(plain[$0]) : 0)
      }
    }
  }

  @Test(arguments: everyComputeAndBLAS) func addsToResidualThroughGate(_ compute: Compute) {
    for gated in [true, false] {
      let x = randomTensor([21, 34], seed: 1), weight = randomTensor([70, 34], seed: 2),
        bias = randomTensor([70], seed: 3)
      let layer = compute.prepareLinear(weight: weight, bias: bias), gate = randomTensor([70], seed: 4)
      let start = randomTensor([21, 70], seed: 5)
      var residual = start.copied()
      compute.linear(x, layer, addingTo: &residual, gate: gated ? gate : nil)
      let product = compute.linear(x, layer, output: .fp32).doubles, g = gate.doubles, before = start.doubles
      let added = product.indices.map { (gated ? g[$0 % 70] : 1) * product[$0] }
      expectClose(residual, zip(before, added).map { $0 + $1 }) {
        0x1p-23 * (abs(before[$0]) + abs(added[$0]) + abs($1))
      }
    }
  }

  @Test(arguments: everyComputeAndBLAS) func writesIntoRowsOfALargerTensor(_ compute: Compute) {
    let x = randomTensor([9, 40], seed: 1),
      layer = compute.prepareLinear(weight: randomTensor([30, 40], seed: 2), bias: nil)
    for dtype in [DType.fp32, .bf16] {
      let background = [UInt8](repeating: 0xa5, count: 20 * 30 * dtype.byteWidth)
      var target = MutableTensor(uninitialized: [20, 30], dtype)
      target.copy(
        background.withUnsafeBytes { Tensor(copying: $0.bytes, shape: [20, 30], dtype: dtype) }, toRowsFrom: 0)
      compute.linear(x, layer, into: &target, rowsFrom: 4)
      let whole = target.finish()
      #expect(whole.rows(4..<13).isIdentical(to: compute.linear(x, layer, output: dtype)))
      #expect((whole.rows(0..<4).byteArray + whole.rows(13..<20).byteArray).allSatisfy { $0 == 0xa5 })
    }
  }

  @Test(arguments: everyCompute()) func aRowDoesNotDependOnTheOthers(_ compute: Compute) {
    for (n, k) in [(31, 45), (200, 700), (12, 3000)] {
      let layer = compute.prepareLinear(weight: randomTensor([n, k], seed: 2), bias: randomTensor([n], seed: 3))
      let x = randomTensor([437, k], seed: 1)
      let whole = compute.linear(x, layer, output: .fp32)
      for range in [0..<1, 5..<6, 36..<37, 400..<401, 436..<437, 0..<37, 17..<229] {
        let part = compute.linear(x.rows(range), layer, output: .fp32)
        #expect(
          part.isIdentical(to: whole.rows(range)), "\(compute.numericsClass) rows \(range) of 437, n \(n), k \(k)")
      }
    }
  }

  @Test func emptyBatches() {
    for compute in everyComputeAndBLAS {
      let layer = compute.prepareLinear(weight: randomTensor([8, 5], seed: 1), bias: nil)
      #expect(compute.linear(Tensor.zeros([0, 5]), layer).shape == [0, 8])
    }
  }

  @Test func specialValuesPropagate() {
    for compute in everyComputeAndBLAS {
      let layer = compute.prepareLinear(weight: Tensor([1, 2], shape: [1, 2]), bias: nil)
      let result = compute.linear(Tensor([.nan, 1, .infinity, 1, 3, 4], shape: [3, 2]), layer, output: .fp32).floats()
      #expect(result[0].isNaN && !result[1].isFinite && abs(result[2] - 11) < 0.5)
      let broken = compute.prepareLinear(weight: Tensor([1, .nan, 1, 1], shape: [2, 2]), bias: nil)
      let row = compute.linear(Tensor([1, 1], shape: [1, 2]), broken, output: .fp32).floats()
      #expect(row[0].isNaN && abs(row[1] - 2) < 0.5)
    }
  }

  @Test func quantizedWeightsAreNearTheirOriginals() {
    let weight = randomTensor([50, 96], scale: 0.02, seed: 3), values = weight.doubles
    for (precision, bound) in [(Precision.int8, 0.008), (.q4, 0.07)] {
      let layer = Compute(precision: precision, pool: testPool).prepareLinear(weight: weight)
      #expect(relativeError(Self.weights(of: layer), values) < bound)
    }
    let zeros = Compute(precision: .q4, pool: testPool).prepareLinear(weight: Tensor.zeros([3, 40]))
    #expect(Self.weights(of: zeros).floats().allSatisfy { $0 == 0 })
  }

  @Test(arguments: Precision.allCases) func everyTablePacksTheSameBytes(_ precision: Precision) throws {
    for type in [DType.fp32, .bf16, .fp16] {
      let weight = randomTensor([101, 77], type, seed: 4)
      let all = try everyCompute([precision]).map { try #require($0.prepareLinear(weight: weight, bias: nil).parts) }
      for parts in all {
        #expect(parts.keys == all[0].keys)
        for (name, tensor) in parts { #expect(tensor.isIdentical(to: all[0][name]!), "\(precision) \(type) \(name)") }
      }
    }
  }

  @Test(arguments: [Precision.int8, .q4]) func everyTableMultipliesIntegersAlike(_ precision: Precision) {
    let computes = everyCompute([precision]), x = randomTensor([29, 301], seed: 1),
      weight = randomTensor([70, 301], seed: 2)
    let bias = randomTensor([70], seed: 3)
    let results = computes.map { $0.linear(x, $0.prepareLinear(weight: weight, bias: bias), output: .fp32) }
    for (compute, result) in zip(computes, results) {
      #expect(result.isIdentical(to: results[0]), "\(compute.numericsClass)")
    }
  }

  @Test(arguments: Precision.allCases) func layersComeBackFromTheirParts(_ precision: Precision) throws {
    let compute = Compute(precision: .bf16, pool: testPool), x = randomTensor([5, 77], .bf16, seed: 1)
    for bias in [nil, randomTensor([50], seed: 3)] {
      let layer = compute.prepareLinear(weight: randomTensor([50, 77], seed: 2), bias: bias, precision: precision)
      let parts = try #require(layer.parts)
      let again = try Linear(precision: precision, outFeatures: 50, inFeatures: 77, parts: parts)
      #expect(compute.linear(x, again).isIdentical(to: compute.linear(x, layer)))

      for name in parts.keys where name != "bias" {
        var damaged = parts
        damaged[name] = nil
        #expect(throws: KernelError.invalidPart(name, reason: "is missing")) {
          try Linear(precision: precision, outFeatures: 50, inFeatures: 77, parts: damaged)
        }
        damaged[name] = Tensor.zeros([3])
        #expect(throws: KernelError.self) {
          try Linear(precision: precision, outFeatures: 50, inFeatures: 77, parts: damaged)
        }
      }
      #expect(throws: KernelError.self) {
        try Linear(precision: precision, outFeatures: 50, inFeatures: 78 + 64, parts: parts)
      }
      #expect(throws: KernelError.self) {
        try Linear(precision: precision, outFeatures: 0, inFeatures: 77, parts: parts)
      }
    }
  }
}

/// Inputs that are rotated before they are quantised.
@Suite struct RotationTests {
  /// Rows of the identity become rows of the matrix, whose elements 8 bits hold exactly but for their size.
  @Test(arguments: [(48, 16), (192, 64), (256, 256), (512, 256)])
  func groupsAreMultipliedWithTheMatrix(_ depth: Int, _ group: Int) throws {
    let identity = Tensor((0..<depth * depth).map { $0 / depth == $0 % depth ? 1 : 0 }, shape: [depth, depth])
    for compute in everyCompute([.int8]) {
      let layer = compute.prepareLinear(weight: identity, rotates: true)
      #expect(layer.rotation == group)
      let parts = try #require(layer.parts)
      let panels = try #require(parts["panels"]), scales = try #require(parts["scales"])
      #expect(scales.floats().allSatisfy { abs($0 * 127 - 1 / Float(group).squareRoot()) < 1e-6 })
      let bytes = panels.withElements(as: UInt8.self) { elements in
        elements.indices.map { Int8(bitPattern: elements[$0]) }
      }
      for row in 0..<depth {
        let expected = Reference.rotated(identity.rows(row..<row + 1).floats(), group: group)
        // Panels of 48 rows, each of words of four inputs.
        let panel = row / 48 * 48 * depth
        for input in 0..<depth {
          let word = panel + (input / 4 * 48 + row % 48) * 4
          let found = Double(bytes[word + input % 4].signum())
          #expect(abs(found / Double(group).squareRoot() - expected[input]) < 1e-12, "row \(row), input \(input)")
        }
      }
    }
  }

  @Test func widthsHaveTheLargestGroupThatDividesThem() {
    let groups = [4096, 3072, 12_288, 80, 240, 192, 320, 48, 77].map { Linear.rotationGroup(inFeatures: $0) }
    #expect(groups == [256, 256, 256, 16, 16, 64, 64, 16, 1])
  }

  /// What single large inputs and weights cost without rotation.
  @Test(arguments: [Precision.int8, .q4]) func outliersCostLess(_ precision: Precision) {
    let (rows, out, depth) = (37, 50, 1024)
    var inputs = randomTensor([rows, depth], seed: 1).floats(), weights = randomTensor([out, depth], seed: 2).floats()
    for index in inputs.indices where index % depth % 211 == 3 { inputs[index] *= 60 }
    for index in weights.indices where index % depth % 173 == 9 { weights[index] *= 20 }
    let x = Tensor(inputs, shape: [rows, depth]), weight = Tensor(weights, shape: [out, depth])
    let exact = Compute(precision: .fp32, pool: testPool)
    let expected = exact.linear(x, exact.prepareLinear(weight: weight), output: .fp32).doubles
    var results: Set<[Float]> = []
    for compute in everyCompute([precision]) {
      let plain = compute.prepareLinear(weight: weight), rotated = compute.prepareLinear(weight: weight, rotates: true)
      #expect(plain.rotation == 1 && rotated.rotation == 256)
      let errors = [plain, rotated].map { relativeError(compute.linear(x, $0, output: .fp32), expected) }
      #expect(errors[1] < (precision == .int8 ? 0.5 : 0.6) * errors[0], "\(compute.numericsClass): \(errors)")
      let weightErrors = [plain, rotated].map { compute.relativeError(of: $0, from: weight) }
      #expect(weightErrors[1] < weightErrors[0])
      #expect(abs(weightErrors[1] - relativeError(compute.weight(of: rotated), weight.doubles)) < 1e-5)
      results.insert(compute.linear(x, rotated, output: .fp32).floats())
      // More rows than a slab, and every row as if it were alone.
      let row = compute.linear(x.rows(5..<6), rotated, output: .fp32)
      #expect(row.floats() == compute.linear(x, rotated, output: .fp32).rows(5..<6).floats())
    }
    #expect(results.count == 1, "instruction sets differ")
  }

  @Test func partsMakeTheLayerAgain() throws {
    let compute = Compute(precision: .int8, pool: testPool), x = randomTensor([5, 512], .bf16, seed: 3)
    let layer = compute.prepareLinear(weight: randomTensor([50, 512], seed: 2), rotates: true)
    let parts = try #require(layer.parts)
    let again = try Linear(precision: .int8, outFeatures: 50, inFeatures: 512, rotation: 256, parts: parts)
    #expect(compute.linear(x, again).floats() == compute.linear(x, layer).floats())
    for rotation in [0, 2, 4, 512] {
      #expect(throws: KernelError.self) {
        try Linear(precision: .int8, outFeatures: 50, inFeatures: 512, rotation: rotation, parts: parts)
      }
    }
  }
}

/// Weights that another program has quantised.
@Suite struct Int8WeightTests {
  /// All 8-bit numbers in turn, -128 too, which this program's own quantiser does not make.
  private func weight(_ out: Int, _ depth: Int, rotation: Int) -> Int8Weight {
    let numbers = (0..<out * depth).map { Int8(truncatingIfNeeded: $0 &* 37 &+ $0 / depth) }
    return Int8Weight(
      numbers: Tensor(numbers, .int8, shape: [out, depth]),
      scales: Tensor((0..<out).map { $0 % 7 == 3 ? 0 : 0.001 * Float($0 + 1) }, shape: [out]), rotation: rotation)
  }

  @Test(arguments: [(50, 77, 1), (3, 16, 16), (49, 192, 16), (101, 512, 64), (97, 512, 256)])
  func valuesAreNumbersTimesScalesRotatedBack(_ out: Int, _ depth: Int, _ rotation: Int) {
    let weight = weight(out, depth, rotation: rotation), scales = weight.scales.floats()
    let numbers = weight.numbers.withElements(as: Int8.self) { elements in elements.indices.map { elements[$0] } }
    let expected = (0..<out).flatMap { row in
      let scaled = (0..<depth).map { Float(numbers[row * depth + $0]) * scales[row] }
      return rotation == 1 ? scaled.map(Double.init) : Reference.rotated(scaled, group: rotation)
    }
    var results: Set<[Float]> = []
    for compute in everyCompute([.int8]) {
      let values = compute.values(of: weight), layer = compute.prepareLinear(weight)
      expectClose(values, expected) { _, _ in 1e-6 * Double(scales.max() ?? 0) * 128 }
      #expect(layer.rotation == rotation && layer.precision == .int8)
      #expect(compute.weight(of: layer).floats() == values.floats())
      #expect(layer.parts?["scales"]?.floats() == scales)
      results.insert(values.floats())
    }
    #expect(results.count == 1, "instruction sets differ")
  }

  /// In products the inputs are rotated and quantised, which loses at most half a step of 127 each.
  @Test(arguments: [(50, 77, 1), (101, 512, 64), (97, 512, 256)])
  func productsAreThoseOfTheValues(_ out: Int, _ depth: Int, _ rotation: Int) {
    let weight = weight(out, depth, rotation: rotation), x = randomTensor([9, depth], seed: 5)
    let bias = randomTensor([out], .bf16, seed: 6)
    var results: Set<[Float]> = []
    for compute in everyCompute([.int8]) {
      let values = compute.values(of: weight).doubles, inputs = x.doubles, offsets = bias.doubles
      let expected = (0..<9 * out).map { index in
        (0..<depth).reduce(offsets[index % out]) {
          $0 + inputs[index / out * depth + $1] * values[index % out * depth + $1]
        }
      }
      let result = compute.linear(x, compute.prepareLinear(weight, bias: bias), output: .fp32)
      #expect(relativeError(result, expected) < 0.02)
      results.insert(result.floats())
    }
    #expect(results.count == 1, "instruction sets differ")
  }

  /// What the quantiser makes of a weight is the weight that has its numbers.
  @Test(arguments: [(50, 77, false), (49, 192, true), (97, 512, true)])
  func numbersOfTheQuantiserComeBack(_ out: Int, _ depth: Int, _ rotates: Bool) throws {
    let compute = Compute(precision: .int8, pool: testPool)
    let layer = compute.prepareLinear(weight: randomTensor([out, depth], seed: 7), rotates: rotates)
    let parts = try #require(layer.parts), panels = try #require(parts["panels"])
    let padded = (depth + 3) / 4 * 4
    let bytes = panels.withElements(as: UInt8.self) { elements in elements.indices.map { elements[$0] } }
    let numbers = (0..<out * depth).map { index in
      let (row, input) = (index / depth, index % depth)
      return Int8(bitPattern: bytes[row / 48 * 48 * padded + (input / 4 * 48 + row % 48) * 4 + input % 4])
    }
    let again = compute.prepareLinear(
      Int8Weight(
        numbers: Tensor(numbers, .int8, shape: [out, depth]), scales: try #require(parts["scales"]),
        rotation: layer.rotation))
    for (name, part) in parts {
      let found = try #require(again.parts?[name])
      #expect(found.byteArray == part.byteArray, "\(name)")
    }
  }
}

/// Packed weights as numbers again.
@Suite struct UnpackedWeightsTests {
  @Test(arguments: Precision.allCases) func areWhatTheProductsSee(_ precision: Precision) {
    let compute = Compute(precision: precision, pool: testPool)
    for (n, k) in [(1, 1), (50, 96), (101, 77), (48, 33)] {
      let layer = compute.prepareLinear(weight: randomTensor([n, k], seed: 2))
      let seen = LinearTests.weights(of: layer)
      let limit = [.int8, .q4].contains(precision) ? 1e-6 : 0  // the product with a unit vector rounds its two scales
      #expect(relativeError(compute.weight(of: layer), seen.doubles) <= limit, "\(precision) \(n)×\(k)")
    }
  }

  @Test(arguments: [Precision.bf16, .int8, .q4]) func theErrorIsThatOfTheNumbers(_ precision: Precision) {
    for (n, k) in [(1, 5), (50, 96), (101, 77)] {
      let weight = randomTensor([n, k], .bf16, seed: 2)
      let alone = Compute(precision: precision, pool: ThreadPool(threads: 1)),
        compute = Compute(precision: precision, pool: testPool)
      let layer = compute.prepareLinear(weight: weight), error = compute.relativeError(of: layer, from: weight)
      #expect(abs(error - relativeError(compute.weight(of: layer), weight.doubles)) < 1e-6)
      #expect(error == alone.relativeError(of: layer, from: weight), "threads change the error")
      #expect((error == 0) == (precision == .bf16))
    }
  }

  @Test func zerosHaveNoErrorAndNaNIsNoSmallOne() {
    let compute = Compute(precision: .int8, pool: testPool), zeros = Tensor.zeros([3, 40])
    #expect(compute.relativeError(of: compute.prepareLinear(weight: zeros), from: zeros) == 0)
    let broken = Tensor([1, .nan, 1, 1], shape: [2, 2])
    #expect(compute.relativeError(of: compute.prepareLinear(weight: broken), from: broken).isNaN)
  }
}
