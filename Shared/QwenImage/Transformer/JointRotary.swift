import Foundation
import Kernels
import TensorCore

/// Rotary tables of the joint text-and-image sequence (diffusers `QwenEmbedRope`, scale_rope = true).
enum JointRotary {
  /// Base of the geometric frequency series.
  static let theta: Float = 10000

  /// Token grid of one image: `frame` is the image's number, 0 for the image being made.
  struct Grid: Equatable {
    let frame: Int
    let height: Int
    let width: Int
  }

  /// Tables for `textCount` text tokens followed by the images' tokens: cos and sin [L + N, headDim / 2], fp32.
  static func table(axes: [Int], grids: [Grid], textCount: Int) -> RotaryTable {
    // Text starts where the largest half-grid ends, on all three axes.
    let textStart = grids.map { max($0.height / 2, $0.width / 2) }.max() ?? 0
    var positions = (0..<textCount).map { [textStart + $0, textStart + $0, textStart + $0] }
    for grid in grids {
      for row in 0..<grid.height {
        for column in 0..<grid.width {
          // Centred positions, with the extra one of an odd extent on the negative side.
          positions.append([grid.frame, row - (grid.height - grid.height / 2), column - (grid.width - grid.width / 2)])
        }
      }
    }
    let frequencies: [(axis: Int, frequency: Float)] = axes.enumerated().flatMap { axis, dim in
      (0..<dim / 2).map { (axis, 1 / Float(pow(Double(theta), Double(Float(2 * $0) / Float(dim))))) }
    }
    var (cosines, sines) = ([Float](), [Float]())
    cosines.reserveCapacity(positions.count * frequencies.count)
    sines.reserveCapacity(positions.count * frequencies.count)
    for position in positions {
      for (axis, frequency) in frequencies {
        let angle = Double(Float(position[axis]) * frequency)
        cosines.append(Float(cos(angle)))
        sines.append(Float(sin(angle)))
      }
    }
    let shape: Shape = [positions.count, frequencies.count]
    return RotaryTable(cos: Tensor(cosines, shape: shape), sin: Tensor(sines, shape: shape))
  }
}

extension RotaryTable {
  /// The tables of some of the positions.
  func rows(_ range: Range<Int>) -> RotaryTable { RotaryTable(cos: cos.rows(range), sin: sin.rows(range)) }
}
