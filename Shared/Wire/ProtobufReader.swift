/// Reads the tokens of a serialised protobuf message.
struct ProtobufReader {
  enum WireType: UInt8 {
    case varint = 0
    case bits64 = 1
    case lengthDelimited = 2
    case bits32 = 5
  }

  private var rest: UnsafeRawBufferPointer

  init(_ bytes: UnsafeRawBufferPointer) { rest = bytes }

  var isAtEnd: Bool { rest.isEmpty }

  /// A field's number and wire type; `path` names the message.
  mutating func tag(_ path: String) throws(WireError) -> (number: UInt32, wireType: WireType) {
    let message = path.isEmpty ? "envelope" : path
    let tag = try varint(message)
    guard let number = UInt32(exactly: tag >> 3), number > 0, number < 1 << 29 else {
      throw .malformed(field: message, reason: "field number \(tag >> 3) is not valid")
    }
    guard let wireType = WireType(rawValue: UInt8(tag & 7)) else {
      throw .malformed(field: message, reason: "field \(number) has the wire type \(tag & 7)")
    }
    return (number, wireType)
  }

  mutating func varint(_ path: String) throws(WireError) -> UInt64 {
    var value: UInt64 = 0
    for index in 0..<10 {
      guard index < rest.count else { throw .malformed(field: path, reason: "ends inside a number") }
      let byte = rest[index]
      guard index < 9 || byte <= 1 else { break }
      value |= UInt64(byte & 0x7F) << (7 * index)
      if byte < 0x80 {
        rest = UnsafeRawBufferPointer(rebasing: rest[(index + 1)...])
        return value
      }
    }
    throw .malformed(field: path, reason: "holds a number of more than 64 bits")
  }

  mutating func lengthDelimited(_ path: String) throws(WireError) -> UnsafeRawBufferPointer {
    let length = try varint(path)
    guard length <= UInt64(rest.count) else {
      throw .malformed(field: path, reason: "announces \(length) bytes, but \(rest.count) are left")
    }
    return take(Int(length))
  }

  /// Passes over a value and returns its bytes, without a length in front.
  mutating func skip(_ wireType: WireType, _ path: String) throws(WireError) -> UnsafeRawBufferPointer {
    switch wireType {
    case .varint:
      let start = rest
      _ = try varint(path)
      return UnsafeRawBufferPointer(rebasing: start[..<(start.count - rest.count)])
    case .lengthDelimited: return try lengthDelimited(path)
    case .bits64: return try fixed(8, path)
    case .bits32: return try fixed(4, path)
    }
  }

  private mutating func fixed(_ count: Int, _ path: String) throws(WireError) -> UnsafeRawBufferPointer {
    guard rest.count >= count else { throw .malformed(field: path, reason: "ends inside a number") }
    return take(count)
  }

  private mutating func take(_ count: Int) -> UnsafeRawBufferPointer {
    defer { rest = UnsafeRawBufferPointer(rebasing: rest[count...]) }
    return UnsafeRawBufferPointer(rebasing: rest[..<count])
  }
}
