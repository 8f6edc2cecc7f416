/// An image of 8-bit channels.
public struct RasterImage: Sendable, Equatable {
  /// Width in pixels, at least 1.
  public let width: Int
  /// Height in pixels, at least 1.
  public let height: Int
  /// 3 (RGB) or 4 (RGBA, alpha not premultiplied).
  public let channels: Int
  /// Interleaved channels, row by row from the top: `height · width · channels` bytes.
  public let pixels: [UInt8]

  /// An image of the given pixels, whose number must match.
  public init(width: Int, height: Int, channels: Int = 3, pixels: [UInt8]) {
    precondition(width > 0 && height > 0 && (channels == 3 || channels == 4), "\(width)×\(height)×\(channels) image")
    precondition(pixels.count == width * height * channels, "\(pixels.count) bytes for \(width)×\(height)×\(channels)")
    self.width = width
    self.height = height
    self.channels = channels
    self.pixels = pixels
  }
}
