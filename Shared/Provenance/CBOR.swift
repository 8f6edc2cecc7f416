/// A value of CBOR (RFC 8949), for encoding; this program reads none.
///
/// The encoding is the deterministic one of section 4.2.1: lengths and numbers are as short as they can be, and the
/// keys of a map are in the order of their bytes.
package indirect enum CBOR: Hashable, Sendable {
  /// 0 or above.
  case unsigned(UInt64)
  /// −1 − the number.
  case negative(UInt64)
  case bytes([UInt8])
  case text(String)
  case array([CBOR])
  /// Two entries with one key are an error.
  case map([Entry])
  case tagged(UInt64, CBOR)
  case bool(Bool)
  case null

  /// A key of a map, and its value.
  package struct Entry: Hashable, Sendable {
    var key: CBOR
    var value: CBOR

    package init(_ key: CBOR, _ value: CBOR) { (self.key, self.value) = (key, value) }
  }

  /// Deepest nesting of arrays, maps and tags.
  package static let maxDepth = 16
  /// Longest encoding of a value, in bytes.
  package static let maxBytes = 1 << 20

  /// A number of either sign.
  package init(_ number: Int) { self = number < 0 ? .negative(UInt64(~number)) : .unsigned(UInt64(number)) }

  /// A map with texts as keys; those without a value are left out.
  package static func object(_ entries: KeyValuePairs<String, CBOR?>) -> CBOR {
    .map(entries.compactMap { key, value in value.map { Entry(.text(key), $0) } })
  }

  /// The bytes.
  ///
  /// - Throws: ``ProvenanceError/tooLarge(_:found:limit:)``, and ``ProvenanceError/repeatedKey``.
  package func encoded() throws(ProvenanceError) -> [UInt8] {
    var bytes: [UInt8] = []
    try append(to: &bytes, depth: 0)
    guard bytes.count <= Self.maxBytes else {
      throw .tooLarge("bytes of CBOR", found: bytes.count, limit: Self.maxBytes)
    }
    return bytes
  }

  private func append(to bytes: inout [UInt8], depth: Int) throws(ProvenanceError) {
    guard depth <= Self.maxDepth else { throw .tooLarge("levels of CBOR", found: depth, limit: Self.maxDepth) }
    switch self {
    case .unsigned(let number): Self.append(0, number, to: &bytes)
    case .negative(let number): Self.append(1, number, to: &bytes)
    case .bytes(let string):
      Self.append(2, UInt64(string.count), to: &bytes)
      bytes += string
    case .text(let text):
      Self.append(3, UInt64(text.utf8.count), to: &bytes)
      bytes += text.utf8
    case .array(let elements):
      Self.append(4, UInt64(elements.count), to: &bytes)
      for element in elements { try element.append(to: &bytes, depth: depth + 1) }
    case .map(let entries): try Self.append(entries, to: &bytes, depth: depth + 1)
    case .tagged(let tag, let value):
      Self.append(6, tag, to: &bytes)
      try value.append(to: &bytes, depth: depth + 1)
    case .bool(let value): bytes.append(value ? 0xf5 : 0xf4)
    case .null: bytes.append(0xf6)
    }
  }

  private static func append(
    _ entries: [Entry], to bytes: inout [UInt8], depth: Int
  ) throws(ProvenanceError) {
    var pairs: [(key: [UInt8], value: [UInt8])] = []
    for entry in entries {
      var pair: (key: [UInt8], value: [UInt8]) = ([], [])
      try entry.key.append(to: &pair.key, depth: depth)
      try entry.value.append(to: &pair.value, depth: depth)
      pairs.append(pair)
    }
    pairs.sort { $0.key.lexicographicallyPrecedes($1.key) }
    guard !zip(pairs, pairs.dropFirst()).contains(where: { $0.key == $1.key }) else { throw .repeatedKey }
    append(5, UInt64(pairs.count), to: &bytes)
    for pair in pairs { bytes += pair.key + pair.value }
  }

  /// Appends the head of a value: its major type, and a number in as few bytes as possible.
  private static func append(_ type: UInt8, _ number: UInt64, to bytes: inout [UInt8]) {
    let major = type << 5
    switch number {
    case 0..<24: bytes.append(major | UInt8(number))
    case 24...0xff: bytes += [major | 24, UInt8(number)]
    case 0x100...0xffff: bytes += [major | 25] + UInt16(number).bigEndianBytes
    case 0x1_0000...0xffff_ffff: bytes += [major | 26] + UInt32(number).bigEndianBytes
    default: bytes += [major | 27] + number.bigEndianBytes
    }
  }
}

extension FixedWidthInteger {
  /// The bytes, the most significant first.
  var bigEndianBytes: [UInt8] { withUnsafeBytes(of: bigEndian, Array.init) }
  /// The bytes, the least significant first.
  var littleEndianBytes: [UInt8] { withUnsafeBytes(of: littleEndian, Array.init) }
}
