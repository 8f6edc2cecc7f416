/// An image's texts as EXIF data (CIPA DC-008), a big-endian TIFF file, in WebP and JPEG files:
/// * `Software` has its tag, 305.
/// * `parameters` is the comment of tag 37510, in UTF-16 after the word UNICODE, as A1111's web UI writes it and
///   galleries read it.
/// * The record of ``ImageMetadata/keyword`` is the maker's note, tag 37500: the keyword, NUL, and JSON in UTF-8.
enum EXIFTexts {
  private enum Tag {
    static let software = 305, directory = 34665, version = 36864, makerNote = 37500, comment = 37510
  }
  private static let softwareKeyword = "Software"
  /// What a comment begins with that is in UTF-16.
  private static let unicode = Array("UNICODE\0".utf8)
  /// What a maker's note of this software begins with.
  private static let noteStart = Array("\(ImageMetadata.keyword)\0".utf8)
  /// Most bytes of EXIF data in a JPEG file: a segment, without its length and what its kind is.
  static let maxJPEGBytes = 65_535 - 2 - 6

  // MARK: - Writing

  /// The EXIF data of `texts`. A comment that does not fit into a JPEG file is cut before its last line.
  static func data(_ texts: [PNG.Text], _ format: ImageFileFormat) throws(ImageEncodingError) -> [UInt8] {
    var software: String?, comment: String?, note: String?
    for text in texts {
      switch text.keyword {
      case softwareKeyword where text.text.utf8.allSatisfy({ (1...127).contains($0) }): software = text.text
      case ImageMetadata.parametersKeyword: comment = text.text
      case ImageMetadata.keyword: note = text.text
      default:
        throw .invalidText(format, keyword: text.keyword, reason: "EXIF has no field for it, or not for its characters")
      }
    }
    var file = data(software: software, comment: comment, note: note)
    if format == .jpeg, file.count > maxJPEGBytes, let whole = comment {
      let surplus = (file.count - maxJPEGBytes + 1) / 2
      comment = cut(whole, toUnits: max(0, whole.utf16.count - surplus))
      file = data(software: software, comment: comment, note: note)
    }
    guard format != .jpeg || file.count <= maxJPEGBytes else {
      throw .invalidText(
        format, keyword: ImageMetadata.keyword,
        reason: "EXIF data of \(file.count) bytes, the limit is \(maxJPEGBytes)")
    }
    return file
  }

  private static func data(software: String?, comment: String?, note: String?) -> [UInt8] {
    let (ascii, long, undefined) = (2, 4, 7)
    let start = 8
    var first = Directory(start: start, entryCount: (software == nil ? 0 : 1) + 1)
    if let software { first.add(Tag.software, type: ascii, Array(software.utf8) + [0]) }
    let second = first.end
    first.add(Tag.directory, type: long, UInt32(second).bigEndianBytes)
    var own = Directory(start: second, entryCount: 1 + (note == nil ? 0 : 1) + (comment == nil ? 0 : 1))
    own.add(Tag.version, type: undefined, Array("0232".utf8))
    if let note { own.add(Tag.makerNote, type: undefined, noteStart + Array(note.utf8)) }
    if let comment { own.add(Tag.comment, type: undefined, unicode + comment.utf16.flatMap(\.bigEndianBytes)) }
    return Array("MM\0*".utf8) + UInt32(start).bigEndianBytes + first.bytes + own.bytes
  }

  /// A directory of TIFF, and behind it the values that are longer than four bytes.
  private struct Directory {
    let start: Int
    let entryCount: Int
    var entries: [UInt8] = []
    var values: [UInt8] = []

    init(start: Int, entryCount: Int) { (self.start, self.entryCount) = (start, entryCount) }

    /// Where the next value goes.
    var end: Int { start + 2 + 12 * entryCount + 4 + values.count }
    var bytes: [UInt8] { UInt16(entryCount).bigEndianBytes + entries + [0, 0, 0, 0] + values }

    /// Adds an entry; tags rise.
    mutating func add(_ tag: Int, type: Int, _ value: [UInt8]) {
      let count = type == 4 ? value.count / 4 : value.count
      entries += UInt16(tag).bigEndianBytes + UInt16(type).bigEndianBytes + UInt32(count).bigEndianBytes
      if value.count <= 4 {
        entries += value + [UInt8](repeating: 0, count: 4 - value.count)
      } else {
        entries += UInt32(end).bigEndianBytes
        // Values begin at even places.
        values += value + (value.count.isMultiple(of: 2) ? [] : [0])
      }
    }
  }

  /// `text` with at most `limit` UTF-16 units: what stands before its last line is cut, and it says so.
  private static func cut(_ text: String, toUnits limit: Int) -> String {
    let end = text.lastIndex(of: "\n") ?? text.endIndex
    let space = limit - text[end...].utf16.count - 1
    guard space > 0 else { return "" }
    var count = 0
    let cut = text.unicodeScalars[..<end].prefix { scalar in
      count += UTF16.width(scalar)
      return count <= space
    }
    return String(String.UnicodeScalarView(cut)) + "…" + text[end...]
  }

  // MARK: - Reading

  /// The texts of EXIF data, as far as they have them; others' comments too.
  static func texts(in exif: ArraySlice<UInt8>) -> [PNG.Text] {
    guard let tiff = TIFFReader(exif), let first = tiff.number(4, 4) else { return [] }
    var texts: [PNG.Text] = []
    if let software = tiff.entry(Tag.software, in: first).flatMap(tiff.bytes) {
      texts.append(PNG.Text(softwareKeyword, String(decoding: software.prefix { $0 != 0 }, as: UTF8.self)))
    }
    guard let pointer = tiff.entry(Tag.directory, in: first), pointer.type == 4, pointer.count == 1,
      let own = tiff.number(pointer.offset + 8, 4)
    else { return texts }
    if let comment = tiff.entry(Tag.comment, in: own).flatMap(tiff.bytes),
      let text = text(ofComment: comment, bigEndian: tiff.isBigEndian)
    {
      texts.append(PNG.Text(ImageMetadata.parametersKeyword, text))
    }
    if let note = tiff.entry(Tag.makerNote, in: own).flatMap(tiff.bytes), note.starts(with: noteStart) {
      texts.append(
        PNG.Text(ImageMetadata.keyword, String(decoding: note.dropFirst(noteStart.count), as: UTF8.self)))
    }
    return texts
  }

  /// A comment, which says in eight bytes how it is written; nil: in a way that is not read.
  private static func text(ofComment comment: ArraySlice<UInt8>, bigEndian: Bool) -> String? {
    let kind = comment.prefix(8), text = comment.dropFirst(8)
    switch kind {
    case _ where kind.elementsEqual(unicode):
      let bytes = Array(text)
      let units = stride(from: 0, to: bytes.count - 1, by: 2).map { index in
        let (one, other) = (UInt16(bytes[index]), UInt16(bytes[index + 1]))
        return bigEndian ? one << 8 | other : other << 8 | one
      }
      return String(decoding: units, as: UTF16.self)
    case _ where kind.elementsEqual("ASCII\0\0\0".utf8), _ where kind.allSatisfy { $0 == 0 }:
      return String(decoding: text.prefix { $0 != 0 }, as: UTF8.self)
    default: return nil
    }
  }
}
