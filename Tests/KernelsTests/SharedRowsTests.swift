import Kernels
import TensorCore
import Testing

/// Rows that several layers read give every layer the bytes that it has alone.
@Suite struct SharedRowsTests {
  @Test(arguments: everyComputeAndBLAS) func layersHaveTheBytesThatTheyHaveAlone(_ compute: Compute) {
    // More rows than a slab, and one row.
    for rows in [1, 37, 1541] {
      let x = randomTensor([rows, 80], compute.activationDType, seed: 1), shared = SharedRows(x)
      for (seed, rotates) in [(2, false), (3, true), (4, false)] {
        let weight = randomTensor([70, 80], scale: 0.2, seed: UInt64(seed))
        let plain = compute.prepareLinear(weight: weight, bias: randomTensor([70], seed: 5), rotates: rotates)
        let low = LinearUpdate.Term.lowRank(
          down: randomTensor([6, 80], scale: 0.2, seed: 6), up: randomTensor([70, 6], scale: 0.3, seed: 7), scale: 0.5)
        let kept = compute.prepareLinear(weight: weight, precision: compute.precision == .fp32 ? nil : .bf16)
        for layer in [plain, compute.updated(plain, by: [low]), kept, compute.updated(kept, by: [low])] {
          let alone = compute.linear(x, layer, activation: .silu, output: .fp32)
          #expect(
            compute.linear(shared, layer, activation: .silu, output: .fp32).isIdentical(to: alone),
            "\(compute.numericsClass), \(rows) rows, \(layer.precision)")
          var target = MutableTensor(zeros: [rows + 3, 70])
          compute.linear(shared, layer, activation: .silu, into: &target, rowsFrom: 2)
          #expect(target.finish().rows(2..<rows + 2).isIdentical(to: alone))
        }
      }
    }
  }

  /// Rows whose forms are too large to be kept are packed for each layer.
  @Test(arguments: everyCompute([.bf16, .int8, .q4])) func manyRowsAreNotKept(_ compute: Compute) {
    let x = randomTensor([1600, 80], .bf16, seed: 1), shared = SharedRows(x, maxFormBytes: 1600 * 80 - 1)
    let low = LinearUpdate.Term.lowRank(
      down: randomTensor([6, 80], scale: 0.2, seed: 6), up: randomTensor([70, 6], scale: 0.3, seed: 7), scale: 0.5)
    let plain = compute.prepareLinear(weight: randomTensor([70, 80], seed: 2), rotates: true)
    for layer in [plain, compute.updated(plain, by: [low])] {
      #expect(compute.linear(shared, layer).isIdentical(to: compute.linear(x, layer)), "\(compute.numericsClass)")
    }
  }
}
