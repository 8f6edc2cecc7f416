import Foundation
import Kernels
import TensorCore
import Testing

/// What is added to the weights of linear layers, against ΔW written out in double precision.
@Suite struct LinearUpdateTests {
  /// Terms of a layer [out, in], and the ΔW that they stand for.
  private struct Update {
    let terms: [LinearUpdate.Term]
    /// [out, in].
    let weight: [Double]

    static func lowRank(_ out: Int, _ depth: Int, ranks: [Int], seed: UInt64) -> Update {
      var terms: [LinearUpdate.Term] = [], weight = [Double](repeating: 0, count: out * depth)
      for (index, rank) in ranks.enumerated() {
        let seed = seed + UInt64(2 * index), scale = [0.5, -1.25, 2][index % 3]
        let down = randomTensor([rank, depth], index % 2 == 0 ? .bf16 : .fp32, scale: 0.2, seed: seed)
        let up = randomTensor([out, rank], scale: 0.3, seed: seed + 1)
        terms.append(.lowRank(down: down, up: up, scale: Float(scale)))
        let (a, b) = (down.doubles, up.doubles)
        for row in 0..<out {
          for inner in 0..<rank {
            let factor = scale * b[row * rank + inner]
            for column in 0..<depth { weight[row * depth + column] += factor * a[inner * depth + column] }
          }
        }
      }
      return Update(terms: terms, weight: weight)
    }

    static func kronecker(_ left: Shape, _ right: Shape, seed: UInt64) -> Update {
      let l = randomTensor(left, scale: 0.3, seed: seed), r = randomTensor(right, .bf16, scale: 0.3, seed: seed + 1)
      let (x, y) = (l.doubles, r.doubles), columns = left[1] * right[1]
      let weight = (0..<left[0] * right[0] * columns).map { index in
        let (row, column) = (index / columns, index % columns)
        return 0.75 * x[row / right[0] * left[1] + column / right[1]] * y[row % right[0] * right[1] + column % right[1]]
      }
      return Update(terms: [.kronecker(left: l, right: r, scale: 0.75)], weight: weight)
    }

    static func + (a: Update, b: Update) -> Update {
      Update(terms: a.terms + b.terms, weight: zip(a.weight, b.weight).map { $0 + $1 })
    }
  }

  /// Compares what an update adds to a layer's sums with x·ΔWᵀ.
  private func check(_ compute: Compute, _ x: Tensor, _ layer: Linear, _ update: Update, _ comment: String) {
    let updated = compute.updated(layer, by: update.terms)
    let plain = compute.linear(x, layer, output: .fp32).doubles
    let found = compute.linear(x, updated, output: .fp32)
    let expected = Reference.product(x.doubles, update.weight, bias: nil, depth: x.shape[1])
    // In bf16, inputs, factors and their first product are rounded; beside quantised weights, inputs and first factors
    // are 8-bit numbers.
    let tolerance = compute.precision == .fp32 ? 4e-6 : 0x1p-6
    var difference = 0.0, norm = 0.0, sums = 0.0
    for (index, value) in found.doubles.enumerated() {
      difference += (value - plain[index] - expected.sums[index]) * (value - plain[index] - expected.sums[index])
      norm += expected.sums[index] * expected.sums[index]
      sums += plain[index] * plain[index]
    }
    #expect(
      difference.squareRoot() <= tolerance * norm.squareRoot() + 1e-6 * sums.squareRoot(),
      "\(compute.numericsClass) \(comment): \((difference / norm).squareRoot())")
  }

  @Test(arguments: everyComputeAndBLAS) func addsLowRankProducts(_ compute: Compute) {
    let cases: [(m: Int, n: Int, k: Int, ranks: [Int])] = [
      (1, 1, 1, [1]), (5, 12, 42, [3]), (37, 100, 48, [32]), (13, 50, 63, [1, 5, 2]), (400, 49, 64, [49]),
      (1700, 60, 80, [7]), (9, 97, 3420, [16]), (7, 48, 96, [200, 30]),
    ]
    for (index, shape) in cases.enumerated() {
      let seed = UInt64(100 * index), x = randomTensor([shape.m, shape.k], compute.activationDType, seed: seed)
      let layer = compute.prepareLinear(
        weight: randomTensor([shape.n, shape.k], scale: 0.2, seed: seed + 1),
        bias: randomTensor([shape.n], seed: seed + 2))
      check(compute, x, layer, .lowRank(shape.n, shape.k, ranks: shape.ranks, seed: seed + 3), "\(shape)")
    }
  }

  /// First factors are rotated as the inputs are that they share with the weight.
  @Test(arguments: everyCompute([.int8, .q4])) func layersThatRotateTheirInputsAddThemToo(_ compute: Compute) {
    let x = randomTensor([21, 512], .bf16, seed: 1)
    let layer = compute.prepareLinear(weight: randomTensor([70, 512], scale: 0.1, seed: 2), rotates: true)
    #expect(layer.rotation == 256)
    check(compute, x, layer, .lowRank(70, 512, ranks: [8], seed: 3), "rotated")
  }

  /// A layer that a quantised mode keeps in bf16.
  @Test(arguments: everyCompute([.int8, .q4])) func layersOfAnotherPrecisionAddThem(_ compute: Compute) {
    let x = randomTensor([21, 64], .bf16, seed: 1)
    let layer = compute.prepareLinear(weight: randomTensor([70, 64], scale: 0.1, seed: 2), precision: .bf16)
    check(compute, x, layer, .lowRank(70, 64, ranks: [8], seed: 3), "bf16")
  }

  @Test(arguments: everyComputeAndBLAS) func addsKroneckerProducts(_ compute: Compute) {
    for (index, shapes) in [
      (Shape([3, 2]), Shape([20, 24])), (Shape([1, 4]), Shape([60, 12])), (Shape([4, 1]), Shape([15, 48])),
    ]
    .enumerated() {
      let seed = UInt64(10 * index), x = randomTensor([33, 48], compute.activationDType, seed: seed)
      let layer = compute.prepareLinear(
        weight: randomTensor([60, 48], scale: 0.2, seed: seed + 1), bias: randomTensor([60], seed: seed + 2))
      let update = Update.kronecker(shapes.0, shapes.1, seed: seed + 3)
      check(compute, x, layer, update, "\(shapes)")
      check(compute, x, layer, update + .lowRank(60, 48, ranks: [5], seed: seed + 5), "\(shapes) and a low rank")
    }
  }

  /// Activation, gates and residual see the sum with the update.
  @Test(arguments: everyComputeAndBLAS) func comesBeforeActivationAndGate(_ compute: Compute) {
    let x = randomTensor([29, 96], compute.activationDType, seed: 1)
    let update = Update.lowRank(70, 96, ranks: [6], seed: 2) + .kronecker([2, 4], [35, 24], seed: 9)
    let layer = compute.updated(
      compute.prepareLinear(weight: randomTensor([70, 96], scale: 0.2, seed: 3), bias: randomTensor([70], seed: 4)),
      by: update.terms)
    let plain = compute.linear(x, layer, output: .fp32)
    expectClose(compute.linear(x, layer, activation: .silu, output: .fp32), plain.doubles.map(Reference.silu)) {
      6e-7 * abs($1)
    }
    let gates = [randomTensor([70], seed: 5), randomTensor([70], seed: 6)], start = randomTensor([29, 70], seed: 7)
    func expect(_ residual: Tensor, _ gate: (Int) -> Double) {
      let before = start.doubles, products = plain.doubles
      expectClose(residual, before.indices.map { before[$0] + gate($0) * products[$0] }) {
        0x1p-22 * (abs(before[$0]) + abs(gate($0) * products[$0]) + abs($1))
      }
    }
    var residual = start.copied()
    compute.linear(x, layer, addingTo: &residual, gate: gates[0])
    let first = gates[0].doubles, second = gates[1].doubles
    expect(residual) { first[$0 % 70] }
    residual = start.copied()
    compute.linear(x, layer, addingTo: &residual, gates: [(0..<10, gates[0]), (10..<29, gates[1])])
    expect(residual) { $0 / 70 < 10 ? first[$0 % 70] : second[$0 % 70] }
  }

  @Test(arguments: everyCompute()) func aRowDoesNotDependOnTheOthersNorOnThreads(_ compute: Compute) {
    let update = Update.lowRank(96, 64, ranks: [9, 40], seed: 1) + .kronecker([2, 4], [48, 16], seed: 9)
    let plain = compute.prepareLinear(weight: randomTensor([96, 64], scale: 0.2, seed: 2), bias: nil)
    let layer = compute.updated(plain, by: update.terms), x = randomTensor([1700, 64], seed: 3)
    let whole = compute.linear(x, layer, output: .fp32)
    for range in [0..<1, 5..<6, 36..<229, 1530..<1540, 1699..<1700] {
      #expect(
        compute.linear(x.rows(range), layer, output: .fp32).isIdentical(to: whole.rows(range)),
        "\(compute.numericsClass) rows \(range)")
    }
    for threads in [1, 3] {
      let other = compute.on(ThreadPool(threads: threads))
      #expect(other.linear(x, layer, output: .fp32).isIdentical(to: whole), "\(threads) threads")
    }
  }

  /// The packed weight is shared, and what is beside it can be replaced and taken away.
  @Test(arguments: everyComputeAndBLAS) func isReplacedAndTakenAway(_ compute: Compute) {
    let plain = compute.prepareLinear(weight: randomTensor([96, 64], scale: 0.2, seed: 2), bias: nil)
    let x = randomTensor([33, 64], seed: 3), before = compute.linear(x, plain, output: .fp32)
    let one = Update.lowRank(96, 64, ranks: [4], seed: 4).terms,
      other = Update.lowRank(96, 64, ranks: [6], seed: 8).terms
    let layer = compute.updated(plain, by: one)
    #expect(!compute.linear(x, layer, output: .fp32).isIdentical(to: before))
    #expect(compute.linear(x, compute.updated(layer, by: []), output: .fp32).isIdentical(to: before))
    #expect(
      compute.linear(x, compute.updated(layer, by: other), output: .fp32)
        .isIdentical(to: compute.linear(x, compute.updated(plain, by: other), output: .fp32)))
    guard case .lowRank(let down, let up, _)? = one.first else { return }
    let silent = compute.updated(plain, by: [.lowRank(down: down, up: up, scale: 0)])
    #expect(compute.linear(x, silent, output: .fp32).isIdentical(to: before), "a scale of 0")
  }
}
