import Foundation
import Kernels
import TensorCore

/// Rotary tables of tokens with positions on three axes: frame, row and column.
package enum AxialRotary {
  /// Base of the geometric frequency series.
  private static let theta: Float = 10000

  /// Tables for tokens at `positions`: cos and sin [n, headDim / 2], fp32.
  ///
  /// - Parameter axes: how the head's width is shared among the axes.
  package static func table(axes: [Int], positions: [SIMD3<Float>]) -> RotaryTable {
    let frequencies: [(axis: Int, frequency: Float)] = axes.enumerated().flatMap { axis, dim in
      (0..<dim / 2).map { (axis, 1 / Float(pow(Double(theta), Double(Float(2 * $0) / Float(dim))))) }
    }
    var (cosines, sines) = ([Float](), [Float]())
    cosines.reserveCapacity(positions.count * frequencies.count)
    sines.reserveCapacity(positions.count * frequencies.count)
    for position in positions {
      for (axis, frequency) in frequencies {
        let angle = Double(position[axis] * frequency)
        cosines.append(Float(cos(angle)))
        sines.append(Float(sin(angle)))
      }
    }
    let shape: Shape = [positions.count, frequencies.count]
    return RotaryTable(cos: Tensor(cosines, shape: shape), sin: Tensor(sines, shape: shape))
  }

  /// The positions of an image's tokens, row by row: centred, with the extra one of an odd extent on the negative side.
  package static func positions(of image: TokenGrid, frame: Int) -> [SIMD3<Float>] {
    (0..<image.height).flatMap { row in
      (0..<image.width).map { column in
        SIMD3(
          Float(frame), Float(row - (image.height - image.height / 2)), Float(column - (image.width - image.width / 2)))
      }
    }
  }
}

extension RotaryTable {
  /// The tables of some of the positions.
  package func rows(_ range: Range<Int>) -> RotaryTable { RotaryTable(cos: cos.rows(range), sin: sin.rows(range)) }
}
