import Foundation
import Kernels
import TensorCore
import Testing

@Suite struct ElementwiseTests {
  @Test(arguments: everyCompute([.fp32])) func roundsToBF16AsTheDefinitionSays(_ compute: Compute) {
    var generator = SeededGenerator(1)
    var values = (0..<4096).map { _ in Float(bitPattern: UInt32.random(in: 0...UInt32.max, using: &generator)) }
    values += [
      0, -0.0, .infinity, -.infinity, .nan, .signalingNaN, .greatestFiniteMagnitude, -.greatestFiniteMagnitude,
      .leastNonzeroMagnitude,
    ]
    values += (0..<64).map { Float(bitPattern: 0x3f80_0000 + UInt32($0) * 0x4000) }  // ties in both directions
    values += [Float(bitPattern: 0x7f80_0001), Float(bitPattern: 0xffff_ffff), Float(bitPattern: 0x7fff_ffff)]
    let rounded = compute.converted(Tensor(values, shape: [values.count]), to: .bf16)
    let bits = rounded.withElements(as: UInt16.self) { bits in bits.indices.map { bits[$0] } }
    for (value, bits) in zip(values, bits) where bits != Reference.bf16Bits(value) {
      Issue.record("\(value) became \(bits)")
    }
  }

  @Test(arguments: everyCompute([.fp32])) func widensEveryHalf(_ compute: Compute) {
    let halves = Tensor(Array(0...UInt16.max), .fp16, shape: [65536])
    for (bits, value) in compute.converted(halves, to: .fp32).floats().enumerated() {
      let expected = Float(Float16(bitPattern: UInt16(bits)))
      if value != expected && !(value.isNaN && expected.isNaN) { Issue.record("half \(bits) became \(value)") }
    }
  }

  @Test(arguments: everyCompute([.fp32])) func siluIsAccurate(_ compute: Compute) {
    let values =
      Array(stride(from: Float(-110), through: 110, by: 0.0137)) + [
        0, -0.0, 1e-30, -1e-30, .infinity, .greatestFiniteMagnitude,
      ]
    let results = compute.silu(Tensor(values, shape: [values.count])).floats()
    var worst = 0.0
    for (x, y) in zip(values, results) where x.isFinite {
      let expected = Reference.silu(Double(x))
      // Below -86 the sigmoid is subnormal and has few bits left.
      if x > -86 { worst = max(worst, ulps(y, expected)) } else { #expect(abs(Double(y) - expected) < 1e-43 * 110) }
    }
    #expect(worst <= 4)
    #expect(results[values.count - 2] == .infinity)
    #expect(compute.silu(Tensor([.nan], shape: [1])).floats()[0].isNaN)
  }

  @Test(arguments: floatingComputes) func rmsNormMatchesDoubles(_ compute: Compute) {
    for (rows, width) in [(1, 1), (3, 7), (5, 16), (2, 100), (4, 3072), (1, 3584)] {
      for weightType in [DType.fp32, .bf16, .fp16] {
        let x = randomTensor([rows, width], scale: 3, seed: UInt64(width)),
          weight = randomTensor([width], weightType, seed: 5)
        let result = compute.rmsNorm(x, weight: weight, epsilon: 1e-6)
        #expect(result.dtype == compute.activationDType)
        let expected = Reference.rmsNorm(x.doubles, weight: weight.doubles, epsilon: 1e-6)
        expectClose(result, expected) { (1e-6 + roundoff(result.dtype)) * abs($1) }
        #expect(relativeError(compute.rmsNorm(x, weight: weight, epsilon: 1e-6, output: .fp32), expected) < 3e-7)
      }
    }
  }

  @Test(arguments: floatingComputes) func layerNormMatchesDoubles(_ compute: Compute) {
    for (rows, width) in [(1, 2), (3, 7), (5, 48), (2, 3072)] {
      let x = randomTensor([rows, width], scale: 2, offset: 5, seed: UInt64(width))
      let shift = randomTensor([width], seed: 2), scale = randomTensor([width], seed: 3)
      let result = compute.layerNormModulate(x, shift: shift, scale: scale, epsilon: 1e-6)
      let expected = Reference.layerNormModulate(x.doubles, shift: shift.doubles, scale: scale.doubles, epsilon: 1e-6)
      #expect(relativeError(result, expected) < 2e-6 + roundoff(result.dtype))
    }
  }

  @Test(arguments: floatingComputes) func siluMultiplyMatchesDoubles(_ compute: Compute) {
    for type in [DType.fp32, .bf16] {
      let gate = randomTensor([3, 37], type, scale: 4, seed: 1), up = randomTensor([3, 37], type, seed: 2)
      let result = compute.siluMultiply(gate, up)
      let expected = Reference.siluMultiply(gate.doubles, up.doubles)
      expectClose(result, expected) { (6e-7 + roundoff(result.dtype)) * abs($1) }
    }
  }

  @Test(arguments: everyCompute([.fp32])) func addInPlace(_ compute: Compute) {
    var a = randomTensor([5, 33], seed: 1)
    let before = a.floats(), b = randomTensor([5, 33], .bf16, seed: 2)
    compute.add(&a, b)
    #expect(a.floats() == zip(before, b.floats()).map { $0 + $1 })
  }

  @Test(arguments: everyCompute([.fp32])) func gatherRowsWidens(_ compute: Compute) {
    let table = randomTensor([11, 19], .bf16, seed: 4), ids = [3, 0, 10, 3]
    let expected = ids.flatMap { table.rows($0..<$0 + 1).floats() }
    #expect(compute.gatherRows(table, ids).floats() == expected)
    #expect(compute.gatherRows(table, []).shape == [0, 19])
  }

  @Test(arguments: everyCompute([.fp32]), [DType.fp32, .bf16]) func columnsAreCopied(_ compute: Compute, _ dtype: DType)
  {
    let x = randomTensor([301, 37], dtype, seed: 5), values = x.floats()
    for columns in [0..<37, 0..<1, 12..<29, 36..<37, 5..<5] {
      let copy = compute.columns(columns, of: x)
      #expect(copy.dtype == dtype && copy.shape == [301, columns.count])
      let expected = (0..<301).flatMap { row in columns.map { values[row * 37 + $0] } }
      #expect(copy.floats() == expected)
    }
  }

  @Test(arguments: floatingComputes) func headNormRotaryMatchesDoubles(_ compute: Compute) {
    for (rows, heads, headDim) in [(3, 2, 16), (2, 3, 128), (5, 1, 80), (2, 2, 6), (2, 70, 8), (1, 1, 2048)] {
      for style in [RotaryStyle.interleaved, .rotateHalf] {
        for normed in [true, false] {
          var x = randomTensor([rows, heads * headDim], compute.activationDType, scale: 2, seed: UInt64(headDim))
          let half = headDim / 2, input = x.doubles, weight = randomTensor([headDim], .bf16, seed: 9)
          let angles = randomTensor([rows, half], scale: 3, seed: 6).floats()
          let table = RotaryTable(
            cos: Tensor(angles.map { cos($0) }, shape: [rows, half]),
            sin: Tensor(angles.map { sin($0) }, shape: [rows, half]))
          compute.headNormRotary(
            &x, heads: heads, normWeight: normed ? weight : nil, epsilon: 1e-6, rotary: table, style: style)
          let expected = Reference.headNormRotary(
            input, heads: heads, headDim: headDim, weight: normed ? weight.doubles : nil, epsilon: 1e-6,
            cos: table.cos.doubles,
            sin: table.sin.doubles, style: style)
          #expect(relativeError(x, expected) < 1e-6 + roundoff(x.dtype) / 2)
        }
      }
    }
  }

  @Test func tablesWithFusedMultiplyAddAgreeExactly() {
    let computes = everyCompute([.bf16]).filter { $0.instructionSet != .portable }
    let x = randomTensor([7, 205], scale: 4, seed: 1), y = randomTensor([7, 205], scale: 2, seed: 2)
    let w = randomTensor([205], seed: 3), s = randomTensor([205], seed: 4)
    let results = computes.map { compute in
      [
        compute.silu(x), compute.rmsNorm(x, weight: w, epsilon: 1e-6),
        compute.layerNormModulate(x, shift: w, scale: s, epsilon: 1e-6),
        compute.siluMultiply(x, y), compute.channelRMSNorm(x, gamma: w, silu: true),
      ]
    }
    for result in results {
      for (index, tensor) in result.enumerated() {
        #expect(tensor.isIdentical(to: results[0][index]), "operation \(index)")
      }
    }
  }
}
