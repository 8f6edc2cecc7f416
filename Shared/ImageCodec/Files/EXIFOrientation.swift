/// How an image lies in its file, by EXIF's tag 274: 1 upright, 2 to 8 mirrored, turned, or both.
///
/// Only the tag in the first directory counts, as in Pillow's `exif_transpose`; its fallback to XMP is left out. Data
/// that break EXIF's rules are taken as upright.
enum EXIFOrientation {
  /// The orientation that a file of a format asks for, 1 to 8.
  static func orientation(of file: [UInt8], format: ImageFileFormat) -> Int {
    let data =
      switch format {
      case .png: pngData(file)
      case .jpeg: jpegData(file)
      case .webp: webpData(file)
      }
    return data.flatMap { orientation(exif: $0) } ?? 1
  }

  /// The tag's value in EXIF data, which are a TIFF file; nil: there is none.
  private static func orientation(exif: ArraySlice<UInt8>) -> Int? {
    let reader = ByteReader(bytes: exif.dropPrefix(Array("Exif\0\0".utf8)))
    let isBigEndian: Bool
    switch reader.number(at: 0, bytes: 2, bigEndian: true) {
    case 0x4d4d: isBigEndian = true
    case 0x4949: isBigEndian = false
    default: return nil
    }
    func number(_ offset: Int, _ count: Int) -> Int? {
      reader.number(at: offset, bytes: count, bigEndian: isBigEndian)
    }
    guard number(2, 2) == 42, let directory = number(4, 4), let entries = number(directory, 2) else { return nil }
    for entry in 0..<entries {
      let offset = directory + 2 + 12 * entry
      guard let tag = number(offset, 2) else { return nil }
      guard tag == 274 else { continue }
      // A byte, a short or a long.
      let sizes = [1: 1, 3: 2, 4: 4]
      guard let type = number(offset + 2, 2), let size = sizes[type], number(offset + 4, 4) == 1,
        let value = number(offset + 8, size)
      else { return nil }
      return (1...8).contains(value) ? value : nil
    }
    return nil
  }

  // MARK: - Where the formats keep it

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
