import CImageCodec

/// Why an image could not be encoded or decoded.
public enum PNGError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The bytes do not start with PNG's signature.
  case notPNG
  /// The file has more bytes than allowed.
  case tooManyBytes(found: Int, limit: Int)
  /// The image has more pixels than allowed.
  case tooManyPixels(width: Int, height: Int, limit: Int)
  /// The file breaks the format's rules.
  case malformed(reason: String)
  /// A text cannot be stored under its keyword.
  case invalidText(keyword: String, reason: String)
  /// The encoder failed; only for want of memory.
  case cannotEncode(reason: String)

  /// The message for users and logs.
  public var description: String {
    switch self {
    case .notPNG: "not a PNG file"
    case .tooManyBytes(let found, let limit): "a PNG file of \(found) bytes, the limit is \(limit)"
    case .tooManyPixels(let width, let height, let limit):
      "a PNG image of \(width)×\(height) pixels, the limit is \(limit) pixels"
    case .malformed(let reason): "malformed PNG file: \(reason)"
    case .invalidText(let keyword, let reason): "PNG text \"\(keyword)\": \(reason)"
    case .cannotEncode(let reason): "cannot encode a PNG image: \(reason)"
    }
  }
}

/// PNG files (ISO/IEC 15948), by libpng.
public enum PNG {
  /// A text chunk: a keyword of 1–79 printable ASCII characters and any text without NUL.
  public struct Text: Sendable, Equatable {
    /// What the text is, such as `parameters` or `Software`.
    public let keyword: String
    /// The text.
    public let text: String

    /// A text chunk.
    public init(_ keyword: String, _ text: String) {
      self.keyword = keyword
      self.text = text
    }
  }

  /// What a decoder accepts.
  public struct Limits: Sendable {
    /// Largest file.
    public var maxBytes: Int
    /// Largest image.
    public var maxPixels: Int

    /// Limits; by default 64 MiB and 16 megapixels (4096 × 4096).
    public init(maxBytes: Int = 64 << 20, maxPixels: Int = 4096 * 4096) {
      self.maxBytes = maxBytes
      self.maxPixels = maxPixels
    }
  }

  /// Encodes an image. The same image and texts give the same bytes with the same version of zlib.
  ///
  /// Texts in Latin-1 become tEXt chunks, which every reader shows; others iTXt chunks in UTF-8. Both stand before the
  /// pixels.
  public static func encode(_ image: RasterImage, texts: [Text] = []) throws(PNGError) -> [UInt8] {
    for text in texts { try check(text) }
    guard let width = UInt32(exactly: image.width), let height = UInt32(exactly: image.height), width <= Int32.max,
      height <= Int32.max
    else {
      throw .cannotEncode(reason: "\(image.width)×\(image.height) pixels are more than the format allows")
    }
    var result = png_codec_result()
    defer { png_codec_free(&result) }
    let status = withCTexts(texts) {
      png_codec_encode(image.pixels, width, height, Int32(image.channels), $0.baseAddress, $0.count, &result)
    }
    guard status == PNG_CODEC_OK, let bytes = result.bytes else { throw .cannotEncode(reason: message(result)) }
    return Array(UnsafeBufferPointer(start: bytes, count: result.byte_count))
  }

  /// Decodes an image of any PNG type to 8-bit RGB, or RGBA if it has transparency, with its text chunks in order.
  /// 16-bit samples keep their upper byte. EXIF's orientation is not applied: ``ImageFile`` does that.
  public static func decode(_ file: [UInt8], limits: Limits = Limits()) throws(PNGError) -> (
    image: RasterImage, texts: [Text]
  ) {
    guard file.count <= limits.maxBytes else { throw .tooManyBytes(found: file.count, limit: limits.maxBytes) }
    var result = png_codec_result()
    defer { png_codec_free(&result) }
    let status = png_codec_decode(file, file.count, UInt64(max(limits.maxPixels, 0)), &result)
    switch status {
    case PNG_CODEC_OK: break
    case PNG_CODEC_NOT_PNG: throw .notPNG
    case PNG_CODEC_TOO_LARGE:
      throw .tooManyPixels(width: Int(result.width), height: Int(result.height), limit: limits.maxPixels)
    default: throw .malformed(reason: message(result))
    }
    let pixels = Array(UnsafeBufferPointer(start: result.bytes, count: result.byte_count))
    let image = RasterImage(
      width: Int(result.width), height: Int(result.height), channels: Int(result.channels), pixels: pixels)
    return (image, texts(result))
  }

  // MARK: - Files from outside

  /// Reads the first chunk, which has the size.
  static func header(of file: [UInt8]) throws(ImageFileError) -> codec_header {
    guard file.count >= 33 else { throw .malformed(.png, reason: "the file ends early") }
    guard file[12..<16].elementsEqual("IHDR".utf8) else {
      throw .malformed(.png, reason: "it does not begin with IHDR")
    }
    func number(_ offset: Int) -> UInt32 { file[offset..<(offset + 4)].reduce(0) { $0 << 8 | UInt32($1) } }
    var header = codec_header()
    (header.width, header.height) = (number(16), number(20))
    return header
  }

  static func decode(_ file: [UInt8], _ header: codec_header) throws(ImageFileError) -> RasterImage {
    try contents(of: file, maxPixels: Int(header.width) * Int(header.height)).image
  }

  /// The image and the texts of a file from outside.
  static func contents(of file: [UInt8], maxPixels: Int) throws(ImageFileError) -> (image: RasterImage, texts: [Text]) {
    do throws(PNGError) {
      return try decode(file, limits: Limits(maxBytes: file.count, maxPixels: maxPixels))
    } catch {
      guard case .malformed(let reason) = error else { throw .malformed(.png, reason: error.description) }
      // libpng says it in words.
      if reason.lowercased() == "out of memory" { throw .cannotDecode(.png, reason: reason) }
      throw .malformed(.png, reason: reason)
    }
  }

  // MARK: - Texts

  private static func check(_ text: Text) throws(PNGError) {
    let keyword = Array(text.keyword.utf8)
    guard (1...79).contains(keyword.count), keyword.allSatisfy({ (0x20...0x7e).contains($0) }), keyword.first != 0x20,
      keyword.last != 0x20,
      !zip(keyword, keyword.dropFirst()).contains(where: { $0 == 0x20 && $1 == 0x20 })
    else {
      throw .invalidText(
        keyword: text.keyword, reason: "a keyword is 1 to 79 printable ASCII characters with single spaces inside")
    }
    guard !text.text.utf8.contains(0) else {
      throw .invalidText(keyword: text.keyword, reason: "the text contains NUL")
    }
  }

  /// Calls `body` with the texts as C strings, which live as long as the call.
  private static func withCTexts<Result>(_ texts: [Text], _ body: (UnsafeBufferPointer<png_codec_text>) -> Result)
    -> Result
  {
    var bytes: [CChar] = []
    var offsets: [(keyword: Int, text: Int, international: Bool)] = []
    for text in texts {
      let keyword = bytes.count
      bytes += text.keyword.utf8CString
      let isInternational = !text.text.unicodeScalars.allSatisfy(isPrintableLatin1)
      offsets.append((keyword, bytes.count, isInternational))
      if isInternational {
        bytes += text.text.utf8CString
      } else {
        bytes += text.text.unicodeScalars.map { CChar(truncatingIfNeeded: $0.value) } + [0]
      }
    }
    return bytes.withUnsafeBufferPointer { strings in
      let chunks = offsets.map {
        png_codec_text(
          keyword: strings.baseAddress! + $0.keyword, text: strings.baseAddress! + $0.text,
          international: $0.international ? 1 : 0)
      }
      return chunks.withUnsafeBufferPointer(body)
    }
  }

  /// What the standard allows in a tEXt chunk: printable characters of Latin-1, and newlines.
  private static func isPrintableLatin1(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0x0a, 0x20...0x7e, 0xa0...0xff: true
    default: false
    }
  }

  private static func texts(_ result: png_codec_result) -> [Text] {
    var texts: [Text] = []
    var rest = UnsafeBufferPointer(start: result.texts, count: result.texts_byte_count)[...]
    while let kind = rest.first, let keywordEnd = rest.firstIndex(of: 0),
      let textEnd = rest[(keywordEnd + 1)...].firstIndex(of: 0)
    {
      let text = rest[(keywordEnd + 1)..<textEnd]
      let isUTF8 = kind == UInt8(ascii: "U")
      texts.append(
        Text(
          latin1(rest[(rest.startIndex + 1)..<keywordEnd]),
          isUTF8 ? String(decoding: text, as: UTF8.self) : latin1(text)))
      rest = rest[(textEnd + 1)...]
    }
    return texts
  }

  private static func latin1(_ bytes: some Sequence<UInt8>) -> String {
    var text = String.UnicodeScalarView()
    text.append(contentsOf: bytes.map { Unicode.Scalar($0) })
    return String(text)
  }

  private static func message(_ result: png_codec_result) -> String {
    withUnsafeBytes(of: result.error) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
  }
}

extension PNG {
  /// Where each of several files that follow one another begins and ends; empty where `bytes` are not such files.
  public static func files(in bytes: UnsafeRawBufferPointer) -> [Range<Int>] {
    let signature: [UInt8] = [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]
    var files: [Range<Int>] = [], start = 0, end = 0
    while start < bytes.count {
      guard bytes.count - start > signature.count, bytes[start..<start + signature.count].elementsEqual(signature)
      else {
        return []
      }
      end = start + signature.count
      var isEnd = false
      while !isEnd {
        guard bytes.count - end >= 12 else { return [] }
        let length = bytes[end..<end + 4].reduce(0) { $0 << 8 | Int($1) }
        isEnd = bytes[end + 4..<end + 8].elementsEqual("IEND".utf8)
        guard bytes.count - end - 12 >= length else { return [] }
        end += 12 + length
      }
      files.append(start..<end)
      start = end
    }
    return files
  }
}
