import ImageCodec
import Kernels
import TensorCore

/// Bicubic resampling to another size, bit for bit as Pillow's `Image.resize` with `BICUBIC` does it for 8-bit images:
/// widened by the scale when the image gets smaller, weights of 22 fractional bits, and 8 bits between the two passes.
/// The first one changes the width, unless the height shrinks by more than twice as many pixels (since Pillow 13).
enum BicubicResampling {
  /// The image, of three channels, in another size.
  static func resize(_ image: RasterImage, width: Int, height: Int, pool: ThreadPool) -> RasterImage {
    precondition(image.channels == 3, "resampling of \(image.channels) channels")
    var pixels = image.pixels
    let fewerRows = image.height - height
    if fewerRows > max(0, 2 * (image.width - width)), width != image.width {
      pixels = resampleRows(pixels, rowBytes: 3 * image.width, from: image.height, to: height, pool)
      pixels = resampleColumns(pixels, rows: height, from: image.width, to: width, pool)
      return RasterImage(width: width, height: height, pixels: pixels)
    }
    if width != image.width {
      pixels = resampleColumns(pixels, rows: image.height, from: image.width, to: width, pool)
    }
    if height != image.height {
      pixels = resampleRows(pixels, rowBytes: 3 * width, from: image.height, to: height, pool)
    }
    return RasterImage(width: width, height: height, pixels: pixels)
  }

  /// The inputs that an output is made of, and their weights, of `fractionBits` fractional bits.
  private struct Taps {
    var first: Int
    var weights: [Int32]
  }

  private static let fractionBits = 22

  /// Keys' cubic with a = -½.
  private static func cubic(_ distance: Double) -> Double {
    let a = -0.5, x = abs(distance)
    if x < 1 { return ((a + 2) * x - (a + 3)) * x * x + 1 }
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0
  }

  private static func taps(from input: Int, to output: Int) -> [Taps] {
    let scale = Double(input) / Double(output), filterScale = max(scale, 1), support = 2 * filterScale
    return (0..<output).map { index in
      let center = (Double(index) + 0.5) * scale
      let first = max(Int(center - support + 0.5), 0), end = min(Int(center + support + 0.5), input)
      let weights = (first..<end).map { cubic((Double($0) - center + 0.5) * (1 / filterScale)) }
      let sum = weights.reduce(0, +)
      return Taps(
        first: first,
        weights: weights.map { weight in
          let scaled = (sum == 0 ? weight : weight / sum) * Double(1 << fractionBits)
          return Int32(scaled < 0 ? scaled - 0.5 : scaled + 0.5)
        })
    }
  }

  /// A sum of weighted bytes, begun at one half, as a byte.
  private static func byte(_ sum: Int32) -> UInt8 { UInt8(min(max(sum >> Int32(fractionBits), 0), 255)) }
  private static let half = Int32(1) << Int32(fractionBits - 1)

  private static func resampleColumns(
    _ pixels: [UInt8], rows: Int, from input: Int, to output: Int, _ pool: ThreadPool
  ) -> [UInt8] {
    let taps = taps(from: input, to: output)
    return bytes(rows: rows, rowBytes: 3 * output, pool) { row, at, target in
      let source = pixels.span
      for column in 0..<output {
        var (red, green, blue) = (half, half, half), place = 3 * (row * input + taps[column].first)
        for weight in taps[column].weights {
          red &+= weight &* Int32(source[place])
          green &+= weight &* Int32(source[place + 1])
          blue &+= weight &* Int32(source[place + 2])
          place += 3
        }
        target[at + 3 * column] = byte(red)
        target[at + 3 * column + 1] = byte(green)
        target[at + 3 * column + 2] = byte(blue)
      }
    }
  }

  private static func resampleRows(
    _ pixels: [UInt8], rowBytes: Int, from input: Int, to output: Int, _ pool: ThreadPool
  ) -> [UInt8] {
    let taps = taps(from: input, to: output)
    return bytes(rows: output, rowBytes: rowBytes, pool) { row, at, target in
      let source = pixels.span
      var sums = [Int32](repeating: half, count: rowBytes)
      for (index, weight) in taps[row].weights.enumerated() {
        let start = (taps[row].first + index) * rowBytes
        for place in 0..<rowBytes { sums[place] &+= weight &* Int32(source[start + place]) }
      }
      for place in 0..<rowBytes { target[at + place] = byte(sums[place]) }
    }
  }

  /// Rows of bytes, in parallel; `body` gets a row's number and where it begins in the memory that it writes.
  private static func bytes(
    rows: Int, rowBytes: Int, _ pool: ThreadPool, _ body: (Int, Int, inout MutableSpan<UInt8>) -> Void
  ) -> [UInt8] {
    let piece = max(1, (64 << 10) / rowBytes)
    let result = pool.tensor([rows, rowBytes], .uint8, of: UInt8.self, pieceElements: piece * rowBytes) {
      range, target in
      for at in stride(from: 0, to: range.count, by: rowBytes) {
        body((range.lowerBound + at) / rowBytes, at, &target)
      }
    }
    return result.withElements(as: UInt8.self) { bytes in
      [UInt8](unsafeUninitializedCapacity: bytes.count) { target, count in
        for index in bytes.indices { target.initializeElement(at: index, to: bytes[index]) }
        count = bytes.count
      }
    }
  }
}
