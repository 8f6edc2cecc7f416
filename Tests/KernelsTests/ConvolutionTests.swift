import Foundation
import Kernels
import TensorCore
import Testing

@Suite struct ConvolutionTests {
  static let references = SharedReferences<Int, [Double]>()

  @Test(arguments: floatingComputes + [Compute(precision: .fp32, pool: testPool, matrixLibrary: .openBLAS)])
  func matchesDoubles(
    _ compute: Compute
  ) {
    let shapes: [(h: Int, w: Int, i: Int, o: Int, size: Int)] = [
      (1, 1, 1, 1, 3), (2, 3, 3, 5, 3), (9, 7, 16, 12, 3), (17, 23, 24, 3, 3), (5, 6, 16, 24, 1), (8, 8, 96, 50, 3),
      (13, 4, 7, 97, 1),
      (33, 29, 20, 100, 3), (4, 4, 17, 1, 3), (30, 31, 5, 9, 1),
    ]
    for (index, s) in shapes.enumerated() {
      let x = randomTensor([s.h, s.w, s.i], seed: UInt64(index)),
        weight = randomTensor([s.o, s.i, s.size, s.size], .bf16, seed: 50)
      let bias = randomTensor([s.o], seed: 51)
      let layer = compute.prepareConvolution(weight: weight, bias: bias)
      let result = compute.convolution(x, layer)
      #expect(result.shape == [s.h, s.w, s.o] && result.dtype == .fp32)
      let reference = Self.references.value(index) {
        Reference.convolution(
          x.doubles, height: s.h, width: s.w, channels: s.i, weight.doubles, size: s.size, bias: bias.doubles)
      }
      #expect(relativeError(result, reference) < 2e-6, "\(compute.numericsClass) \(s)")

      let start = randomTensor([s.h, s.w, s.o], scale: 3, seed: 52)
      var sum = start.copied()
      compute.convolution(x, layer, addingTo: &sum)
      #expect(relativeError(sum, zip(start.doubles, reference).map { $0 + $1 }) < 2e-6)

      let upsampled = compute.convolution(x, layer, upsampled: true)
      #expect(upsampled.isIdentical(to: compute.convolution(compute.upsampleNearest2x(x), layer)))
    }
  }

  @Test(arguments: floatingComputes + [Compute(precision: .fp32, pool: testPool, matrixLibrary: .openBLAS)])
  func strideTwoMatchesDoubles(_ compute: Compute) {
    let shapes: [(h: Int, w: Int, i: Int, o: Int)] = [
      (2, 2, 1, 1), (4, 6, 3, 5), (9, 7, 16, 12), (16, 24, 24, 97), (3, 30, 17, 4), (1, 5, 2, 3), (5, 1, 2, 3),
      (130, 64, 33, 50),
    ]
    for (index, s) in shapes.enumerated() {
      let x = randomTensor([s.h, s.w, s.i], seed: UInt64(70 + index)),
        weight = randomTensor([s.o, s.i, 3, 3], .bf16, seed: 80), bias = randomTensor([s.o], seed: 81)
      let layer = compute.prepareConvolution(weight: weight, bias: bias, stride: 2)
      let result = compute.convolution(x, layer)
      #expect(result.shape == [s.h / 2, s.w / 2, s.o])
      if result.elementCount == 0 { continue }
      let reference = Self.references.value(100 + index) {
        Reference.downsampling(
          x.doubles, height: s.h, width: s.w, channels: s.i, weight.doubles, bias: bias.doubles)
      }
      #expect(relativeError(result, reference) < 2e-6, "\(compute.numericsClass) \(s)")
    }
  }

  /// With stride 2 a part needs the rows that it begins with, and one row after those that it ends with.
  @Test(arguments: everyCompute([.fp32])) func partsWithStrideTwoMakeTheWhole(_ compute: Compute) {
    let layer = compute.prepareConvolution(
      weight: randomTensor([50, 20, 3, 3], seed: 61), bias: randomTensor([50], seed: 62), stride: 2)
    for height in [40, 37] {
      let x = randomTensor([height, 26, 20], seed: 60), whole = compute.convolution(x, layer), rows = height / 2
      for part in [4, 8, 12] {
        var result = MutableTensor(zeros: whole.shape)
        for start in stride(from: 0, to: rows, by: part) {
          let end = min(rows, start + part), needed = 2 * start..<min(height, 2 * end + 1)
          let source = ImageRows(x.rows(needed).copied(), first: 2 * start, height: height)
          var target = MutableImageRows(MutableTensor(zeros: [end - start, 13, 50]), first: start, height: rows)
          compute.convolution(source, layer, rows: start..<end, into: &target, adds: start % 8 == 0)
          result.copy(target.finish().finish(), toRowsFrom: start)
        }
        let parts = result.finish()
        #expect(parts.isIdentical(to: whole), "\(compute.numericsClass), \(height) rows, parts of \(part)")
      }
    }
  }

  /// A part needs the rows beside it, and nothing else of the image.
  @Test(arguments: everyCompute([.fp32])) func partsMakeTheWhole(_ compute: Compute) {
    for (height, width, size, upsampled) in [(37, 22, 3, false), (19, 13, 3, true), (11, 9, 1, false)] {
      let x = randomTensor([height, width, 20], seed: 60), scale = upsampled ? 2 : 1
      let layer = compute.prepareConvolution(
        weight: randomTensor([50, 20, size, size], seed: 61), bias: randomTensor([50], seed: 62))
      let whole = compute.convolution(x, layer, upsampled: upsampled), rows = whole.shape[0]
      for part in [4, 8, 20] {
        var result = MutableTensor(zeros: whole.shape)
        for start in stride(from: 0, to: rows, by: part) {
          let end = min(rows, start + part),
            needed = max(0, start - 1) / scale..<(min(rows, end + 1) + scale - 1) / scale
          let source = ImageRows(x.rows(needed).copied(), first: needed.lowerBound, height: height)
          var target = MutableImageRows(
            MutableTensor(zeros: [end - start, whole.shape[1], 50]), first: start, height: rows)
          compute.convolution(
            source, layer, upsampled: upsampled, rows: start..<end, into: &target, adds: start % 8 == 0)
          result.copy(target.finish().finish(), toRowsFrom: start)
        }
        let parts = result.finish()
        #expect(parts.isIdentical(to: whole), "\(compute.numericsClass), \(height) × \(width), parts of \(part)")
      }
    }
  }

  @Test func channelNormWorksInPlace() {
    let compute = Compute(precision: .fp32, pool: testPool), x = randomTensor([7, 9, 100], seed: 63),
      gamma = randomTensor([100], seed: 64)
    let expected = compute.channelRMSNorm(x, gamma: gamma, silu: true)
    var inPlace = MutableTensor(zeros: [9, 9, 100])
    inPlace.copy(x, toRowsFrom: 1)
    compute.channelRMSNorm(&inPlace, rows: 1..<8, gamma: gamma, silu: true)
    let rows = inPlace.finish()
    #expect(rows.rows(1..<8).isIdentical(to: expected))
    #expect((rows.rows(0..<1).floats() + rows.rows(8..<9).floats()).allSatisfy { $0 == 0 })

    var elsewhere = MutableTensor(zeros: [10, 9, 100])
    compute.channelRMSNorm(x, gamma: gamma, silu: true, into: &elsewhere, rowsFrom: 3)
    #expect(elsewhere.finish().rows(3..<10).isIdentical(to: expected))
  }

  @Test(arguments: floatingComputes) func channelNormMatchesDoubles(_ compute: Compute) {
    for channels in [1, 12, 16, 96, 100] {
      for silu in [false, true] {
        let x = randomTensor([3, 5, channels], scale: 3, seed: UInt64(channels)),
          gamma = randomTensor([channels, 1, 1], .bf16, seed: 2)
        let result = compute.channelRMSNorm(x, gamma: gamma, silu: silu)
        let expected = Reference.channelRMSNorm(x.doubles, gamma: gamma.doubles, silu: silu)
        #expect(relativeError(result, expected) < 5e-7)
      }
    }
    #expect(
      compute.channelRMSNorm(Tensor.zeros([1, 1, 8]), gamma: randomTensor([8], seed: 1), silu: true).floats().allSatisfy
      { $0 == 0 })
  }

  @Test(arguments: everyCompute([.fp32])) func upsamplingRepeatsPixels(_ compute: Compute) {
    let x = randomTensor([3, 4, 5], seed: 1), result = compute.upsampleNearest2x(x)
    #expect(result.shape == [6, 8, 5])
    #expect(result.floats() == Reference.upsampleNearest2x(x.floats(), height: 3, width: 4, channels: 5))
  }
}
