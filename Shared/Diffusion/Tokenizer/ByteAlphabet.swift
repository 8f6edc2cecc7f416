/// The byte ↔ character table of byte-level BPE (GPT-2): vocabulary files spell every byte as one visible character.
///
/// Printable bytes of Latin-1 stand for themselves; the others, in order, for U+0100, U+0101, ….
enum ByteAlphabet {
  /// The byte of each character below U+0144, or nil.
  private static let bytes: [UInt8?] = {
    var table = [UInt8?](repeating: nil, count: 0x144)
    var next = 0x100
    for byte in UInt8.min...UInt8.max {
      switch byte {
      case 0x21...0x7e, 0xa1...0xac, 0xae...0xff: table[Int(byte)] = byte
      default:
        table[next] = byte
        next += 1
      }
    }
    return table
  }()

  /// How `bytes` are spelled.
  static func text(of bytes: some Sequence<UInt8>) -> String {
    String(String.UnicodeScalarView(bytes.map { scalars[Int($0)] }))
  }

  private static let scalars: [Unicode.Scalar] = {
    var table = [Unicode.Scalar](repeating: " ", count: 256)
    for (value, byte) in bytes.enumerated() {
      if let byte, let scalar = Unicode.Scalar(UInt32(value)) { table[Int(byte)] = scalar }
    }
    return table
  }()

  /// The bytes that `text` spells, or nil if a character is not in the table.
  static func bytes(of text: some StringProtocol) -> [UInt8]? {
    var result: [UInt8] = []
    result.reserveCapacity(text.utf8.count)
    for scalar in text.unicodeScalars {
      guard scalar.value < 0x144, let byte = bytes[Int(scalar.value)] else { return nil }
      result.append(byte)
    }
    return result
  }
}
