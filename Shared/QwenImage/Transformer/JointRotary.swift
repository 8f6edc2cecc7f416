import Diffusion
import Foundation
import Kernels
import TensorCore

/// Rotary tables of the joint text-and-image sequence (diffusers `QwenEmbedRope`, scale_rope = true, and
/// `QwenEmbedLayer3DRope`).
enum JointRotary {
  /// Base of the geometric frequency series.
  static let theta: Float = 10000

  /// Where the images of the image stream lie on the axis of frames.
  enum Frames {
    /// At their number: 0 is the image that is made, the others are references.
    case numbered
    /// The layers at their number, the last image, which they are taken from, before them at -1.
    case layered
  }

  /// Tables for `textCount` text tokens followed by the images' tokens: cos and sin [L + N, headDim / 2], fp32.
  static func table(axes: [Int], images: [TokenGrid], frames: Frames, textCount: Int) -> RotaryTable {
    let textStart = textStart(images, frames)
    var positions = (0..<textCount).map { SIMD3(repeating: Float(textStart + $0)) }
    positions.reserveCapacity(textCount + images.reduce(0) { $0 + $1.tokenCount })
    for (number, image) in images.enumerated() {
      let frame = frames == .layered && number == images.count - 1 ? -1 : number
      for row in 0..<image.height {
        for column in 0..<image.width {
          // Centred positions, with the extra one of an odd extent on the negative side.
          positions.append(
            SIMD3(
              Float(frame), Float(row - (image.height - image.height / 2)),
              Float(column - (image.width - image.width / 2))))
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
        let angle = Double(position[axis] * frequency)
        cosines.append(Float(cos(angle)))
        sines.append(Float(sin(angle)))
      }
    }
    let shape: Shape = [positions.count, frequencies.count]
    return RotaryTable(cos: Tensor(cosines, shape: shape), sin: Tensor(sines, shape: shape))
  }

  /// Text starts, on all three axes, where the largest half-grid ends, and behind the frames of layers.
  private static func textStart(_ images: [TokenGrid], _ frames: Frames) -> Int {
    let halfGrid = images.map { max($0.height / 2, $0.width / 2) }.max() ?? 0
    return frames == .layered ? max(halfGrid, images.count - 1) : halfGrid
  }
}

extension RotaryTable {
  /// The tables of some of the positions.
  func rows(_ range: Range<Int>) -> RotaryTable { RotaryTable(cos: cos.rows(range), sin: sin.rows(range)) }
}
