/// The formats of files that are read and written.
public enum ImageFileFormat: String, Sendable, CaseIterable, CustomStringConvertible {
  /// ISO/IEC 15948.
  case png = "PNG"
  /// ISO/IEC 10918-1, with JFIF, EXIF and Adobe's markers.
  case jpeg = "JPEG"
  /// RFC 9649.
  case webp = "WebP"

  /// The name of the format.
  public var description: String { rawValue }

  /// The name as HTTP's media types and OpenAI's API have it, in lower case.
  public var name: String { rawValue.lowercased() }

  /// The format of a name; nil: there is none.
  public init?(name: String) {
    guard let format = Self.allCases.first(where: { $0.name == name }) else { return nil }
    self = format
  }

  /// The format that the first bytes of a file say, whatever follows; nil: none that is read.
  public init?(signatureOf file: some RandomAccessCollection<UInt8>) {
    guard case .image(let format) = ImageFileKind(file) else { return nil }
    self = format
  }

  /// Most pixels of width and of height.
  public var maxSide: Int {
    switch self {
    case .png: Int(Int32.max)
    case .jpeg: JPEG.maxSide
    case .webp: WebP.maxSide
    }
  }

  /// The type as HTTP names it.
  public var mediaType: String {
    switch self {
    case .png: "image/png"
    case .jpeg: "image/jpeg"
    case .webp: "image/webp"
    }
  }
}

/// Why a file is not taken as an image.
public enum ImageFileError: Error, Equatable, Sendable, CustomStringConvertible {
  /// There are no bytes.
  case empty
  /// A file of another kind, such as "a GIF image", and what its sender can do.
  case otherKind(String, advice: String)
  /// A file of no known kind; its first bytes.
  case unknownKind(firstBytes: [UInt8])
  /// A file with several frames, which none of the models takes.
  case animated(ImageFileFormat)
  /// The file has more bytes than allowed.
  case tooManyBytes(found: Int, limit: Int)
  /// The image has more pixels than allowed.
  case tooManyPixels(ImageFileFormat, width: Int, height: Int, limit: Int)
  /// The image is wider or higher than allowed.
  case sideTooLong(ImageFileFormat, width: Int, height: Int, limit: Int)
  /// The file is incomplete or damaged.
  case malformed(ImageFileFormat, reason: String)
  /// The file uses a part of its format that is not read.
  case unsupported(ImageFileFormat, reason: String)
  /// There is no memory for the image, or the library for the format does not work here.
  case cannotDecode(ImageFileFormat, reason: String)

  /// The message for users and logs.
  public var description: String {
    switch self {
    case .empty: "an empty file; PNG, JPEG and WebP images are read"
    case .otherKind(let kind, let advice): "\(kind); \(advice)"
    case .unknownKind(let bytes):
      "a file of an unknown kind, which begins with the bytes \(Self.hexadecimal(bytes)); "
        + "PNG, JPEG and WebP images are read"
    case .animated(let format): "an animated \(format) image; send one frame of it"
    case .tooManyBytes(let found, let limit): "an image file of \(found) bytes, the limit is \(limit)"
    case .tooManyPixels(let format, let width, let height, let limit):
      "a \(format) image of \(width)×\(height) = \(width * height) pixels, the limit is \(limit) pixels"
    case .sideTooLong(let format, let width, let height, let limit):
      "a \(format) image of \(width)×\(height) pixels, the limit is \(limit) pixels a side"
    case .malformed(let format, let reason): "a damaged or incomplete \(format) file: \(reason)"
    case .unsupported(let format, let reason): "a \(format) file that cannot be read: \(reason)"
    case .cannotDecode(let format, let reason): "the \(format) file cannot be decoded: \(reason)"
    }
  }

  private static func hexadecimal(_ bytes: [UInt8]) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: " ")
  }
}

/// Why an image could not be written as a file.
public enum ImageEncodingError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The quality is outside of the format's range.
  case qualityOutOfRange(ImageFileFormat, found: Int, range: ClosedRange<Int>)
  /// The image is wider or higher than the format allows.
  case sideTooLong(ImageFileFormat, width: Int, height: Int, limit: Int)
  /// A text has no place in a file of the format.
  case invalidText(ImageFileFormat, keyword: String, reason: String)
  /// The encoder failed.
  case cannotEncode(ImageFileFormat, reason: String)

  /// The message for users and logs.
  public var description: String {
    switch self {
    case .qualityOutOfRange(let format, let found, let range):
      "a quality of \(found) for \(format), which has \(range.lowerBound) to \(range.upperBound)"
    case .sideTooLong(let format, let width, let height, let limit):
      "\(width)×\(height) pixels, and \(format) has at most \(limit) a side; PNG has no such limit"
    case .invalidText(let format, let keyword, let reason): "text \"\(keyword)\" of a \(format) file: \(reason)"
    case .cannotEncode(let format, let reason): "cannot encode a \(format) image: \(reason)"
    }
  }
}
