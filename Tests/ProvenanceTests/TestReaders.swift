import ImageCodec
import Testing

/// A CBOR value as a reader of its own sees it: the tests do not trust the encoder.
indirect enum ReadValue: Hashable {
  case number(Int)
  case bytes([UInt8])
  case text(String)
  case array([ReadValue])
  case map([ReadValue: ReadValue])
  case tagged(Int, ReadValue)
  case simple(Int)

  /// The value of a whole encoding.
  init(_ encoding: [UInt8]) throws {
    var rest = encoding[...]
    self = try Self.read(&rest)
    try #require(rest.isEmpty, "\(rest.count) bytes behind the value")
  }

  private static func read(_ rest: inout ArraySlice<UInt8>) throws -> ReadValue {
    let first = rest.first
    let head = try #require(first)
    rest = rest.dropFirst()
    let info = Int(head & 0x1f)
    let width = [24: 1, 25: 2, 26: 4, 27: 8][info] ?? 0
    try #require(info < 28 && rest.count >= width)
    let number = width == 0 ? info : rest.prefix(width).reduce(0) { $0 << 8 | Int($1) }
    rest = rest.dropFirst(width)
    switch head >> 5 {
    case 0: return .number(number)
    case 1: return .number(-1 - number)
    case 2, 3:
      try #require(rest.count >= number)
      let bytes = Array(rest.prefix(number))
      rest = rest.dropFirst(number)
      return head >> 5 == 2 ? .bytes(bytes) : .text(try #require(String(validating: bytes, as: UTF8.self)))
    case 4: return .array(try (0..<number).map { _ in try read(&rest) })
    case 5:
      var map: [ReadValue: ReadValue] = [:]
      for _ in 0..<number {
        let key = try read(&rest)
        #expect(map[key] == nil)
        map[key] = try read(&rest)
      }
      return .map(map)
    case 6: return .tagged(number, try read(&rest))
    default: return .simple(number)
    }
  }

  subscript(_ key: String) -> ReadValue? { self[.text(key)] }
  subscript(_ key: ReadValue) -> ReadValue? { if case .map(let map) = self { map[key] } else { nil } }
  subscript(_ index: Int) -> ReadValue? {
    if case .array(let array) = self, array.indices.contains(index) { array[index] } else { nil }
  }
  var text: String? { if case .text(let text) = self { text } else { nil } }
  var bytes: [UInt8]? { if case .bytes(let bytes) = self { bytes } else { nil } }
  var number: Int? { if case .number(let number) = self { number } else { nil } }
  var count: Int? { if case .array(let array) = self { array.count } else { nil } }
}

/// A JUMBF superbox, as ISO/IEC 19566-5 has it.
struct ReadBox {
  /// The first four bytes of its UUID.
  var kind: String
  var label: String
  var boxes: [ReadBox] = []
  /// Of its content box, if it has one.
  var content: [UInt8]?
  /// What a hashed URI is a digest of.
  var payload: [UInt8]

  init(_ encoding: [UInt8]) throws {
    let outer = try Self.split(encoding)
    try #require(outer.count == 1 && outer[0].type == "jumb", "not one superbox")
    payload = outer[0].payload
    let inner = try Self.split(payload)
    let description = try #require(inner.first { $0.type == "jumd" }?.payload)
    kind = String(decoding: description[..<4], as: UTF8.self)
    let ending: [UInt8] = [0x00, 0x11, 0x00, 0x10, 0x80, 0x00, 0x00, 0xaa, 0x00, 0x38, 0x9b, 0x71]
    #expect(Array(description[4..<16]) == ending)
    #expect(description[16] == 3 && description.last == 0)
    label = String(decoding: description[17..<(description.count - 1)], as: UTF8.self)
    for box in inner.dropFirst() {
      if box.type == "jumb" { boxes.append(try ReadBox(box.whole)) } else { content = box.payload }
    }
    #expect(content == nil || boxes.isEmpty && inner.count == 2)
  }

  private static func split(_ bytes: [UInt8]) throws -> [(type: String, payload: [UInt8], whole: [UInt8])] {
    var boxes: [(String, [UInt8], [UInt8])] = [], place = 0
    while place < bytes.count {
      try #require(bytes.count - place >= 8)
      let count = bytes[place..<(place + 4)].reduce(0) { $0 << 8 | Int($1) }
      try #require(count >= 8 && bytes.count - place >= count)
      let type = String(decoding: bytes[(place + 4)..<(place + 8)], as: UTF8.self)
      boxes.append((type, Array(bytes[(place + 8)..<(place + count)]), Array(bytes[place..<(place + count)])))
      place += count
    }
    return boxes
  }

  subscript(_ path: String...) -> ReadBox? {
    path.reduce(self as ReadBox?) { box, label in box?.boxes.first { $0.label == label } }
  }
}

/// A piece of an image file beside its pixels.
struct ReadPiece {
  /// `iTXt`, `APP1`, `XMP `.
  var kind: String
  var data: [UInt8]
  /// With everything that encloses the data.
  var range: Range<Int>

  /// The pieces of a file, by the rules of its format, in order; of JPEG those before the scan.
  static func all(of file: [UInt8]) throws -> [ReadPiece] {
    switch try #require(ImageFileFormat(signatureOf: file)) {
    case .png: try png(file)
    case .jpeg: try jpeg(file)
    case .webp: try webp(file)
    }
  }

  private static func png(_ file: [UInt8]) throws -> [ReadPiece] {
    var pieces: [ReadPiece] = [], place = 8
    while place < file.count {
      let count = file[place..<(place + 4)].reduce(0) { $0 << 8 | Int($1) }
      let kind = String(decoding: file[(place + 4)..<(place + 8)], as: UTF8.self)
      pieces.append(
        ReadPiece(
          kind: kind, data: Array(file[(place + 8)..<(place + 8 + count)]), range: place..<(place + 12 + count)))
      place += 12 + count
    }
    #expect(pieces.last?.kind == "IEND")
    return pieces
  }

  private static func jpeg(_ file: [UInt8]) throws -> [ReadPiece] {
    var pieces: [ReadPiece] = [], place = 2
    while file[place + 1] != 0xda {
      try #require(file[place] == 0xff)
      let count = Int(file[place + 2]) << 8 + Int(file[place + 3])
      let marker = file[place + 1]
      let kind = (0xe0...0xef).contains(marker) ? "APP\(marker - 0xe0)" : String(marker, radix: 16)
      pieces.append(
        ReadPiece(
          kind: kind, data: Array(file[(place + 4)..<(place + 2 + count)]), range: place..<(place + 2 + count)))
      place += 2 + count
    }
    return pieces
  }

  private static func webp(_ file: [UInt8]) throws -> [ReadPiece] {
    func number(_ place: Int) -> Int { file[place..<(place + 4)].reversed().reduce(0) { $0 << 8 | Int($1) } }
    #expect(number(4) == file.count - 8)
    var pieces: [ReadPiece] = [], place = 12
    while place < file.count {
      let count = number(place + 4), end = place + 8 + (count + 1) / 2 * 2
      let kind = String(decoding: file[place..<(place + 4)], as: UTF8.self)
      pieces.append(ReadPiece(kind: kind, data: Array(file[(place + 8)..<(place + 8 + count)]), range: place..<end))
      place = end
    }
    #expect(place == file.count)
    return pieces
  }
}
