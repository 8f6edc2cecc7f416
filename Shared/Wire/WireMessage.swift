import CWire

/// A Swift value with its counterpart in protobuf-c's generated structures.
protocol WireMessage: Sendable {
  associatedtype CMessage

  /// Gives a C message its defaults.
  static func initialize(_ message: UnsafeMutablePointer<CMessage>)

  /// Checks the values against what their fields allow.
  func check(_ fields: FieldCheck) throws(WireError)

  /// Writes the values, which have been checked, into an initialised C message.
  func fill(_ message: inout CMessage, _ arena: CArena)

  /// Reads a C message that `ProtobufScanner` has passed.
  init(_ message: CMessage, _ fields: FieldCheck) throws(WireError)
}

extension WireMessage {
  func pointer(_ arena: CArena) -> UnsafeMutablePointer<CMessage> {
    let pointer: UnsafeMutablePointer<CMessage> = arena.message(Self.initialize)
    fill(&pointer.pointee, arena)
    return pointer
  }

  /// The message that a field must hold.
  static func required(_ pointer: UnsafeMutablePointer<CMessage>?, _ field: String, of fields: FieldCheck)
    throws(WireError) -> Self
  {
    guard let pointer else { throw .missing(field: fields.name(field)) }
    return try Self(pointer.pointee, fields.inside(field))
  }

  /// The messages of a repeated field.
  static func list(
    _ pointers: UnsafeMutablePointer<UnsafeMutablePointer<CMessage>?>?, _ count: Int, _ field: String,
    of fields: FieldCheck
  ) throws(WireError) -> [Self] {
    var list: [Self] = []
    list.reserveCapacity(count)
    for index in 0..<count { list.append(try required(pointers?[index], "\(field)[\(index)]", of: fields)) }
    return list
  }
}

/// The Swift case of a C enumeration's value; 0 means that the field is absent.
func enumeration<Value: RawRepresentable<Int32>>(_ number: UInt32, _ field: String, of fields: FieldCheck)
  throws(WireError) -> Value
{
  let rawValue = Int32(bitPattern: number)
  if let value = Value(rawValue: rawValue) { return value }
  guard rawValue != 0 else { throw .missing(field: fields.name(field)) }
  throw .unknownValue(field: fields.name(field), value: Int(rawValue))
}

extension String {
  /// The text of a field; protobuf-c never leaves one nil.
  init(field: UnsafeMutablePointer<CChar>?) { self = field.map { String(cString: $0) } ?? "" }
}
