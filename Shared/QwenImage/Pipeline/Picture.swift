import TensorCore

/// 8-bit pixels, row-major, channels last.
public struct Picture: Sendable, Equatable {
  /// Width in pixels.
  public let width: Int
  /// Height in pixels.
  public let height: Int
  /// 3 (RGB) or 4 (RGBA).
  public let channels: Int
  /// width × height × channels bytes.
  public let pixels: [UInt8]

  /// Quantises decoded pixels [H, W, channels] in [-1, 1] as the reference does: round(255 · clamp(x/2 + ½)), half to even.
  public init(decoded: Tensor) {
    (height, width, channels) = (decoded.shape[0], decoded.shape[1], decoded.shape[2])
    pixels = decoded.floats().map { UInt8((min(max($0 / 2 + 0.5, 0), 1) * 255).rounded(.toNearestOrEven)) }
  }
}
