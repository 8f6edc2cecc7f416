import Kernels
import TensorCore
import Testing

/// Shortcuts without weights, against loops over every value.
@Suite struct ShortcutTests {
  private static let compute = Compute(precision: .fp32, pool: testPool)

  private static func repetition(_ inChannels: Int, _ outChannels: Int) -> PixelRepetition {
    PixelRepetition(inChannels: inChannels, outChannels: outChannels) { ($0 * 7 + $1 * 3 + $2) % inChannels }
  }

  private static func mean(_ inChannels: Int, _ outChannels: Int, scale: Int) -> PixelMean {
    // From no term to all of them.
    let terms = (0..<outChannels).map { channel in
      (0..<channel % (scale * scale + 1)).map {
        PixelMean.Term(dy: $0 / 2, dx: $0 % 2, channel: (channel + $0) % inChannels)
      }
    }
    return PixelMean(inChannels: inChannels, scale: scale, divisor: 8, terms: terms)
  }

  /// The sum that is there, and rows of a shortcut, added in parts.
  private func added(
    _ x: Tensor, to sum: Tensor, rows: Range<Int>, part: Int,
    _ add: (ImageRows, Range<Int>, inout MutableImageRows) -> Void, needed: (Range<Int>) -> Range<Int>
  ) -> [Float] {
    var result = MutableTensor(uninitialized: sum.shape)
    result.copy(sum, toRowsFrom: 0)
    for start in stride(from: rows.lowerBound, to: rows.upperBound, by: part) {
      let range = start..<min(start + part, rows.upperBound), needed = needed(range)
      let source = ImageRows(x.rows(needed).copied(), first: needed.lowerBound, height: x.shape[0])
      var target = MutableTensor(uninitialized: [range.count, sum.shape[1], sum.shape[2]])
      target.copy(sum.rows(range), toRowsFrom: 0)
      var targetRows = MutableImageRows(target, first: range.lowerBound, height: sum.shape[0])
      add(source, range, &targetRows)
      result.copy(targetRows.finish().finish(), toRowsFrom: range.lowerBound)
    }
    return result.finish().floats()
  }

  @Test(arguments: [(3, 5), (8, 4), (32, 32)]) func repetitionsMatch(inChannels: Int, outChannels: Int) {
    let (height, width) = (5, 7), shortcut = Self.repetition(inChannels, outChannels)
    let x = randomTensor([height, width, inChannels], seed: 1), values = x.floats()
    let sum = randomTensor([2 * height, 2 * width, outChannels], seed: 2), before = sum.floats()
    let expected = before.indices.map { index in
      let (channel, column, row) = (
        index % outChannels, index / outChannels % (2 * width), index / outChannels / (2 * width)
      )
      guard (1..<10).contains(row) else { return before[index] }
      let source = (channel * 7 + row % 2 * 3 + column % 2) % inChannels
      return before[index] + values[(row / 2 * width + column / 2) * inChannels + source]
    }
    for part in [1, 3, 100] {
      let result = added(x, to: sum, rows: 1..<10, part: part) {
        Self.compute.add($0, shortcut, rows: $1, to: &$2)
      } needed: {
        $0.lowerBound / 2..<($0.upperBound + 1) / 2
      }
      #expect(result == expected, "parts of \(part)")
    }
  }

  @Test(arguments: [1, 2], [(3, 7), (8, 4), (5, 5)]) func meansMatch(scale: Int, channels: (Int, Int)) {
    let (height, width) = (10, 6), (inChannels, outChannels) = channels
    let shortcut = Self.mean(inChannels, outChannels, scale: scale)
    #expect(shortcut.outChannels == outChannels)
    let x = randomTensor([height, width, inChannels], seed: 3), values = x.floats()
    let columns = width / scale
    let sum = randomTensor([height / scale, columns, outChannels], seed: 4), before = sum.floats()
    let rows = 1..<height / scale
    let expected = before.indices.map { index in
      let (channel, column, row) = (index % outChannels, index / outChannels % columns, index / outChannels / columns)
      guard rows.contains(row) else { return before[index] }
      var total: Float = 0
      for term in 0..<channel % (scale * scale + 1) {
        let pixel = (scale * row + term / 2) * width + scale * column + term % 2
        total += values[pixel * inChannels + (channel + term) % inChannels]
      }
      return before[index] + total / 8
    }
    for part in [1, 3, 100] {
      let result = added(x, to: sum, rows: rows, part: part) {
        Self.compute.add($0, shortcut, rows: $1, to: &$2)
      } needed: {
        scale * $0.lowerBound..<scale * $0.upperBound
      }
      #expect(result == expected, "parts of \(part)")
    }
  }

  @Test func rowsThatAreNotThereTrap() async {
    await #expect(processExitsWith: .failure) {
      var sum = MutableImageRows(MutableTensor(zeros: [4, 4, 1]))
      let shortcut = PixelRepetition(inChannels: 1, outChannels: 1) { _, _, _ in 0 }
      Compute(precision: .fp32, pool: ThreadPool(threads: 1))
        .add(ImageRows(Tensor.zeros([1, 2, 1]), first: 0, height: 2), shortcut, rows: 0..<4, to: &sum)
    }
    await #expect(processExitsWith: .failure) {
      _ = PixelMean(inChannels: 1, scale: 1, divisor: 1, terms: [[.init(dy: 0, dx: 1, channel: 0)]])
    }
  }
}
