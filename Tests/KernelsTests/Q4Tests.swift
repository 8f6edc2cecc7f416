import Foundation
import Kernels
import TensorCore
import Testing

/// Weights in 4 bits, read byte by byte as Shared/Documentation/packed-weights.md describes them, and their products in
/// integers.
private struct Q4Weight {
  /// 8-bit numbers [out, in]; the value of a weight is its number times its row's scale.
  let numbers: [Int]
  let scales: [Float]
  let depth: Int
  /// The levels of each panel of 48 rows.
  let levels: [[Int]]

  init(_ layer: Linear) throws {
    let parts = try #require(layer.parts), out = layer.outFeatures, depth = layer.inFeatures
    let panels = try #require(parts["panels"]), bytes = panels.byteArray
    let panelBytes = 16 + (depth + 15) / 16 * (48 + 48 * 8)
    #expect(bytes.count == (out + 47) / 48 * panelBytes)
    levels = (0..<(out + 47) / 48).map { panel in (0..<16).map { Int(Int8(bitPattern: bytes[panel * panelBytes + $0])) }
    }
    numbers = Reference.numbersQ4(bytes, columns: out, depth: depth)
    scales = try #require(parts["scales"]).floats()
    self.depth = depth
    let offsets = try #require(parts["offsets"]).withElements(as: Int32.self) { all in all.indices.map { Int(all[$0]) }
    }
    for row in 0..<out { #expect(offsets[row] == 128 * numbers[row * depth..<(row + 1) * depth].reduce(0, +)) }
  }

  /// The product with rows [rows, in] that are quantised one by one: exact sums of integers, and two roundings.
  func product(_ x: [Float]) -> [Float] {
    (0..<x.count / depth).flatMap { row in
      let values = x[row * depth..<(row + 1) * depth], scale = values.reduce(0) { max($0, abs($1)) } / 127
      let inverse = scale > 0 ? 1 / scale : 0
      let quantised = values.map { Int(($0 * inverse).rounded(.toNearestOrEven)) }
      return scales.indices.map { column in
        var sum = 0
        for k in 0..<depth { sum += quantised[k] * numbers[column * depth + k] }
        return Float(sum) * (scale * scales[column])
      }
    }
  }

  /// The values [out, in].
  var values: [Double] { numbers.indices.map { Double(numbers[$0]) * Double(scales[$0 / depth]) } }
}

@Suite struct Q4Tests {
  private static func relativeError(_ a: [Double], _ b: [Double]) -> Double {
    let difference = zip(a, b).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
    return (difference / b.reduce(0) { $0 + $1 * $1 }).squareRoot()
  }

  /// Odd extents, several panels, slabs and blocks of the depth: every table gives the model's bits.
  @Test(arguments: [
    (1, 1, 1), (2, 3, 5), (3, 50, 31), (9, 97, 33), (7, 48, 36), (5, 49, 77), (13, 101, 300), (401, 49, 44),
    (4, 60, 2049), (3, 97, 4133), (1540, 5, 40),
  ])
  func productsAreThoseOfTheIntegers(_ rows: Int, _ out: Int, _ depth: Int) throws {
    let x = randomTensor([rows, depth], seed: 1), weight = randomTensor([out, depth], seed: 2)
    var expected: [Float]?
    for compute in everyCompute([.q4]) {
      let layer = compute.prepareLinear(weight: weight)
      if expected == nil { expected = try Q4Weight(layer).product(x.floats()) }
      #expect(compute.linear(x, layer, output: .fp32).floats() == expected, "\(compute.numericsClass)")
    }
  }

  @Test func unpackedWeightsAreTheNumbers() throws {
    let compute = Compute(precision: .q4, pool: testPool)
    let layer = compute.prepareLinear(weight: randomTensor([77, 90], seed: 3))
    #expect(Self.relativeError(compute.weight(of: layer).doubles, try Q4Weight(layer).values) < 1e-7)
  }

  /// What was in equal steps before keeps its numbers nearly; normally distributed weights get levels of their own.
  @Test func levelsAreThoseThatFit() throws {
    let compute = Compute(precision: .q4, pool: testPool)
    let normal = randomTensor([96, 512], seed: 4), layer = compute.prepareLinear(weight: normal)
    let numbers = randomTensor([96, 512], seed: 5).floats(), scales = randomTensor([96, 16], seed: 6).floats()
    var equal = numbers.map { max(-8, min(7, ($0 * 3.5).rounded())) }
    for group in 0..<96 * 16 { equal[32 * group + group % 32] = -8 }
    let stepped = Tensor(equal.indices.map { equal[$0] * exp2f(0.3 * scales[$0 / 32]) }, shape: [96, 512])
    let kept = compute.prepareLinear(weight: stepped)
    for levels in try Q4Weight(kept).levels { #expect(levels == (0..<16).map { 16 * ($0 - 8) }) }
    for levels in try Q4Weight(layer).levels {
      #expect(levels == levels.sorted() && Set(levels).count == 16 && levels[8] == 0)
      #expect(levels != (0..<16).map { 16 * ($0 - 8) })
    }
    #expect(compute.relativeError(of: kept, from: stepped) < 0.02)
    #expect(compute.relativeError(of: layer, from: normal) < 0.068)
  }

  /// 4 bits as they were before: equal steps of a bf16 scale for 32 inputs, the best of six, times inputs in bf16.
  private static func formerProduct(_ x: Tensor, _ weight: Tensor) -> [Double] {
    let depth = weight.shape[1], values = weight.floats()
    var represented: [Double] = []
    for start in stride(from: 0, to: values.count, by: 32) {
      let group = values[start..<start + 32], largest = group.max { abs($0) < abs($1) } ?? 0
      let trials = (0..<6).map { step in
        let scale = Reference.bf16(-largest / (8 + 0.25 * Float(step)))
        return group.map { Double(Reference.bf16(max(-8, min(7, ($0 / scale).rounded(.toNearestOrEven))) * scale)) }
      }
      let errors = trials.map { zip($0, group).reduce(0) { $0 + ($1.0 - Double($1.1)) * ($1.0 - Double($1.1)) } }
      represented += trials[errors.indices.min { errors[$0] < errors[$1] } ?? 0]
    }
    return Reference.product(x.floats().map { Double(Reference.bf16($0)) }, represented, bias: nil, depth: depth).sums
  }

  /// On outputs, of weights and inputs as they are in a network: normally distributed ones, single large inputs, single
  /// large weights, rows of different sizes.
  @Test(arguments: ["normal", "inputs", "weights", "rows"]) func isNoLessExactThanBefore(_ kind: String) {
    let (rows, out, depth) = (24, 96, 1024)
    var inputs = randomTensor([rows, depth], seed: 7).floats(), weights = randomTensor([out, depth], seed: 8).floats()
    for index in inputs.indices where kind == "inputs" && index % depth % 211 == 3 { inputs[index] *= 60 }
    for index in weights.indices {
      if kind == "weights" && index % depth % 173 == 9 { weights[index] *= 20 }
      if kind == "rows" { weights[index] *= exp2f(Float(index / depth % 9)) }
    }
    let x = Tensor(inputs, shape: [rows, depth]), weight = Tensor(weights, shape: [out, depth])
    let exact = Reference.product(x.doubles, weight.doubles, bias: nil, depth: depth).sums
    let before = Self.relativeError(Self.formerProduct(x, weight), exact)
    let compute = Compute(precision: .q4, pool: testPool)
    let found = compute.linear(x, compute.prepareLinear(weight: weight, rotates: true), output: .fp32)
    let error = Self.relativeError(found.doubles, exact)
    #expect(error <= before && error < 0.075, "\(kind): \(error), before \(before)")
  }

  /// The step of each group is nearly the best one that there is.
  @Test func stepsAreNearTheBest() throws {
    let compute = Compute(precision: .q4, pool: testPool), weight = randomTensor([48, 256], seed: 9)
    let layer = compute.prepareLinear(weight: weight), found = try Q4Weight(layer), values = weight.doubles
    let levels = try #require(found.levels.first).map(Double.init)
    var best = 0.0
    for start in stride(from: 0, to: values.count, by: 16) {
      let group = values[start..<start + 16], largest = group.reduce(0) { max($0, abs($1)) }
      best +=
        stride(from: 40.0, through: 200, by: 4).flatMap { [$0, -$0] }.map { trial in
          let step = trial / 100 * largest / 128
          return group.reduce(0) { sum, value in
            sum + levels.reduce(.infinity) { min($0, ($1 * step - value) * ($1 * step - value)) }
          }
        }.min() ?? 0
    }
    let error = zip(found.values, values).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
    #expect(error >= best * 0.97 && error < best * 1.12, "\(error), the best \(best)")
  }

  @Test func rowsThatAreNotFiniteStayAlone() {
    for value in [Float.nan, .infinity] {
      var weights = randomTensor([50, 70], seed: 10).floats()
      weights[3 * 70 + 65] = value
      for index in 7 * 70..<8 * 70 { weights[index] = 0 }
      for index in 9 * 70..<10 * 70 { weights[index] *= 1e-38 }
      for compute in everyCompute([.q4]) {
        let layer = compute.prepareLinear(weight: Tensor(weights, shape: [50, 70]))
        let result = compute.linear(randomTensor([2, 70], seed: 11), layer, output: .fp32).floats()
        for (index, value) in result.enumerated() {
          #expect(value.isNaN == (index % 50 == 3), "row \(index % 50)")
          if [7, 9].contains(index % 50) { #expect(value == 0) }
        }
      }
    }
  }

  /// Numbers of 4 bits with a scale for each row are what they are as numbers of 8 bits.
  @Test(arguments: [(50, 77, 1), (101, 512, 64), (97, 512, 256), (1, 3, 1)])
  func numbersOf4BitsAreTakenAsTheyAre(_ out: Int, _ depth: Int, _ rotation: Int) throws {
    let numbers = (0..<out * depth).map { Int8($0 &* 37 % 16 - 8) }
    let weight = Int8Weight(
      numbers: Tensor(numbers, .int8, shape: [out, depth]),
      scales: Tensor((0..<out).map { $0 % 7 == 3 ? 0 : 0.001 * Float($0 + 1) }, shape: [out]), rotation: rotation)
    let x = randomTensor([9, depth], seed: 12), bias = randomTensor([out], seed: 13)
    for compute in everyCompute([.q4]) {
      let layer = compute.prepareLinear(in4Bits: weight, bias: bias)
      #expect(layer.precision == .q4 && layer.rotation == rotation)
      #expect(try Q4Weight(layer).numbers == numbers.map(Int.init))
      let expected = compute.linear(x, compute.prepareLinear(weight, bias: bias), output: .fp32)
      #expect(compute.linear(x, layer, output: .fp32).isIdentical(to: expected), "\(compute.numericsClass)")
    }
  }
}
