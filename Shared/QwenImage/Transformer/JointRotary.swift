import Diffusion
import Kernels

/// Rotary tables of the joint text-and-image sequence (diffusers `QwenEmbedRope`, scale_rope = true, and
/// `QwenEmbedLayer3DRope`).
enum JointRotary {
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
      positions += AxialRotary.positions(
        of: image, frame: frames == .layered && number == images.count - 1 ? -1 : number)
    }
    return AxialRotary.table(axes: axes, positions: positions)
  }

  /// Text starts, on all three axes, where the largest half-grid ends, and behind the frames of layers.
  private static func textStart(_ images: [TokenGrid], _ frames: Frames) -> Int {
    let halfGrid = images.map { max($0.height / 2, $0.width / 2) }.max() ?? 0
    return frames == .layered ? max(halfGrid, images.count - 1) : halfGrid
  }
}
