/// A pull reader of JSON text: large documents (a vocabulary of 150,000 members) are consumed member by member, without
/// a tree.
///
/// Strict RFC 8259: no comments, no trailing commas, no NaN, valid UTF-8 only, bounded nesting, no duplicate keys in
/// ``value()``.
public struct JSONReader: Sendable {
  private let bytes: [UInt8]
  private var position = 0
  private var depth = 0

  private let maxDepth: Int
  private let maxValues: Int
  private var valueCount = 0

  /// A reader at the beginning of `bytes`, UTF-8 text; deeper nesting than `maxDepth`, and more than `maxValues` values
  /// in trees, are refused.
  public init(_ bytes: [UInt8], maxDepth: Int = 64, maxValues: Int = .max) {
    self.bytes = bytes
    self.maxDepth = maxDepth
    self.maxValues = maxValues
  }

  /// An error at the current position.
  public func failure(_ reason: String) -> JSONError { JSONError(offset: position, reason: reason) }

  /// The next byte, or 0, which no valid token contains, at the end.
  private var current: UInt8 { position < bytes.count ? bytes[position] : 0 }

  private mutating func skipWhitespace() {
    while current == 0x20 || current == 0x0a || current == 0x0d || current == 0x09 { position += 1 }
  }

  private mutating func expect(_ byte: UInt8) throws(JSONError) {
    skipWhitespace()
    guard position < bytes.count else { throw failure("unexpected end, expected '\(Character(Unicode.Scalar(byte)))'") }
    guard bytes[position] == byte else { throw failure("expected '\(Character(Unicode.Scalar(byte)))'") }
    position += 1
  }

  /// Whether the next token starts with `byte`.
  public mutating func peek(_ byte: UInt8) -> Bool {
    skipWhitespace()
    return position < bytes.count && bytes[position] == byte
  }

  /// Requires that nothing but white space follows.
  public mutating func end() throws(JSONError) {
    skipWhitespace()
    guard position == bytes.count else { throw failure("unexpected bytes after the document") }
  }

  /// Reads any value as a tree.
  public mutating func value() throws(JSONError) -> JSON {
    skipWhitespace()
    valueCount += 1
    guard valueCount <= maxValues else { throw failure("more than \(maxValues) values") }
    switch current {
    case UInt8(ascii: "{"):
      var members: JSONObject = [:]
      try forEachMember { (key, reader) throws(JSONError) in
        let value = try reader.value()
        guard members.updateValue(value, forKey: key) == nil else { throw reader.failure("duplicate key \"\(key)\"") }
      }
      return .object(members)
    case UInt8(ascii: "["):
      var elements: [JSON] = []
      try forEachElement { (reader) throws(JSONError) in elements.append(try reader.value()) }
      return .array(elements)
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"): return try literal("true", .bool(true))
    case UInt8(ascii: "f"): return try literal("false", .bool(false))
    case UInt8(ascii: "n"): return try literal("null", .null)
    default: return .number(try number())
    }
  }

  /// Calls `body` with every key of an object; `body` must read exactly the member's value. Duplicates are the caller's
  /// to detect.
  public mutating func forEachMember(_ body: (String, inout JSONReader) throws(JSONError) -> Void) throws(JSONError) {
    try nested(open: UInt8(ascii: "{"), close: UInt8(ascii: "}")) { (reader) throws(JSONError) in
      guard reader.peek(UInt8(ascii: "\"")) else { throw reader.failure("expected a string as key") }
      let key = try reader.string()
      try reader.expect(UInt8(ascii: ":"))
      try body(key, &reader)
    }
  }

  /// Calls `body` at every element of an array; `body` must read exactly the element.
  public mutating func forEachElement(_ body: (inout JSONReader) throws(JSONError) -> Void) throws(JSONError) {
    try nested(open: UInt8(ascii: "["), close: UInt8(ascii: "]"), body)
  }

  private mutating func nested(
    open: UInt8, close: UInt8, _ body: (inout JSONReader) throws(JSONError) -> Void
  ) throws(JSONError) {
    try expect(open)
    depth += 1
    defer { depth -= 1 }
    guard depth <= maxDepth else { throw failure("nested deeper than \(maxDepth) levels") }
    if peek(close) {
      position += 1
      return
    }
    while true {
      try body(&self)
      if peek(close) {
        position += 1
        return
      }
      try expect(UInt8(ascii: ","))
    }
  }

  private mutating func literal(_ text: StaticString, _ value: JSON) throws(JSONError) -> JSON {
    let count = text.utf8CodeUnitCount
    guard position + count <= bytes.count, (0..<count).allSatisfy({ bytes[position + $0] == text.utf8Start[$0] }) else {
      throw failure("expected \(text)")
    }
    position += count
    return value
  }

  /// Reads an integer literal (no fraction, no exponent) that fits `Int`.
  public mutating func integer() throws(JSONError) -> Int {
    skipWhitespace()
    let start = position
    guard let integer = try number().integer else { throw JSONError(offset: start, reason: "expected an integer") }
    return integer
  }

  private mutating func digits() throws(JSONError) {
    guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(current) else { throw failure("expected a digit") }
    while (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(current) { position += 1 }
  }

  private mutating func number() throws(JSONError) -> JSONNumber {
    let start = position
    guard position < bytes.count else { throw failure("unexpected end, expected a value") }
    if current == UInt8(ascii: "-") { position += 1 }
    guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(current) else { throw failure("expected a value") }
    if current == UInt8(ascii: "0") { position += 1 } else { try digits() }
    if current == UInt8(ascii: ".") {
      position += 1
      try digits()
    }
    if current | 0x20 == UInt8(ascii: "e") {
      position += 1
      if current == UInt8(ascii: "+") || current == UInt8(ascii: "-") { position += 1 }
      try digits()
    }
    return JSONNumber(text: String(decoding: bytes[start..<position], as: UTF8.self))
  }

  /// Reads a string.
  public mutating func string() throws(JSONError) -> String {
    try expect(UInt8(ascii: "\""))
    let start = position
    while position < bytes.count, bytes[position] != UInt8(ascii: "\""), bytes[position] != UInt8(ascii: "\\"),
      bytes[position] >= 0x20
    {
      position += 1
    }
    if current == UInt8(ascii: "\"") {
      guard let text = String(validating: bytes[start..<position], as: UTF8.self) else {
        throw JSONError(offset: start, reason: "string is not valid UTF-8")
      }
      position += 1
      return text
    }
    var unescaped = Array(bytes[start..<position])
    while true {
      guard position < bytes.count else { throw failure("unexpected end in a string") }
      let byte = bytes[position]
      position += 1
      switch byte {
      case UInt8(ascii: "\""):
        guard let text = String(validating: unescaped, as: UTF8.self) else {
          throw JSONError(offset: start, reason: "string is not valid UTF-8")
        }
        return text
      case UInt8(ascii: "\\"): try unescape(into: &unescaped)
      case 0..<0x20: throw failure("control character in a string")
      default: unescaped.append(byte)
      }
    }
  }

  private mutating func unescape(into text: inout [UInt8]) throws(JSONError) {
    let escape = current
    position += 1
    switch escape {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(escape)
    case UInt8(ascii: "b"): text.append(0x08)
    case UInt8(ascii: "f"): text.append(0x0c)
    case UInt8(ascii: "n"): text.append(0x0a)
    case UInt8(ascii: "r"): text.append(0x0d)
    case UInt8(ascii: "t"): text.append(0x09)
    case UInt8(ascii: "u"):
      var code = try hexQuad()
      if (0xd800..<0xdc00).contains(code), current == UInt8(ascii: "\\") {
        position += 1
        guard current == UInt8(ascii: "u") else { throw failure("unpaired surrogate") }
        position += 1
        let low = try hexQuad()
        guard (0xdc00..<0xe000).contains(low) else { throw failure("unpaired surrogate") }
        code = 0x10000 + (code - 0xd800) << 10 + (low - 0xdc00)
      }
      guard let scalar = Unicode.Scalar(code) else { throw failure("unpaired surrogate") }
      text.append(contentsOf: UTF8.encode(scalar)!)
    default: throw failure("unknown escape in a string")
    }
  }

  private mutating func hexQuad() throws(JSONError) -> UInt32 {
    var code: UInt32 = 0
    for _ in 0..<4 {
      guard let digit = Character(Unicode.Scalar(current)).hexDigitValue else {
        throw failure("expected four hexadecimal digits")
      }
      code = code << 4 | UInt32(digit)
      position += 1
    }
    return code
  }
}
