import Foundation
import Kernels
import TensorCore

/// The plain version of every operation of `Shared/CKernels/include/ckernels.h`, which names them: what the kernels
/// compute, without how. Double precision, one loop per index, no packing, no tiles, no threads. Arrays are dense and
/// row-major.
///
/// Operands are rounded as the kernels round them before they get here, so that what differs is the kernels'
/// arithmetic.
enum Reference {
  // MARK: - Products

  /// x·Wᵀ + b for x [rows, depth] and w [columns, depth].
  struct Product: Sendable {
    /// [rows, columns].
    var sums: [Double] = []
    /// Σ|x||w| + |b|: what rounding errors are relative to.
    var magnitudes: [Double] = []
  }

  static func product(_ x: [Double], _ w: [Double], bias: [Double]?, depth: Int) -> Product {
    let rows = x.count / depth, columns = w.count / depth
    var result = Product()
    for row in 0..<rows {
      for column in 0..<columns {
        var sum = bias?[column] ?? 0, magnitude = abs(sum)
        for k in 0..<depth {
          let product = x[row * depth + k] * w[column * depth + k]
          sum += product
          magnitude += abs(product)
        }
        result.sums.append(sum)
        result.magnitudes.append(magnitude)
      }
    }
    return result
  }

  /// The numbers that stand for the elements of a matrix [rows, depth] in a product of `precision`; not of weights in
  /// q4, which ``numbersQ4(_:columns:depth:)`` has.
  static func represented(_ matrix: Tensor, _ precision: Precision) -> [Double] {
    let values = matrix.floats()
    switch precision {
    case .fp32: return values.map(Double.init)
    case .bf16: return values.map { Double(bf16($0)) }
    case .int8, .q4:
      let depth = matrix.shape[1]
      return (0..<matrix.shape[0]).flatMap { row in quantizedInt8(values[row * depth..<(row + 1) * depth]) }
    }
  }

  /// A row as 8-bit numbers times one scale, as large as its largest magnitude over 127.
  static func quantizedInt8(_ row: ArraySlice<Float>) -> [Double] {
    let scale = row.reduce(0) { max($0, abs($1)) } / 127
    let inverse = scale > 0 ? 1 / scale : 0
    return row.map { Double(($0 * inverse).rounded(.toNearestOrEven)) * Double(scale) }
  }

  /// The 8-bit numbers [columns, depth] of weights packed in 4 bits, read byte by byte as
  /// Shared/Documentation/packed-weights.md describes them: a level of 16 times a factor, over 128.
  static func numbersQ4(_ panels: [UInt8], columns: Int, depth: Int) -> [Int] {
    func signed(_ index: Int) -> Int { Int(Int8(bitPattern: panels[index])) }
    let groupBytes = 48 + 48 * 8, panelBytes = 16 + (depth + 15) / 16 * groupBytes
    return (0..<columns * depth).map { index in
      let (row, input) = (index / depth, index % depth), panel = row / 48 * panelBytes
      let group = panel + 16 + input / 16 * groupBytes
      let octet = group + 48 + input % 16 / 8 * 48 * 4, byte = panels[octet + row % 48 * 4 + input % 4]
      let level = signed(panel + Int(input % 8 < 4 ? byte & 15 : byte >> 4))
      return Int((Double(level * signed(group + row % 48)) / 128 + 0.5).rounded(.down))
    }
  }

  /// Groups of a vector multiplied with the Kronecker power of a halved 4×4 Hadamard matrix, whose elements are
  /// positive but for those of the other diagonal.
  static func rotated(_ x: [Float], group: Int) -> [Double] {
    func element(_ row: Int, _ column: Int) -> Double {
      var (row, column, size, value) = (row, column, group, 1.0)
      while size > 1 {
        value *= row % 4 + column % 4 == 3 ? -0.5 : 0.5
        (row, column, size) = (row / 4, column / 4, size / 4)
      }
      return value
    }
    return x.indices.map { index in
      let start = index / group * group
      return (0..<group).reduce(0) { $0 + element(index - start, $1) * Double(x[start + $1]) }
    }
  }

  // MARK: - Numbers

  /// Nearest bf16, ties to even, found by comparing the two candidates.
  static func bf16Bits(_ value: Float) -> UInt16 {
    if value.isNaN { return UInt16(value.bitPattern >> 16) | 0x40 }
    let lower = UInt16(value.bitPattern >> 16)
    let below = Double(Float(bitPattern: UInt32(lower) << 16))
    if below == Double(value) { return lower }
    // The next code is infinity after the largest finite value, which stands for 2^128 here.
    let nextBits = UInt32(lower &+ 1) << 16
    let above =
      nextBits & 0x7fff_ffff == 0x7f80_0000 ? (value < 0 ? -0x1p128 : 0x1p128) : Double(Float(bitPattern: nextBits))
    let toBelow = abs(Double(value) - below), toAbove = abs(above - Double(value))
    if toBelow == toAbove { return lower & 1 == 0 ? lower : lower &+ 1 }
    return toBelow < toAbove ? lower : lower &+ 1
  }

  /// The value rounded to bf16.
  static func bf16(_ value: Float) -> Float { Float(bitPattern: UInt32(bf16Bits(value)) << 16) }

  /// x·σ(x).
  static func silu(_ x: Double) -> Double { x / (1 + exp(-x)) }

  /// ½x(1 + tanh(√(2/π)(x + 0.044715x³))).
  static func geluTanh(_ x: Double) -> Double {
    0.5 * x * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
  }

  /// x·Φ(x).
  static func gelu(_ x: Double) -> Double { 0.5 * x * erfc(-x / 2.0.squareRoot()) }

  // MARK: - Norms and rotary embedding

  /// x / √(mean(x²) + ε) · weight over rows as long as `weight`.
  static func rmsNorm(_ x: [Double], weight: [Double], epsilon: Double) -> [Double] {
    rows(x, weight.count).flatMap { row in
      let scale = 1 / (row.reduce(0) { $0 + $1 * $1 } / Double(weight.count) + epsilon).squareRoot()
      return zip(row, weight).map { $0 * scale * $1 }
    }
  }

  /// (x - mean) / √(variance + ε) · (1 + scale) + shift over rows as long as `shift`.
  static func layerNormModulate(_ x: [Double], shift: [Double], scale: [Double], epsilon: Double) -> [Double] {
    rows(x, shift.count).flatMap { row in
      let mean = row.reduce(0, +) / Double(shift.count)
      let factor = 1 / (row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(shift.count) + epsilon).squareRoot()
      return shift.indices.map { (row[row.startIndex + $0] - mean) * factor * (1 + scale[$0]) + shift[$0] }
    }
  }

  /// x / max(‖x‖₂, 1e-12) · √C · γ over pixels of as many channels as `gamma`, then SiLU if asked.
  static func channelRMSNorm(_ x: [Double], gamma: [Double], silu: Bool) -> [Double] {
    rows(x, gamma.count).flatMap { pixel in
      let norm = pixel.reduce(0) { $0 + $1 * $1 }.squareRoot()
      return zip(pixel, gamma).map { x, gamma in
        let value = x / max(norm, 1e-12) * Double(pixel.count).squareRoot() * gamma
        return silu ? Self.silu(value) : value
      }
    }
  }

  /// silu(gate) · up.
  static func siluMultiply(_ gate: [Double], _ up: [Double]) -> [Double] { zip(gate, up).map { silu($0) * $1 } }

  /// RMS norm of every head of x [rows, heads·headDim] (if there is a weight [headDim]), then rotation by cos, sin
  /// [rows, headDim/2].
  static func headNormRotary(
    _ x: [Double], heads: Int, headDim: Int, weight: [Double]?, epsilon: Double, cos: [Double], sin: [Double],
    style: RotaryStyle
  ) -> [Double] {
    let half = headDim / 2
    return rows(x, headDim).enumerated().flatMap { index, head in
      let row = index / heads
      let normed = weight.map { rmsNorm(Array(head), weight: $0, epsilon: epsilon) } ?? Array(head)
      var result = normed
      for j in 0..<half {
        let (first, second) = style == .interleaved ? (2 * j, 2 * j + 1) : (j, j + half)
        let (cosine, sine) = (cos[row * half + j], sin[row * half + j])
        result[first] = normed[first] * cosine - normed[second] * sine
        result[second] = normed[second] * cosine + normed[first] * sine
      }
      return result
    }
  }

  private static func rows(_ x: [Double], _ width: Int) -> [ArraySlice<Double>] {
    stride(from: 0, to: x.count, by: width).map { x[$0..<$0 + width] }
  }

  // MARK: - Attention

  /// Extents of an attention.
  struct AttentionCase: CustomStringConvertible, Hashable, Sendable {
    var n: Int, m: Int, heads: Int, kvHeads: Int, headDim: Int, causal: Bool
    var description: String { "\(n)×\(m), \(heads)/\(kvHeads) heads of \(headDim)\(causal ? ", causal" : "")" }
  }

  /// softmax(q·kᵀ/√headDim)·v of every head for q [n, heads·headDim] and k, v [m, kvHeads·headDim]; query i sees the
  /// keys j ≤ i + m - n if causal, and one that sees none gives zeros.
  static func attention(_ c: AttentionCase, _ q: [Double], _ k: [Double], _ v: [Double]) -> [Double] {
    var result = [Double](repeating: 0, count: c.n * c.heads * c.headDim)
    for head in 0..<c.heads {
      let kvHead = head / (c.heads / c.kvHeads)
      for i in 0..<c.n {
        let visible = c.causal ? max(0, min(c.m, i + c.m - c.n + 1)) : c.m
        if visible == 0 { continue }
        let query = (i * c.heads + head) * c.headDim
        let scores = (0..<visible).map { j in
          let key = (j * c.kvHeads + kvHead) * c.headDim
          var sum = 0.0
          for x in 0..<c.headDim { sum += q[query + x] * k[key + x] }
          return sum / Double(c.headDim).squareRoot()
        }
        let top = scores.max()!, weights = scores.map { exp($0 - top) }, total = weights.reduce(0, +)
        for j in 0..<visible {
          let value = (j * c.kvHeads + kvHead) * c.headDim
          for x in 0..<c.headDim { result[query + x] += weights[j] / total * v[value + x] }
        }
      }
    }
    return result
  }

  // MARK: - Images

  /// A convolution with zero padding of x [height, width, channels] with w [out, channels, size, size] and b [out] →
  /// [height, width, out].
  static func convolution(
    _ x: [Double], height: Int, width: Int, channels: Int, _ w: [Double], size: Int, bias: [Double]
  ) -> [Double] {
    var result: [Double] = []
    for y in 0..<height {
      for column in 0..<width {
        for out in bias.indices {
          var sum = bias[out]
          for dy in 0..<size {
            for dx in 0..<size {
              let (sy, sx) = (y + dy - size / 2, column + dx - size / 2)
              guard (0..<height).contains(sy) && (0..<width).contains(sx) else { continue }
              for c in 0..<channels {
                sum += x[(sy * width + sx) * channels + c] * w[((out * channels + c) * size + dy) * size + dx]
              }
            }
          }
          result.append(sum)
        }
      }
    }
    return result
  }

  /// A 3×3 convolution of x [height, width, channels] with stride 2, after padding with a row of zeros below and a
  /// column on the right → [height / 2, width / 2, out]: the convolution's pixels in odd rows and columns.
  static func downsampling(
    _ x: [Double], height: Int, width: Int, channels: Int, _ w: [Double], bias: [Double]
  ) -> [Double] {
    let all = convolution(x, height: height, width: width, channels: channels, w, size: 3, bias: bias)
    return (0..<height / 2).flatMap { y in
      (0..<width / 2).flatMap { column in
        let pixel = (2 * y + 1) * width + 2 * column + 1
        return all[pixel * bias.count..<(pixel + 1) * bias.count]
      }
    }
  }

  /// Every pixel of x [height, width, channels] twice in both directions.
  static func upsampleNearest2x<Number>(_ x: [Number], height: Int, width: Int, channels: Int) -> [Number] {
    (0..<4 * height * width * channels).map { index in
      let row = index / (2 * width * channels), column = index / channels % (2 * width)
      return x[(row / 2 * width + column / 2) * channels + index % channels]
    }
  }
}
