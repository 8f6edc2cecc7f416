import CImageCodec

/// JPEG files (ISO/IEC 10918-1), by libjpeg-turbo.
public enum JPEG {
  /// Qualities that the encoder has.
  public static let qualities = 1...100
  /// Most pixels of a side.
  static let maxSide = 65500

  /// Encodes an image: baseline, exact integer DCT, optimised Huffman tables, and colour at the full resolution from
  /// quality 90 on, else at half of it. The same image and quality give the same bytes with the same version of
  /// libjpeg-turbo.
  ///
  /// - Parameters:
  ///   - image: RGBA is laid over white; grey stays grey.
  ///   - quality: 1 (smallest) to 100.
  public static func encode(_ image: RasterImage, quality: Int) throws(ImageEncodingError) -> [UInt8] {
    guard qualities.contains(quality) else {
      throw .qualityOutOfRange(.jpeg, found: quality, range: qualities)
    }
    guard max(image.width, image.height) <= maxSide else {
      throw .sideTooLong(.jpeg, width: image.width, height: image.height, limit: maxSide)
    }
    let opaque = image.channels == 4 ? image.overWhite : image
    var file = codec_file()
    defer { codec_file_free(&file) }
    let status = jpeg_codec_encode(
      opaque.pixels, UInt32(image.width), UInt32(image.height), CInt(opaque.channels), CInt(quality),
      quality >= 90 ? 1 : 0, &file)
    guard status == CODEC_OK else { throw .cannotEncode(.jpeg, reason: file.message) }
    return file.contents
  }

  static func header(of file: [UInt8]) throws(ImageFileError) -> codec_header {
    var header = codec_header()
    let status = jpeg_codec_read_header(file, file.count, &header)
    if let error = ImageFileError(status, .jpeg, reason: header.message) { throw error }
    return header
  }

  static func decode(_ file: [UInt8], _ header: codec_header) throws(ImageFileError) -> RasterImage {
    var (status, message) = (CODEC_OK, codec_file())
    let image = RasterImage(width: Int(header.width), height: Int(header.height), channels: 3) { pixels in
      status = message.withMessage { jpeg_codec_decode(file, file.count, header.width, header.height, pixels, $0) }
    }
    if let error = ImageFileError(status, .jpeg, reason: message.message) { throw error }
    return image
  }
}
