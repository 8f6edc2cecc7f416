import Kernels
import TensorCore
import Testing

/// Products of AMX's tile registers, of the processor where it has them, and of the model: not only near the exact
/// result, but rounded as the instructions' description says.
@Suite struct TileRegisterTests {
  static let computes =
    (InstructionSet.available.contains(.amx) ? [Compute(precision: .bf16, pool: testPool, instructionSet: .amx)] : [])
    + modelledComputes(.bf16).filter { $0.instructionSet == .amx }

  /// Subnormal numbers count as zero.
  private static func flushed(_ x: Float) -> Float { x.isSubnormal ? (x.sign == .minus ? -0.0 : 0) : x }

  /// x·wᵀ as sums of one instruction for every 32 numbers along the depth: even and odd products apart, each with one
  /// rounding, then added up, and to what was there.
  private static func products(_ x: [Float], _ w: [Float], depth: Int) -> [Float] {
    let padded = (depth + 31) / 32 * 32
    func row(_ matrix: [Float], _ index: Int) -> [Float] {
      matrix[index * depth..<(index + 1) * depth].map { flushed(Reference.bf16($0)) }
        + Array(repeating: 0, count: padded - depth)
    }
    let columns = (0..<w.count / depth).map { row(w, $0) }
    return (0..<x.count / depth).flatMap { index in
      let left = row(x, index)
      return columns.map { right in
        stride(from: 0, to: padded, by: 32).reduce(Float(0)) { sum, start in
          var parts: [Float] = [0, 0]
          for k in start..<start + 32 { parts[k % 2] = flushed(parts[k % 2].addingProduct(left[k], right[k])) }
          return flushed(sum + flushed(parts[0] + parts[1]))
        }
      }
    }
  }

  /// Every number of rows and columns of a register, and parts of one; blocks of the depth, and parts of a register
  /// along it.
  static let shapes: [(m: Int, n: Int, k: Int)] = [
    (1, 1, 1), (15, 16, 31), (16, 17, 32), (17, 48, 33), (31, 49, 64), (32, 15, 65), (33, 96, 1), (5, 33, 511),
    (48, 1, 512), (64, 50, 513), (3, 97, 1500), (385, 5, 100),
  ]

  @Test(arguments: computes) func productsAreRoundedAsTheInstructionIsDescribed(_ compute: Compute) {
    for (index, shape) in Self.shapes.enumerated() {
      let x = randomTensor([shape.m, shape.k], seed: UInt64(index)), w = randomTensor([shape.n, shape.k], seed: 99)
      let result = compute.linear(x, compute.prepareLinear(weight: w), output: .fp32)
      let expected = Self.products(x.floats(), w.floats(), depth: shape.k)
      #expect(result.floats() == expected, "\(compute.numericsClass) \(shape)")
    }
  }

  /// 2⁻¹²⁶ is the smallest number that is not taken for zero; and sums of even products hide nothing of odd ones.
  @Test(arguments: computes) func subnormalNumbersAreZeroAndPairsAreAddedUpApart(_ compute: Compute) {
    func product(_ x: [Float], _ w: [Float]) -> Float {
      let weight = compute.prepareLinear(weight: Tensor(w, shape: [1, w.count]))
      return compute.linear(Tensor(x, shape: [1, x.count]), weight, output: .fp32).floats()[0]
    }
    #expect(product([0x1p-126, 0], [1, 1]) == 0x1p-126)
    #expect(product([0x1p-127, 0], [1, 1]) == 0)
    #expect(product([0x1p-127, 0], [2, 1]) == 0)
    #expect(product([0x1p-64, 0], [0x1p-63, 1]) == 0)
    // One after the other, 1 would be lost in 2³⁰ and only the last of them left.
    #expect(product([0x1p30, 1, -0x1p30, 1], [1, 1, 1, 1]) == 2)
    #expect(product([0x1p30, 1, 1, 1, -0x1p30, 1], [1, 1, 1, 1, 1, 1]) == 3)
  }

  /// A row has the same bytes at every place of a register.
  @Test(arguments: computes) func placesInARegisterAreAlike(_ compute: Compute) {
    let row = randomTensor([1, 777], seed: 3), layer = compute.prepareLinear(weight: randomTensor([50, 777], seed: 4))
    let alone = compute.linear(row, layer, output: .fp32)
    let all = compute.linear(Tensor.stacking(Array(repeating: row, count: 70)), layer, output: .fp32)
    for index in 0..<70 { #expect(all.rows(index..<index + 1).isIdentical(to: alone), "row \(index)") }
  }
}
