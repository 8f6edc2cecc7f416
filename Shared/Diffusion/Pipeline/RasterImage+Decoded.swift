import ImageCodec
import TensorCore

extension RasterImage {
  /// Quantises decoded pixels [H, W, channels] in [-1, 1] as the reference does: round(255 · clamp(x/2 + ½)), half to
  /// even.
  public init(decoded: Tensor) {
    let pixels = decoded.floats().map { UInt8((min(max($0 / 2 + 0.5, 0), 1) * 255).rounded(.toNearestOrEven)) }
    self.init(width: decoded.shape[1], height: decoded.shape[0], channels: decoded.shape[2], pixels: pixels)
  }
}
