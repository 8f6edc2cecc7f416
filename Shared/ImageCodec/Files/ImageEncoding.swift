/// How an image becomes a file: the same by the cluster and by the command that draws without one.
public struct ImageEncoding: Sendable, Hashable {
  /// Qualities of formats that have one.
  public static let qualities = 0...100
  /// PNG.
  public static let png = ImageEncoding()

  /// The format.
  public var format: ImageFileFormat
  /// 0 (smallest) to 100: of WebP 100 is lossless; without effect on PNG.
  public var quality: Int

  /// See the properties.
  public init(format: ImageFileFormat = .png, quality: Int = 100) {
    self.format = format
    self.quality = quality
  }

  /// Whether files of the format have an alpha channel.
  public var keepsTransparency: Bool { format != .jpeg }

  /// Encodes an image with texts: in PNG as text chunks, else as EXIF data, where ``ImageMetadata/texts`` have a place.
  ///
  /// - Throws: ``PNGError`` or ``ImageEncodingError``.
  public func file(of image: RasterImage, texts: [PNG.Text] = []) throws -> [UInt8] {
    switch format {
    case .png: return try PNG.encode(image, texts: texts)
    case .webp:
      guard Self.qualities.contains(quality) else {
        throw ImageEncodingError.qualityOutOfRange(.webp, found: quality, range: Self.qualities)
      }
      let file = try WebP.encode(image, quality == 100 ? .lossless : .lossy(quality: quality))
      return texts.isEmpty ? file : WebP.adding(exif: try EXIFTexts.data(texts, .webp), to: file, image)
    case .jpeg:
      guard Self.qualities.contains(quality) else {
        throw ImageEncodingError.qualityOutOfRange(.jpeg, found: quality, range: Self.qualities)
      }
      let file = try JPEG.encode(image, quality: max(quality, JPEG.qualities.lowerBound))
      return texts.isEmpty ? file : JPEG.adding(exif: try EXIFTexts.data(texts, .jpeg), to: file)
    }
  }
}

extension ImageFile {
  /// The texts of a file: PNG's chunks in order; of EXIF data the software's name, the comment, whose keyword is
  /// `parameters`, and this software's record.
  ///
  /// - Throws: ``ImageFileError``; the pixels are decoded, so that a damaged file is none.
  public static func texts(
    of file: [UInt8], limits: Limits = Limits()
  ) throws(ImageFileError) -> (header: Header, texts: [PNG.Text]) {
    let header = try header(of: file, limits: limits)
    if header.format == .png { return (header, try PNG.contents(of: file, maxPixels: limits.maxPixels).texts) }
    _ = try decode(file, limits: limits)
    return (header, EXIFData.data(of: file, format: header.format).map(EXIFTexts.texts) ?? [])
  }
}

extension JPEG {
  /// The file with EXIF data, after the header that the encoder has written.
  static func adding(exif: [UInt8], to file: [UInt8]) -> [UInt8] {
    let data = Array("Exif\0\0".utf8) + exif
    // The start of the image, and the segment JFIF: a marker, and a length that counts itself.
    let end = 4 + Int(file[4]) << 8 + Int(file[5])
    return file[..<end] + [0xff, 0xe1] + UInt16(data.count + 2).bigEndianBytes + data + file[end...]
  }
}

extension WebP {
  /// The file with EXIF data, behind the pixels.
  static func adding(exif: [UInt8], to file: [UInt8], _ image: RasterImage) -> [UInt8] {
    let (hasEXIF, hasAlpha) = (UInt8(0x08), UInt8(0x10))
    var chunks = Array(file[12...])
    if chunks.starts(with: "VP8X".utf8) {
      chunks[8] |= hasEXIF
    } else {
      // Bit 28 of a lossless image's header says whether it has alpha; lossy ones with alpha have a VP8X chunk.
      let isTransparent = chunks.starts(with: "VP8L".utf8) && chunks[8 + 4] & 0x10 != 0
      let size = [image.width, image.height].flatMap { UInt32($0 - 1).littleEndianBytes.prefix(3) }
      chunks = chunk("VP8X", [hasEXIF | (isTransparent ? hasAlpha : 0), 0, 0, 0] + size) + chunks
    }
    return chunk("RIFF", Array("WEBP".utf8) + chunks + chunk("EXIF", exif))
  }

  private static func chunk(_ kind: String, _ data: [UInt8]) -> [UInt8] {
    Array(kind.utf8) + UInt32(data.count).littleEndianBytes + data + (data.count.isMultiple(of: 2) ? [] : [0])
  }
}

extension FixedWidthInteger {
  /// The bytes, the most significant first.
  var bigEndianBytes: [UInt8] { withUnsafeBytes(of: bigEndian, Array.init) }
  /// The bytes, the least significant first.
  fileprivate var littleEndianBytes: [UInt8] { withUnsafeBytes(of: littleEndian, Array.init) }
}
