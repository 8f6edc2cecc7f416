import CImageCodec

extension RasterImage {
  /// The size as the C functions take it.
  var size: image_size { image_size(width: CInt(width), height: CInt(height), channels: CInt(channels)) }

  /// Width times height.
  var pixelCount: Int64 { Int64(width * height) }

  /// An image whose pixels `body` writes, all of them.
  init(width: Int, height: Int, channels: Int, body: (UnsafeMutablePointer<UInt8>) -> Void) {
    let byteCount = width * height * channels
    let pixels = [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, count in
      // The base address is there for any capacity above 0.
      body(buffer.baseAddress!)
      count = byteCount
    }
    self.init(width: width, height: height, channels: channels, pixels: pixels)
  }

  /// The image with pixels that `body` changes.
  func changed(_ body: (UnsafeMutablePointer<UInt8>) -> Void) -> RasterImage {
    var copy = pixels
    copy.withUnsafeMutableBufferPointer { body($0.baseAddress!) }
    return RasterImage(width: width, height: height, channels: channels, pixels: copy)
  }
}
