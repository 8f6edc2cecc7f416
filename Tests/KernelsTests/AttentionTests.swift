import Foundation
import Kernels
import TensorCore
import Testing

@Suite struct AttentionTests {
  typealias Case = Reference.AttentionCase

  static let cases = [
    Case(n: 1, m: 1, heads: 1, kvHeads: 1, headDim: 1, causal: false),
    Case(n: 5, m: 7, heads: 3, kvHeads: 3, headDim: 16, causal: false),
    Case(n: 37, m: 37, heads: 4, kvHeads: 2, headDim: 16, causal: true),
    Case(n: 3, m: 50, heads: 2, kvHeads: 1, headDim: 13, causal: true),
    Case(n: 50, m: 3, heads: 1, kvHeads: 1, headDim: 8, causal: true),
    Case(n: 130, m: 1001, heads: 1, kvHeads: 1, headDim: 24, causal: false),
    Case(n: 300, m: 600, heads: 2, kvHeads: 1, headDim: 128, causal: true),
    Case(n: 97, m: 500, heads: 1, kvHeads: 1, headDim: 384, causal: false),
    Case(n: 20, m: 60, heads: 2, kvHeads: 2, headDim: 80, causal: false),
  ]

  static func inputs(_ c: Case, _ dtype: DType, seed: UInt64) -> (q: Tensor, k: Tensor, v: Tensor) {
    (
      randomTensor([c.n, c.heads * c.headDim], dtype, scale: 1.5, seed: seed),
      randomTensor([c.m, c.kvHeads * c.headDim], dtype, scale: 1.5, seed: seed + 1),
      randomTensor([c.m, c.kvHeads * c.headDim], dtype, seed: seed + 2)
    )
  }

  private struct Key: Hashable { var c: Case, dtype: DType, seed: UInt64 }
  private static let references = SharedReferences<Key, [Double]>()

  static func reference(_ c: Case, _ dtype: DType, seed: UInt64) -> [Double] {
    references.value(Key(c: c, dtype: dtype, seed: seed)) {
      let (q, k, v) = inputs(c, dtype, seed: seed)
      return Reference.attention(c, q.doubles, k.doubles, v.doubles)
    }
  }

  @Test(arguments: floatingComputes) func matchesDoubles(_ compute: Compute) {
    for (index, c) in Self.cases.enumerated() {
      let seed = UInt64(index) * 3, (q, k, v) = Self.inputs(c, compute.activationDType, seed: seed)
      let result = compute.attention(
        q: q, k: k, v: v, heads: c.heads, kvHeads: c.kvHeads, headDim: c.headDim, causal: c.causal)
      #expect(result.shape == q.shape && result.dtype == compute.activationDType)
      // In bf16 the weights are rounded, and so is the result: two independent roundings of at most 2^-8 each.
      let error = relativeError(result, Self.reference(c, compute.activationDType, seed: seed))
      #expect(error < (compute.precision == .fp32 ? 2e-6 : 0x1p-8), "\(compute.numericsClass) \(c): \(error)")
    }
  }

  /// The widest head that there is, in the middle of an autoencoder. A score is a sum of three times as many products
  /// as in the widest case above, and its rounding error, which grows with the root of their number, is at most twice
  /// as large.
  @Test(arguments: floatingComputes) func wideHeadsMatchDoubles(_ compute: Compute) {
    let c = Case(n: 50, m: 300, heads: 1, kvHeads: 1, headDim: 1152, causal: false)
    let (q, k, v) = Self.inputs(c, compute.activationDType, seed: 500)
    let result = compute.attention(q: q, k: k, v: v, heads: 1, kvHeads: 1, headDim: c.headDim, causal: false)
    let error = relativeError(result, Self.reference(c, compute.activationDType, seed: 500))
    #expect(error < (compute.precision == .fp32 ? 4e-6 : 0x1p-8), "\(compute.numericsClass): \(error)")
  }

  @Test(arguments: floatingComputes) func matchesDoublesOnRandomShapes(_ compute: Compute) {
    var generator = SeededGenerator(7)
    for round in 0..<20 {
      let kvHeads = Int.random(in: 1...3, using: &generator)
      let c = Case(
        n: .random(in: 1...120, using: &generator), m: .random(in: 1...130, using: &generator),
        heads: kvHeads * .random(in: 1...3, using: &generator),
        kvHeads: kvHeads, headDim: .random(in: 1...70, using: &generator), causal: .random(using: &generator))
      let seed = UInt64(round) * 3 + 1000, (q, k, v) = Self.inputs(c, compute.activationDType, seed: seed)
      let result = compute.attention(
        q: q, k: k, v: v, heads: c.heads, kvHeads: c.kvHeads, headDim: c.headDim, causal: c.causal)
      let error = relativeError(result, Self.reference(c, compute.activationDType, seed: seed))
      #expect(error < (compute.precision == .fp32 ? 2e-6 : 0x1p-8), "\(compute.numericsClass) \(c): \(error)")
    }
  }

  @Test(arguments: floatingComputes) func aRowDoesNotDependOnTheOthers(_ compute: Compute) {
    let c = Case(n: 211, m: 700, heads: 2, kvHeads: 1, headDim: 40, causal: false)
    let (q, k, v) = Self.inputs(c, compute.activationDType, seed: 5)
    let whole = compute.attention(q: q, k: k, v: v, heads: 2, kvHeads: 1, headDim: 40, causal: false)
    for range in [0..<1, 100..<101, 50..<177] {
      let part = compute.attention(q: q.rows(range), k: k, v: v, heads: 2, kvHeads: 1, headDim: 40, causal: false)
      #expect(part.isIdentical(to: whole.rows(range)))
    }
  }

  /// Parts of one block of queries, which are computed by head, and larger ones; an empty one changes nothing.
  @Test(arguments: floatingComputes) func rowsOfPartsSeeTheirPartOnly(_ compute: Compute) {
    let c = Case(n: 520, m: 520, heads: 4, kvHeads: 2, headDim: 20, causal: false)
    let (q, k, v) = Self.inputs(c, compute.activationDType, seed: 11)
    let parts = [0..<1, 1..<65, 65..<65, 65..<257, 257..<450, 450..<520]
    let result = compute.attention(q: q, k: k, v: v, heads: 4, kvHeads: 2, headDim: 20, within: parts)
    #expect(result.shape == q.shape && result.dtype == compute.activationDType)
    for part in parts {
      let alone = compute.attention(
        q: q.rows(part), k: k.rows(part), v: v.rows(part), heads: 4, kvHeads: 2, headDim: 20, causal: false)
      #expect(result.rows(part).isIdentical(to: alone), "\(part) of \(compute.numericsClass)")
    }
  }

  @Test(arguments: floatingComputes) func largeScoresDoNotOverflow(_ compute: Compute) {
    let q = randomTensor([4, 16], compute.activationDType, scale: 200, seed: 1),
      k = randomTensor([600, 16], compute.activationDType, scale: 200, seed: 2)
    let v = randomTensor([600, 16], compute.activationDType, seed: 3)
    let c = Case(n: 4, m: 600, heads: 1, kvHeads: 1, headDim: 16, causal: false)
    let result = compute.attention(q: q, k: k, v: v, heads: 1, kvHeads: 1, headDim: 16, causal: false)
    #expect(
      relativeError(result, Reference.attention(c, q.doubles, k.doubles, v.doubles))
        < (compute.precision == .fp32 ? 1e-3 : 1e-2))
  }
}
