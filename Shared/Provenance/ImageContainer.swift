import CZlib
import ImageCodec

/// An image file as far as something can be put beside its pixels: the chunks of PNG, the segments of JPEG, the chunks
/// of WebP.
struct ImageContainer {
  /// What is put into a file.
  enum Insertion {
    /// An XMP packet.
    case xmp([UInt8])
    /// A store of C2PA manifests, as a JUMBF superbox.
    case manifest([UInt8])
  }

  /// Largest file in bytes: what the sizes of all formats count, and so do offsets in a manifest.
  static let maxBytes = 1 << 30
  /// Most bytes of a JPEG segment besides its marker and its length.
  private static let maxSegmentBytes = 65_535 - 2

  let format: ImageFileFormat
  let file: [UInt8]

  /// - Throws: when the bytes are not a file of a known format; of the contents no more is looked at than is needed.
  init(_ file: [UInt8]) throws(ProvenanceError) {
    guard let format = ImageFileFormat(signatureOf: file) else {
      throw .malformed(.png, reason: "it begins like no PNG, JPEG or WebP file")
    }
    guard file.count <= Self.maxBytes else {
      throw .tooLarge("bytes of an image file", found: file.count, limit: Self.maxBytes)
    }
    self.format = format
    self.file = file
  }

  /// The file with `insertion`, and where in it that is with everything that encloses it.
  func inserting(_ insertion: Insertion) throws(ProvenanceError) -> (file: [UInt8], range: Range<Int>) {
    let block = try block(insertion)
    let start: Int, result: [UInt8]
    switch format {
    case .png:
      start = try pngStart
      result = file[..<start] + block + file[start...]
    case .jpeg:
      start = try jpegStart
      result = file[..<start] + block + file[start...]
    case .webp:
      var chunks = try webPChunks
      if case .xmp = insertion { chunks = try Self.announcingXMP(chunks) }
      start = 12 + chunks.count
      let size = UInt32(4 + chunks.count + block.count)
      result = Array("RIFF".utf8) + size.littleEndianBytes + Array("WEBP".utf8) + chunks + block
    }
    return (result, start..<start + block.count)
  }

  /// What encloses an insertion in this format, and the insertion.
  func block(_ insertion: Insertion) throws(ProvenanceError) -> [UInt8] {
    switch (format, insertion) {
    case (.png, .xmp(let packet)):
      // Neither compressed, nor in a language, nor with a translated keyword.
      return Self.pngChunk("iTXt", Array(XMP.keyword.utf8) + [0, 0, 0, 0, 0] + packet)
    case (.png, .manifest(let store)): return Self.pngChunk("caBX", store)
    case (.jpeg, .xmp(let packet)): return try Self.segment(0xe1, XMP.jpegHeader + packet)
    case (.jpeg, .manifest(let store)): return try Self.jumbfSegments(store)
    case (.webp, .xmp(let packet)): return Self.riffChunk("XMP ", packet)
    case (.webp, .manifest(let store)): return Self.riffChunk("C2PA", store)
    }
  }
}

// MARK: - PNG

extension ImageContainer {
  /// Behind the first chunk, IHDR.
  private var pngStart: Int {
    get throws(ProvenanceError) {
      let end = 8 + 12 + 13
      guard file.count >= end, file[8..<16].elementsEqual([0, 0, 0, 13] + Array("IHDR".utf8)) else {
        throw .malformed(.png, reason: "it does not begin with IHDR")
      }
      return end
    }
  }

  private static func pngChunk(_ type: String, _ data: [UInt8]) -> [UInt8] {
    let body = Array(type.utf8) + data
    let checksum = body.withUnsafeBufferPointer { crc32(0, $0.baseAddress, uInt($0.count)) }
    return UInt32(data.count).bigEndianBytes + body + UInt32(truncatingIfNeeded: checksum).bigEndianBytes
  }
}

// MARK: - JPEG

extension ImageContainer {
  /// Behind the segments APP0 and APP1 that a file begins with: JFIF, EXIF, XMP.
  private var jpegStart: Int {
    get throws(ProvenanceError) {
      var end = 2
      while file.count >= end + 4, file[end] == 0xff, (0xe0...0xe1).contains(file[end + 1]) {
        end += 2 + Int(file[end + 2]) << 8 + Int(file[end + 3])
      }
      guard file.count >= end + 2, file[end] == 0xff else {
        throw .malformed(.jpeg, reason: "no marker follows its segments APP0 and APP1")
      }
      return end
    }
  }

  private static func segment(_ marker: UInt8, _ data: [UInt8]) throws(ProvenanceError) -> [UInt8] {
    guard data.count <= maxSegmentBytes else {
      throw .tooLarge("bytes of a JPEG segment", found: data.count, limit: maxSegmentBytes)
    }
    return [0xff, marker] + UInt16(data.count + 2).bigEndianBytes + data
  }

  /// A superbox in segments APP11 (ISO/IEC 19566-5, annex D): each says which part it is, and repeats the header of the
  /// box.
  private static func jumbfSegments(_ box: [UInt8]) throws(ProvenanceError) -> [UInt8] {
    let header = box.prefix(8), instance: UInt16 = 1
    let partBytes = maxSegmentBytes - 2 - 2 - 4 - header.count
    var segments: [UInt8] = [], rest = box.dropFirst(header.count), number: UInt32 = 0
    repeat {
      number += 1
      let data = Array("JP".utf8) + instance.bigEndianBytes + number.bigEndianBytes + header + rest.prefix(partBytes)
      segments += try segment(0xeb, data)
      rest = rest.dropFirst(partBytes)
    } while !rest.isEmpty
    return segments
  }
}

// MARK: - WebP

extension ImageContainer {
  /// The chunks, as RIFF's header counts them.
  private var webPChunks: [UInt8] {
    get throws(ProvenanceError) {
      let size = file[4..<8].reversed().reduce(0) { $0 << 8 | Int($1) }
      guard file.count >= 12 + 18, size == file.count - 8, size.isMultiple(of: 2) else {
        throw .malformed(.webp, reason: "RIFF's header counts \(size) bytes of a file of \(file.count)")
      }
      return Array(file[12...])
    }
  }

  /// The chunks behind a chunk VP8X which says that there is XMP.
  private static func announcingXMP(_ chunks: [UInt8]) throws(ProvenanceError) -> [UInt8] {
    let (hasXMP, hasAlpha) = (UInt8(0x04), UInt8(0x10))
    if chunks.starts(with: "VP8X".utf8) {
      var chunks = chunks
      chunks[8] |= hasXMP
      return chunks
    }
    let bits: (width: Int, height: Int, isTransparent: Bool)
    switch chunks.prefix(4) {
    case _ where chunks.starts(with: "VP8L".utf8) && chunks[8] == 0x2f:
      let header = chunks[9..<13].reversed().reduce(0) { $0 << 8 | Int($1) }
      bits = (header & 0x3fff, header >> 14 & 0x3fff, header >> 28 & 1 == 1)
    case _ where chunks.starts(with: "VP8 ".utf8) && chunks[11..<14].elementsEqual([0x9d, 0x01, 0x2a]):
      func side(_ start: Int) -> Int { (Int(chunks[start]) | Int(chunks[start + 1]) << 8) & 0x3fff }
      bits = (side(14) - 1, side(16) - 1, false)
    default: throw .malformed(.webp, reason: "its first chunk is not VP8X, VP8L or VP8")
    }
    guard bits.width >= 0, bits.height >= 0 else { throw .malformed(.webp, reason: "a side has no pixels") }
    let sides = [bits.width, bits.height].flatMap { UInt32($0).littleEndianBytes.prefix(3) }
    return riffChunk("VP8X", [hasXMP | (bits.isTransparent ? hasAlpha : 0), 0, 0, 0] + sides) + chunks
  }

  private static func riffChunk(_ kind: String, _ data: [UInt8]) -> [UInt8] {
    Array(kind.utf8) + UInt32(data.count).littleEndianBytes + data + (data.count.isMultiple(of: 2) ? [] : [0])
  }
}
