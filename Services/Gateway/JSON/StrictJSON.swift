/// A JSON value with nothing lost: numbers keep their digits, objects their order.
public enum JSONValue: Hashable, Sendable {
  /// `null`
  case null
  /// `true`, `false`
  case bool(Bool)
  /// As it is written.
  case number(JSONNumber)
  /// With escapes resolved.
  case string(String)
  /// `[…]`
  case array([JSONValue])
  /// `{…}`; keys are unique.
  case object([JSONMember])

  /// What it is, for error messages.
  public var kind: String {
    switch self {
    case .null: "null"
    case .bool: "a boolean"
    case .number: "a number"
    case .string: "a string"
    case .array: "an array"
    case .object: "an object"
    }
  }
}

/// One `"key": value` of an object.
public struct JSONMember: Hashable, Sendable {
  /// The key.
  public var key: String
  /// Its value.
  public var value: JSONValue

  /// `"key": value`
  public init(key: String, value: JSONValue) {
    self.key = key
    self.value = value
  }
}

/// A number as it is written: JSON sets no limits, and a detour through `Double` would change large integers.
public struct JSONNumber: Hashable, Sendable {
  /// Matches the grammar of RFC 8259.
  public let text: String

  /// The number written as `text`.
  package init(text: String) {
    self.text = text
  }

  /// The value, when it is written without fraction and exponent and fits.
  public var integer: Int64? { Int64(text) }

  /// The nearest `Double`, when it is finite.
  public var double: Double? { Double(text).flatMap { $0.isFinite ? $0 : nil } }
}

/// Why bytes are not acceptable JSON.
public enum JSONError: Error, Hashable, Sendable {
  /// Nothing there.
  case empty
  /// Not UTF-8, from this byte.
  case notUTF8(offset: Int)
  /// Not JSON's grammar, from this byte.
  case syntax(offset: Int, expected: String)
  /// An object has the key twice.
  case duplicateKey(String)
  /// Arrays and objects within each other.
  case tooDeep(limit: Int)
}

extension JSONError: CustomStringConvertible {
  /// For people.
  public var description: String {
    switch self {
    case .empty: "the body is empty"
    case .notUTF8(let offset): "the body is not UTF-8 (byte \(offset))"
    case .syntax(let offset, let expected): "the body is not JSON: expected \(expected) at byte \(offset)"
    case .duplicateKey(let key): "the key \"\(key)\" occurs twice"
    case .tooDeep(let limit): "arrays and objects are nested deeper than \(limit) levels"
    }
  }
}

/// Reads JSON as RFC 8259 has it, without extensions, and refuses what receivers understand differently: duplicate keys, lone
/// surrogates, bytes that are not UTF-8. `JSONDecoder` takes the first of two equal keys and rounds large integers.
public struct StrictJSON {
  private let bytes: [UInt8]
  private let maxDepth: Int
  private var offset = 0

  private init(_ bytes: [UInt8], maxDepth: Int) {
    self.bytes = bytes
    self.maxDepth = maxDepth
  }

  /// The value that `bytes` hold.
  ///
  /// - Parameters:
  ///   - bytes: UTF-8 text; whoever reads it bounds its length.
  ///   - maxDepth: levels of nesting allowed; bounds the recursion.
  public static func parse(_ bytes: [UInt8], maxDepth: Int = 16) throws(JSONError) -> JSONValue {
    guard !bytes.isEmpty else { throw .empty }
    if let offset = firstInvalidUTF8(bytes) { throw .notUTF8(offset: offset) }
    var parser = StrictJSON(bytes, maxDepth: maxDepth)
    let value = try parser.value(depth: 0)
    parser.skipSpace()
    guard parser.offset == bytes.count else { throw .syntax(offset: parser.offset, expected: "the end") }
    return value
  }

  private static func firstInvalidUTF8(_ bytes: [UInt8]) -> Int? {
    var decoder = UTF8()
    var iterator = bytes.makeIterator()
    var offset = 0
    while true {
      switch decoder.decode(&iterator) {
      case .scalarValue(let scalar): offset += UTF8.width(scalar)
      case .emptyInput: return nil
      case .error: return offset
      }
    }
  }

  private var next: UInt8? { offset < bytes.count ? bytes[offset] : nil }

  private mutating func skipSpace() {
    while let byte = next, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { offset += 1 }
  }

  private mutating func take(_ byte: UInt8) -> Bool {
    guard next == byte else { return false }
    offset += 1
    return true
  }

  private mutating func value(depth: Int) throws(JSONError) -> JSONValue {
    skipSpace()
    switch next {
    case UInt8(ascii: "{"): return .object(try object(depth: depth + 1))
    case UInt8(ascii: "["): return .array(try array(depth: depth + 1))
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"): return try literal("true", .bool(true))
    case UInt8(ascii: "f"): return try literal("false", .bool(false))
    case UInt8(ascii: "n"): return try literal("null", .null)
    case .some(UInt8(ascii: "-")), .some(UInt8(ascii: "0")...UInt8(ascii: "9")): return .number(try number())
    default: throw .syntax(offset: offset, expected: "a value")
    }
  }

  private mutating func literal(_ text: String, _ value: JSONValue) throws(JSONError) -> JSONValue {
    guard bytes[offset...].starts(with: text.utf8) else { throw .syntax(offset: offset, expected: "a value") }
    offset += text.utf8.count
    return value
  }

  private mutating func object(depth: Int) throws(JSONError) -> [JSONMember] {
    guard depth <= maxDepth else { throw .tooDeep(limit: maxDepth) }
    offset += 1
    skipSpace()
    if take(UInt8(ascii: "}")) { return [] }
    var members: [JSONMember] = []
    var keys: Set<String> = []
    repeat {
      skipSpace()
      guard next == UInt8(ascii: "\"") else { throw .syntax(offset: offset, expected: "a key in quotes") }
      let key = try string()
      guard keys.insert(key).inserted else { throw .duplicateKey(key) }
      skipSpace()
      guard take(UInt8(ascii: ":")) else { throw .syntax(offset: offset, expected: "\":\"") }
      members.append(JSONMember(key: key, value: try value(depth: depth)))
      skipSpace()
    } while take(UInt8(ascii: ","))
    guard take(UInt8(ascii: "}")) else { throw .syntax(offset: offset, expected: "\",\" or \"}\"") }
    return members
  }

  private mutating func array(depth: Int) throws(JSONError) -> [JSONValue] {
    guard depth <= maxDepth else { throw .tooDeep(limit: maxDepth) }
    offset += 1
    skipSpace()
    if take(UInt8(ascii: "]")) { return [] }
    var values: [JSONValue] = []
    repeat {
      values.append(try value(depth: depth))
      skipSpace()
    } while take(UInt8(ascii: ","))
    guard take(UInt8(ascii: "]")) else { throw .syntax(offset: offset, expected: "\",\" or \"]\"") }
    return values
  }

  private mutating func number() throws(JSONError) -> JSONNumber {
    let start = offset
    _ = take(UInt8(ascii: "-"))
    if !take(UInt8(ascii: "0")) { try digits() }
    if take(UInt8(ascii: ".")) { try digits() }
    if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
      if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
      try digits()
    }
    return JSONNumber(text: String(decoding: bytes[start..<offset], as: UTF8.self))
  }

  private mutating func digits() throws(JSONError) {
    let start = offset
    while let byte = next, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { offset += 1 }
    guard offset > start else { throw .syntax(offset: offset, expected: "a digit") }
  }

  private mutating func string() throws(JSONError) -> String {
    offset += 1
    var text: [UInt8] = []
    while let byte = next {
      switch byte {
      case UInt8(ascii: "\""):
        offset += 1
        return String(decoding: text, as: UTF8.self)
      case UInt8(ascii: "\\"): text += String(try escape()).utf8
      case 0..<0x20: throw .syntax(offset: offset, expected: "no bare control character in a string")
      default:
        text.append(byte)
        offset += 1
      }
    }
    throw .syntax(offset: offset, expected: "the end of a string")
  }

  private mutating func escape() throws(JSONError) -> Unicode.Scalar {
    offset += 1
    guard let byte = next else { throw .syntax(offset: offset, expected: "the rest of an escape") }
    offset += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
    case UInt8(ascii: "b"): return "\u{8}"
    case UInt8(ascii: "f"): return "\u{C}"
    case UInt8(ascii: "n"): return "\n"
    case UInt8(ascii: "r"): return "\r"
    case UInt8(ascii: "t"): return "\t"
    case UInt8(ascii: "u"): return try unicodeEscape()
    default: throw .syntax(offset: offset - 1, expected: "one of \"\\/bfnrtu after a backslash")
    }
  }

  private mutating func unicodeEscape() throws(JSONError) -> Unicode.Scalar {
    let start = offset
    let first = try codeUnit()
    if let scalar = Unicode.Scalar(first) { return scalar }
    // A surrogate: only the high one, followed by a low one, makes a character.
    guard first < 0xDC00, take(UInt8(ascii: "\\")), take(UInt8(ascii: "u")) else {
      throw .syntax(offset: start, expected: "a pair of surrogates")
    }
    let second = try codeUnit()
    guard (0xDC00...0xDFFF).contains(second), let scalar = Unicode.Scalar(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)) else {
      throw .syntax(offset: start, expected: "a pair of surrogates")
    }
    return scalar
  }

  private mutating func codeUnit() throws(JSONError) -> UInt32 {
    var unit: UInt32 = 0
    for _ in 0..<4 {
      guard let byte = next, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
        throw .syntax(offset: offset, expected: "four hexadecimal digits")
      }
      unit = unit << 4 | UInt32(digit)
      offset += 1
    }
    return unit
  }
}
