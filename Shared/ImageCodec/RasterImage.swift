/// An image of 8-bit channels.
public struct RasterImage: Sendable, Equatable {
  /// Width in pixels, at least 1.
  public let width: Int
  /// Height in pixels, at least 1.
  public let height: Int
  /// 1 (grey, as masks are), 3 (RGB) or 4 (RGBA, alpha not premultiplied).
  public let channels: Int
  /// Interleaved channels, row by row from the top: `height · width · channels` bytes.
  public let pixels: [UInt8]

  /// An image of the given pixels, whose number must match.
  public init(width: Int, height: Int, channels: Int = 3, pixels: [UInt8]) {
    precondition(width > 0 && height > 0 && [1, 3, 4].contains(channels), "\(width)×\(height)×\(channels) image")
    precondition(pixels.count == width * height * channels, "\(pixels.count) bytes for \(width)×\(height)×\(channels)")
    self.width = width
    self.height = height
    self.channels = channels
    self.pixels = pixels
  }

  /// An image of one colour, a value for each channel.
  public init(width: Int, height: Int, filledWith colour: [UInt8]) {
    var pixels = [UInt8](repeating: colour.first ?? 0, count: width * height * colour.count)
    for channel in colour.indices where colour[channel] != colour[0] {
      for place in stride(from: channel, to: pixels.count, by: colour.count) { pixels[place] = colour[channel] }
    }
    self.init(width: width, height: height, channels: colour.count, pixels: pixels)
  }
}
