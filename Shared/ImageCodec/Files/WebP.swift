import CImageCodec

/// WebP files (RFC 9649), by libwebp.
public enum WebP {
  /// How an image is compressed.
  public enum Compression: Sendable, Equatable {
    /// Every pixel comes back, colours under alpha 0 too.
    case lossless
    /// Lossy colours, exact alpha; the quality is 0 (smallest) to 100.
    case lossy(quality: Int)
  }

  /// Qualities that the lossy encoder has.
  public static let qualities = 0...100
  /// Most pixels of a side.
  static let maxSide = 16383

  /// Encodes an image. The same image and compression give the same bytes with the same version of libwebp.
  ///
  /// - Parameter image: grey becomes RGB; RGBA keeps its alpha.
  public static func encode(_ image: RasterImage, _ compression: Compression) throws(ImageEncodingError) -> [UInt8] {
    var quality = 0
    if case .lossy(let chosen) = compression { quality = chosen }
    guard qualities.contains(quality) else {
      throw .qualityOutOfRange(.webp, found: quality, range: qualities)
    }
    guard max(image.width, image.height) <= maxSide else {
      throw .sideTooLong(.webp, width: image.width, height: image.height, limit: maxSide)
    }
    let coloured = image.channels == 1 ? image.rgb : image
    var file = codec_file()
    defer { codec_file_free(&file) }
    let status = webp_codec_encode(
      coloured.pixels, UInt32(image.width), UInt32(image.height), CInt(coloured.channels),
      compression == .lossless ? 1 : 0, CInt(quality), &file)
    guard status == CODEC_OK else { throw .cannotEncode(.webp, reason: file.message) }
    return file.contents
  }

  static func header(of file: [UInt8]) throws(ImageFileError) -> codec_header {
    // libwebp reads what is there of a file that says to be longer.
    guard file.count >= 8 else { throw .malformed(.webp, reason: "the file ends early") }
    let size = file[4..<8].reversed().reduce(0) { $0 << 8 | Int($1) }
    guard size <= file.count - 8 else { throw .malformed(.webp, reason: "the file ends early") }
    var header = codec_header()
    let status = webp_codec_read_header(file, file.count, &header)
    if let error = ImageFileError(status, .webp, reason: header.message) { throw error }
    return header
  }

  static func decode(_ file: [UInt8], _ header: codec_header) throws(ImageFileError) -> RasterImage {
    var (status, header, message) = (CODEC_OK, header, codec_file())
    let image = RasterImage(width: Int(header.width), height: Int(header.height), channels: Int(header.channels)) {
      pixels in
      status = message.withMessage { webp_codec_decode(file, file.count, &header, pixels, $0) }
    }
    if let error = ImageFileError(status, .webp, reason: message.message) { throw error }
    return image
  }
}
