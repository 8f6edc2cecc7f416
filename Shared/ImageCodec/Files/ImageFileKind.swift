/// What a file is, by its first bytes. Names and media types that senders give are not looked at: they are often wrong.
enum ImageFileKind: Equatable {
  case image(ImageFileFormat)
  /// A kind with a name, such as "a GIF image", and what its sender can do.
  case other(String, advice: String)
  case unknown

  init(_ file: some RandomAccessCollection<UInt8>) {
    let start = Array(file.prefix(1024))
    if let format = Self.format(start) {
      self = .image(format)
    } else if let known = Self.signatures.first(where: { $0.matches(start) }) {
      self = .other(known.name, advice: Self.convert)
    } else if let brand = Self.brand(start) {
      self = .other(brand, advice: Self.convert)
    } else if let (name, advice) = Self.text(start) {
      self = .other(name, advice: advice)
    } else {
      self = .unknown
    }
  }

  private static let convert = "PNG, JPEG and WebP images are read"

  private static func format(_ start: [UInt8]) -> ImageFileFormat? {
    if start.starts(with: [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]) { return .png }
    if start.starts(with: [0xff, 0xd8, 0xff]) { return .jpeg }
    if start.starts(with: "RIFF".utf8), start.dropFirst(8).starts(with: "WEBP".utf8) { return .webp }
    return nil
  }

  // MARK: - Binary files

  /// Bytes that begin a kind of file, at a distance from its start.
  private struct Signature {
    let name: String
    let bytes: [UInt8]
    var offset = 0

    func matches(_ start: [UInt8]) -> Bool { start.dropFirst(offset).starts(with: bytes) }
  }

  private static func signature(_ name: String, _ text: String, at offset: Int = 0) -> Signature {
    Signature(name: name, bytes: Array(text.utf8), offset: offset)
  }

  private static let signatures = [
    signature("a GIF image", "GIF8"),
    signature("a TIFF image", "II*\0"), signature("a TIFF image", "MM\0*"), signature("a TIFF image", "II+\0"),
    Signature(name: "a JPEG XL image", bytes: [0xff, 0x0a]),
    Signature(name: "a JPEG XL image", bytes: [0, 0, 0, 0x0c, 0x4a, 0x58, 0x4c, 0x20]),
    Signature(name: "a JPEG 2000 image", bytes: [0, 0, 0, 0x0c, 0x6a, 0x50, 0x20, 0x20]),
    Signature(name: "a JPEG 2000 image", bytes: [0xff, 0x4f, 0xff, 0x51]),
    Signature(name: "an icon", bytes: [0, 0, 1, 0]),
    signature("a Photoshop document", "8BPS"),
    signature("a QOI image", "qoif"),
    signature("an OpenEXR image", "\u{76}/1\u{1}"),
    signature("a Radiance image", "#?RADIANCE"),
    signature("a DDS texture", "DDS "),
    signature("a PDF document", "%PDF-"),
    signature("a PostScript document", "%!PS"),
    signature("an AVI video", "AVI ", at: 8),
    signature("a WAVE sound", "WAVE", at: 8),
    Signature(name: "a Matroska or WebM video", bytes: [0x1a, 0x45, 0xdf, 0xa3]),
    Signature(name: "a ZIP archive or an Office document", bytes: [0x50, 0x4b, 3, 4]),
    Signature(name: "gzip data", bytes: [0x1f, 0x8b]),
    signature("a BMP image", "BM"),
  ]

  /// The brand of a file of ISO's base media format.
  private static func brand(_ start: [UInt8]) -> String? {
    guard start.count >= 12, start[4..<8].elementsEqual("ftyp".utf8) else { return nil }
    switch String(decoding: start[8..<12], as: UTF8.self) {
    case "avif", "avis": return "an AVIF image"
    case "heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1": return "a HEIC or HEIF image"
    case "crx ": return "a raw image of a camera"
    default: return "a video or sound in MP4 or a similar format"
    }
  }

  // MARK: - Texts

  private static func text(_ start: [UInt8]) -> (name: String, advice: String)? {
    let bytes = start.starts(with: [0xef, 0xbb, 0xbf]) ? start[3...] : start[...]
    let isText = !bytes.contains { $0 < 0x20 && ![9, 10, 12, 13].contains($0) || $0 == 0x7f }
    guard isText else { return nil }
    let text = String(decoding: bytes, as: UTF8.self).drop { $0.isWhitespace }.lowercased()
    func begins(_ words: String...) -> Bool { words.contains { text.hasPrefix($0) } }
    let decode = "send the bytes that it stands for"
    if begins("data:") { return ("a data URL as text", decode) }
    if begins("ivborw0kgg", "/9j/", "uklgr") { return ("base64 text of an image", decode) }
    if begins("r0lgod") { return ("base64 text of a GIF image", convert) }
    if begins("http://", "https://") { return ("a URL as text", "send the image that it leads to") }
    if begins("version https://git-lfs") { return ("a Git LFS pointer", "send the file that it stands for") }
    if begins("<svg") || begins("<?xml", "<!--", "<!doctype svg") && text.contains("<svg") {
      return ("an SVG image", convert)
    }
    if begins("<!doctype html", "<html", "<head", "<body") || begins("<!--") && text.contains("<html") {
      return ("an HTML page", "check that its address leads to an image")
    }
    if begins("<") { return ("an XML document", convert) }
    if begins("{", "[") { return ("a JSON document", convert) }
    return start.count >= 8 && text.allSatisfy({ $0.isASCII }) ? ("a text", convert) : nil
  }
}
