/// Pixels to make around an image.
public struct Outpainting: Hashable, Sendable {
  /// Pixels at the left side.
  public var left: Int
  /// Pixels above.
  public var top: Int
  /// Pixels at the right side.
  public var right: Int
  /// Pixels below.
  public var bottom: Int
  /// Pixels of the image, from its edge, over which new and old ones are mixed.
  public var feather: Int

  /// What may be made at each side.
  public static let sideLimit = 0...4096
  /// How wide the soft edge may be.
  public static let featherLimit = 0...512
  /// How wide it is unless a request says.
  public static let defaultFeather = 16

  /// See the properties; all have to be within the limits.
  public init(left: Int, top: Int, right: Int, bottom: Int, feather: Int = defaultFeather) {
    self.left = left
    self.top = top
    self.right = right
    self.bottom = bottom
    self.feather = feather
  }

  /// Whether there is nothing to make.
  public var isEmpty: Bool { left + top + right + bottom == 0 }

  /// The image on its canvas, whose new part repeats the image's edges, and the mask of the new part.
  public func canvas(of image: RasterImage) -> (image: RasterImage, mask: RasterImage) {
    let (width, height) = (image.width + left + right, image.height + top + bottom)
    var pixels = [UInt8](), mask = [UInt8]()
    pixels.reserveCapacity(width * height * image.channels)
    mask.reserveCapacity(width * height)
    for y in 0..<height {
      let start = min(max(y - top, 0), image.height - 1) * image.width * image.channels
      let row = image.pixels[start..<start + image.width * image.channels]
      for _ in 0..<left { pixels += row.prefix(image.channels) }
      pixels += row
      for _ in 0..<right { pixels += row.suffix(image.channels) }
      for x in 0..<width { mask.append(maskValue(x - left, y - top, image)) }
    }
    return (
      RasterImage(width: width, height: height, channels: image.channels, pixels: pixels),
      RasterImage(width: width, height: height, channels: 1, pixels: mask)
    )
  }

  /// 255 outside of the image, falling to 0 over the feather inside of it, at those sides where pixels are made.
  private func maskValue(_ x: Int, _ y: Int, _ image: RasterImage) -> UInt8 {
    guard x >= 0, y >= 0, x < image.width, y < image.height else { return 255 }
    var depth = Int.max
    if left > 0 { depth = min(depth, x) }
    if top > 0 { depth = min(depth, y) }
    if right > 0 { depth = min(depth, image.width - 1 - x) }
    if bottom > 0 { depth = min(depth, image.height - 1 - y) }
    return depth >= feather ? 0 : UInt8(255 * (feather - depth) / (feather + 1))
  }
}
