import Hashing

extension RasterImage {
  /// SHA-256 that identifies the image by what it shows, 32 bytes: two files that decode to the same size, channels and
  /// pixels have the same digest, whatever their formats, texts and compression.
  ///
  /// Hashed are a tag with the version of this rule, then width, height and channels as 64-bit big-endian numbers, then
  /// the pixels. An RGB image and the same image with an opaque alpha channel are different; convert before hashing.
  public var contentDigest: [UInt8] {
    var hash = SHA256()
    hash.update("qwen-image raster 1\n".utf8)
    for number in [width, height, channels] {
      hash.update((0..<8).map { UInt8(truncatingIfNeeded: number >> (56 - 8 * $0)) })
    }
    hash.update(pixels)
    return hash.finalize()
  }
}
