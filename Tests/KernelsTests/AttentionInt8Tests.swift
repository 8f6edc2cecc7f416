import Foundation
import Kernels
import TensorCore
import Testing

/// Attention with 8-bit products: in int8 mode, of sequences from a certain length on.
@Suite struct AttentionInt8Tests {
  typealias Case = Reference.AttentionCase

  static let computes = everyCompute([.int8])
  static let keys = Compute.attentionInt8Keys

  /// One query, odd numbers of everything, the last tile of keys full or of one key; with and without rotation.
  static let cases = [
    Case(n: 1, m: keys, heads: 1, kvHeads: 1, headDim: 128, causal: false),
    Case(n: 5, m: keys + 1, heads: 3, kvHeads: 3, headDim: 16, causal: false),
    Case(n: 37, m: keys + 129, heads: 4, kvHeads: 2, headDim: 13, causal: false),
    Case(n: 50, m: 22 * 192, heads: 1, kvHeads: 1, headDim: 80, causal: false),
    Case(n: 61, m: keys + 277, heads: 2, kvHeads: 1, headDim: 128, causal: false),
    Case(n: 193, m: keys + 6, heads: 1, kvHeads: 1, headDim: 64, causal: false),
    Case(n: 7, m: keys + 76, heads: 1, kvHeads: 1, headDim: 256, causal: false),
  ]

  static func inputs(_ c: Case, seed: UInt64) -> (q: Tensor, k: Tensor, v: Tensor) {
    (
      randomTensor([c.n, c.heads * c.headDim], .bf16, seed: seed),
      randomTensor([c.m, c.kvHeads * c.headDim], .bf16, seed: seed + 1),
      randomTensor([c.m, c.kvHeads * c.headDim], .bf16, seed: seed + 2)
    )
  }

  static func attention(_ c: Case, _ q: Tensor, _ k: Tensor, _ v: Tensor, _ compute: Compute) -> Tensor {
    compute.attention(q: q, k: k, v: v, heads: c.heads, kvHeads: c.kvHeads, headDim: c.headDim, causal: c.causal)
  }

  static let best = Compute(precision: .int8, pool: testPool)

  /// Scores have a standard deviation of one: rounding queries and keys (rms 0.3 / 127 of a row's largest, about 2.7
  /// standard deviations) gives weights an error of 0.9 %, values have one of 0.7 %, and weights a second one of as
  /// much.
  @Test func matchesDoubles() {
    for (index, c) in Self.cases.enumerated() {
      let (q, k, v) = Self.inputs(c, seed: UInt64(index) * 3)
      let result = Self.attention(c, q, k, v, Self.best)
      #expect(result.shape == q.shape && result.dtype == .bf16)
      let error = relativeError(result, Reference.attention(c, q.doubles, k.doubles, v.doubles))
      #expect(error < 0.017, "\(c): \(error)")
    }
  }

  /// Integers are exact and all else is fused everywhere, without or with instructions for it.
  @Test(arguments: computes) func allInstructionSetsGiveTheSameBytes(_ compute: Compute) {
    for (index, c) in Self.cases.enumerated() {
      let (q, k, v) = Self.inputs(c, seed: UInt64(index) * 3)
      #expect(
        Self.attention(c, q, k, v, compute).isIdentical(to: Self.attention(c, q, k, v, Self.best)),
        "\(compute.numericsClass) \(c)")
    }
  }

  /// What all keys have in common and single large channels must not decide how coarsely the rest is seen: without
  /// taking the mean off, keys would be seen in steps of about a half.
  @Test func commonMeansAndLargeChannelsKeepTheError() {
    let c = Case(n: 40, m: Self.keys + 176, heads: 1, kvHeads: 1, headDim: 128, causal: false)
    let (q, k, v) = Self.inputs(c, seed: 70)
    let mean = randomTensor([128], scale: 20, seed: 73).floats()
    let shifted = Tensor(k.floats().enumerated().map { $1 + mean[$0 % 128] }, shape: k.shape).rounded(to: .bf16)
    // As large as the mean is, the keys' own rounding to bf16 is part of the input.
    func large(_ x: Tensor, _ factor: Float) -> Tensor {
      Tensor(x.floats().enumerated().map { $1 * ($0 % 64 == 5 ? factor : 1) }, shape: x.shape).rounded(to: .bf16)
    }
    for (q, k) in [(q, shifted), (large(q, 6), large(k, 0.2)), (large(q, 4), large(k, 2))] {
      let error = relativeError(
        Self.attention(c, q, k, v, Self.best), Reference.attention(c, q.doubles, k.doubles, v.doubles))
      #expect(error < 0.04, "\(error)")
    }
  }

  @Test(arguments: computes) func aRowDoesNotDependOnTheOthers(_ compute: Compute) {
    let c = Case(n: 211, m: Self.keys + 76, heads: 2, kvHeads: 1, headDim: 40, causal: false)
    let (q, k, v) = Self.inputs(c, seed: 5), whole = Self.attention(c, q, k, v, compute)
    for range in [0..<1, 100..<101, 50..<177] {
      #expect(Self.attention(c, q.rows(range), k, v, compute).isIdentical(to: whole.rows(range)))
    }
  }

  @Test func bytesDoNotDependOnTheNumberOfThreads() {
    let c = Case(n: 400, m: Self.keys + 76, heads: 5, kvHeads: 5, headDim: 32, causal: false)
    let (q, k, v) = Self.inputs(c, seed: 8)
    let alone = Self.attention(c, q, k, v, Compute(precision: .int8, pool: ThreadPool(threads: 1)))
    for threads in [2, 3, 5] {
      let shared = Self.attention(c, q, k, v, Compute(precision: .int8, pool: ThreadPool(threads: threads)))
      #expect(shared.isIdentical(to: alone), "\(threads) threads")
    }
  }

  @Test(arguments: computes) func rowsThatAreAllEqualOrZero(_ compute: Compute) {
    let c = Case(n: 3, m: Self.keys + 76, heads: 1, kvHeads: 1, headDim: 32, causal: false)
    let (q, k, v) = Self.inputs(c, seed: 21)
    func repeated(_ row: Tensor) -> Tensor { Tensor.stacking(Array(repeating: row, count: c.m)) }
    let zeroQueries = Tensor.zeros(q.shape).rounded(to: .bf16), zeroRows = Tensor.zeros(k.shape).rounded(to: .bf16)
    // All weights are equal, whether queries or keys are: the mean of the values, which cancel to 1/√m of their size.
    let values = v.doubles
    let mean = (0..<c.n * 32).map { at in
      (0..<c.m).reduce(0.0) { $0 + values[$1 * 32 + at % 32] } / Double(c.m)
    }
    for (q, k) in [(zeroQueries, k), (q, repeated(k.rows(0..<1))), (q, zeroRows)] {
      expectClose(Self.attention(c, q, k, v, compute), mean, compute.numericsClass) { _, _ in 2e-3 }
    }
    // A mean of equal values is that value, to their quantization and the result's.
    let one = v.rows(0..<1), expected = (0..<c.n).flatMap { _ in one.doubles }
    expectClose(Self.attention(c, q, k, repeated(one), compute), expected, compute.numericsClass) { _, x in
      abs(x) * 0.006
    }
    #expect(Self.attention(c, q, k, zeroRows, compute).floats().allSatisfy { $0 == 0 })
  }

  /// A key far above all others gives its value, however large scores are; and numbers near the end of the range.
  @Test(arguments: computes) func hugeScores(_ compute: Compute) {
    let c = Case(n: 1, m: Self.keys + 76, heads: 1, kvHeads: 1, headDim: 64, causal: false)
    let (q, k, v) = Self.inputs(c, seed: 31)
    let expected = v.rows(777..<778).doubles
    for size: Float in [100, 1e10, 1e17] {
      var rows = k.floats()
      for x in 0..<64 { rows[777 * 64 + x] = q.floats()[x] * 40 }
      let key = Tensor(rows.map { $0 * size }, shape: k.shape).rounded(to: .bf16)
      let query = Tensor(q.floats().map { $0 * size }, shape: q.shape).rounded(to: .bf16)
      expectClose(Self.attention(c, query, key, v, compute), expected, "\(compute.numericsClass) \(size)") { _, _ in
        0.03
      }
    }
    let tiny = Tensor(v.floats().map { $0 * 1e-38 }, shape: v.shape).rounded(to: .bf16)
    #expect(Self.attention(c, q, k, tiny, compute).floats().allSatisfy { abs($0) < 1e-37 })
  }

  /// What is not finite stays visible: in its row, its channel, or everywhere.
  @Test(arguments: computes) func numbersThatAreNotFiniteAreNotHidden(_ compute: Compute) {
    let c = Case(n: 3, m: Self.keys + 76, heads: 1, kvHeads: 1, headDim: 16, causal: false)
    let (q, k, v) = Self.inputs(c, seed: 41)
    func replaced(_ x: Tensor, _ at: Int, _ value: Float) -> Tensor {
      var values = x.floats()
      values[at] = value
      return Tensor(values, shape: x.shape).rounded(to: .bf16)
    }
    for value in [Float.nan, .infinity, -.infinity] {
      let rows = Self.attention(c, replaced(q, 16 + 3, value), k, v, compute).floats()
      #expect(rows.enumerated().allSatisfy { $1.isNaN == (16..<32).contains($0) })
      let all = Self.attention(c, q, replaced(k, 900, value), v, compute).floats()
      #expect(all.allSatisfy { $0.isNaN })
      let channel = Self.attention(c, q, k, replaced(v, 500 * 16 + 7, value), compute).floats()
      #expect(channel.enumerated().allSatisfy { $1.isNaN == ($0 % 16 == 7) })
    }
  }

  /// Shorter sequences, causal ones, wide heads and other modes keep their bytes.
  @Test func onlyLongSequencesOfTheModeChange() {
    func differs(_ precision: Precision, _ c: Case) -> Bool {
      let (q, k, v) = Self.inputs(c, seed: 50), compute = Compute(precision: precision, pool: testPool)
      let bf16 = Self.attention(c, q, k, v, Compute(precision: .bf16, pool: testPool))
      return !Self.attention(c, q, k, v, compute).isIdentical(to: bf16)
    }
    let long = Case(n: 20, m: Self.keys, heads: 2, kvHeads: 1, headDim: 32, causal: false)
    #expect(differs(.int8, long) && differs(.q4, long))
    var other = long
    other.m = Compute.attentionInt8KeysWithoutBF16 - 1
    #expect(!differs(.int8, other))
    other = long
    other.causal = true
    #expect(!differs(.int8, other))
    other = long
    other.headDim = 257
    #expect(!differs(.int8, other))
    #expect(Self.best.numericsClass.hasPrefix("int8/"))
  }

  /// Without instructions for bf16 fewer keys are enough.
  @Test(arguments: computes) func howManyKeysAreEnough(_ compute: Compute) {
    let hasBF16 = [.neonbf16, .avx512bf16, .amx].contains(compute.instructionSet)
    let keys = hasBF16 ? Self.keys : Compute.attentionInt8KeysWithoutBF16
    #expect(compute.hasAttentionInt8(keys: keys, headDim: 128), "\(compute.numericsClass)")
    #expect(!compute.hasAttentionInt8(keys: keys - 1, headDim: 128), "\(compute.numericsClass)")
    #expect(!compute.hasAttentionInt8(keys: keys, headDim: 257))
  }

  @Test func partsNeverHaveEightBits() {
    let c = Case(n: Self.keys + 8, m: Self.keys + 8, heads: 1, kvHeads: 1, headDim: 16, causal: false)
    let (q, k, v) = Self.inputs(c, seed: 60)
    let results = [Precision.int8, .bf16].map {
      Compute(precision: $0, pool: testPool).attention(
        q: q, k: k, v: v, heads: 1, kvHeads: 1, headDim: 16, within: [0..<c.n])
    }
    #expect(results[0].isIdentical(to: results[1]))
  }
}
