import ClusterCore
import GatewayAPI
import ImageCodec

/// Pixels to make around an image: the field `outpaint`.
struct Outpainting: Hashable, Sendable {
  var left: Int
  var top: Int
  var right: Int
  var bottom: Int
  /// Pixels of the image, from its edge, over which new and old ones are mixed.
  var feather: Int

  private static let maxPixels = 4096

  /// Reads `outpaint`, an object with the number of pixels for each side, and `feather`; nil when the field is absent.
  init?(_ fields: inout FieldReader) throws(APIError) {
    guard var sides = try fields.object("outpaint") else { return nil }
    let range = 0...Self.maxPixels
    left = try sides.integer("left", in: range) ?? 0
    top = try sides.integer("top", in: range) ?? 0
    right = try sides.integer("right", in: range) ?? 0
    bottom = try sides.integer("bottom", in: range) ?? 0
    feather = try sides.integer("feather", in: 0...512) ?? 16
    try sides.refuseOthers()
    guard left + top + right + bottom > 0 else {
      throw APIError(.invalidValue, "outpaint has no pixels on any side", param: "outpaint")
    }
  }

  /// The image on its canvas, whose new part repeats the image's edges, and the mask of the new part.
  func canvas(of image: RasterImage) -> (image: RasterImage, mask: RasterImage) {
    let (width, height) = (image.width + left + right, image.height + top + bottom)
    var pixels = [UInt8](), mask = [UInt8]()
    pixels.reserveCapacity(width * height * image.channels)
    mask.reserveCapacity(width * height)
    for y in 0..<height {
      let row = min(max(y - top, 0), image.height - 1)
      for x in 0..<width {
        let place = (row * image.width + min(max(x - left, 0), image.width - 1)) * image.channels
        pixels += image.pixels[place..<place + image.channels]
        mask.append(maskValue(x - left, y - top, image))
      }
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
