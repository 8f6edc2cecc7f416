/// How an image lies in its file, by EXIF's tag 274: 1 upright, 2 to 8 mirrored, turned, or both.
///
/// Only the tag in the first directory counts, as in Pillow's `exif_transpose`; its fallback to XMP is left out. Data
/// that break EXIF's rules are taken as upright.
enum EXIFOrientation {
  /// The orientation that a file of a format asks for, 1 to 8.
  static func orientation(of file: [UInt8], format: ImageFileFormat) -> Int {
    EXIFData.data(of: file, format: format).flatMap { orientation(exif: $0) } ?? 1
  }

  /// The tag's value in EXIF data, which are a TIFF file; nil: there is none.
  private static func orientation(exif: ArraySlice<UInt8>) -> Int? {
    guard let tiff = TIFFReader(exif), let directory = tiff.number(4, 4), let entry = tiff.entry(274, in: directory),
      entry.count == 1
    else { return nil }
    // A byte, a short or a long.
    let sizes = [1: 1, 3: 2, 4: 4]
    guard let size = sizes[entry.type], let value = tiff.number(entry.offset + 8, size) else { return nil }
    return (1...8).contains(value) ? value : nil
  }
}

/// Where the formats keep EXIF data.
enum EXIFData {
  /// The EXIF data of a file; nil: there are none.
  static func data(of file: [UInt8], format: ImageFileFormat) -> ArraySlice<UInt8>? {
    switch format {
    case .png: pngData(file)
    case .jpeg: jpegData(file)
    case .webp: webpData(file)
    }
  }

  private static func jpegData(_ file: [UInt8]) -> ArraySlice<UInt8>? {
    let reader = ByteReader(bytes: file[...])
    var offset = 2
    while let marker = reader.number(at: offset, bytes: 2, bigEndian: true), marker >= 0xff00 {
      // Bytes of 0xff may fill up before a marker; 0xffda begins the pixels.
      if marker == 0xffff {
        offset += 1
        continue
      }
      guard marker != 0xffda, let length = reader.number(at: offset + 2, bytes: 2, bigEndian: true), length >= 2
      else { return nil }
      let data = file[min(offset + 4, file.count)..<min(offset + 2 + length, file.count)]
      if marker == 0xffe1, data.starts(with: Array("Exif\0\0".utf8)) { return data }
      offset += 2 + length
    }
    return nil
  }

  private static func pngData(_ file: [UInt8]) -> ArraySlice<UInt8>? {
    chunk("eXIf", in: file, from: 8, sizeFirst: true)
  }

  private static func webpData(_ file: [UInt8]) -> ArraySlice<UInt8>? {
    chunk("EXIF", in: file, from: 12, sizeFirst: false)
  }

  /// The data of the first chunk of a kind, in PNG (size, kind, data, checksum; big-endian) or in RIFF (kind, size,
  /// data, padded to an even length; little-endian).
  private static func chunk(_ kind: String, in file: [UInt8], from start: Int, sizeFirst isPNG: Bool)
    -> ArraySlice<UInt8>?
  {
    let reader = ByteReader(bytes: file[...])
    var offset = start
    while let size = reader.number(at: offset + (isPNG ? 0 : 4), bytes: 4, bigEndian: isPNG) {
      let data = offset + 8
      guard size <= file.count - data else { return nil }
      let name = offset + (isPNG ? 4 : 0)
      if file[name..<(name + 4)].elementsEqual(kind.utf8) { return file[data..<(data + size)] }
      offset = data + size + (isPNG ? 4 : size % 2)
    }
    return nil
  }
}

/// The directories of EXIF data, which are a TIFF file.
struct TIFFReader {
  /// An entry of a directory.
  struct Entry {
    /// Where it begins.
    let offset: Int
    /// 1: bytes, 2: ASCII, 3: shorts, 4: longs, 7: bytes of any meaning.
    let type: Int
    let count: Int
  }

  private let reader: ByteReader
  /// The order of bytes in numbers.
  let isBigEndian: Bool

  /// nil: the data are no TIFF file.
  init?(_ exif: ArraySlice<UInt8>) {
    reader = ByteReader(bytes: exif.dropPrefix(Array("Exif\0\0".utf8)))
    switch reader.number(at: 0, bytes: 2, bigEndian: true) {
    case 0x4d4d: isBigEndian = true
    case 0x4949: isBigEndian = false
    default: return nil
    }
    guard number(2, 2) == 42 else { return nil }
  }

  /// The number of `count` bytes at `offset`; nil: the data end before.
  func number(_ offset: Int, _ count: Int) -> Int? {
    reader.number(at: offset, bytes: count, bigEndian: isBigEndian)
  }

  /// The first entry of a tag in a directory; nil: there is none, or the data end before.
  func entry(_ tag: Int, in directory: Int) -> Entry? {
    guard let entries = number(directory, 2) else { return nil }
    for index in 0..<entries {
      let offset = directory + 2 + 12 * index
      guard let found = number(offset, 2) else { return nil }
      guard found == tag else { continue }
      guard let type = number(offset + 2, 2), let count = number(offset + 4, 4) else { return nil }
      return Entry(offset: offset, type: type, count: count)
    }
    return nil
  }

  /// The bytes of an entry that has some (ASCII, or of any meaning); nil: it has others, or the data end before.
  func bytes(_ entry: Entry) -> ArraySlice<UInt8>? {
    guard [1, 2, 7].contains(entry.type) else { return nil }
    let start = entry.count <= 4 ? entry.offset + 8 : number(entry.offset + 8, 4)
    guard let start, start <= reader.bytes.count - entry.count else { return nil }
    return reader.bytes.dropFirst(start).prefix(entry.count)
  }
}

/// Numbers in bytes; nil where they would reach beyond the end.
private struct ByteReader {
  let bytes: ArraySlice<UInt8>

  func number(at offset: Int, bytes count: Int, bigEndian: Bool) -> Int? {
    guard offset >= 0, offset <= bytes.count - count else { return nil }
    let start = bytes.startIndex + offset
    let number = bytes[start..<(start + count)]
    return bigEndian ? number.reduce(0) { $0 << 8 | Int($1) } : number.reversed().reduce(0) { $0 << 8 | Int($1) }
  }
}

extension ArraySlice<UInt8> {
  fileprivate func dropPrefix(_ prefix: [UInt8]) -> ArraySlice<UInt8> {
    starts(with: prefix) ? dropFirst(prefix.count) : self
  }
}
