import CWire

/// Walks a serialised message along its descriptor before protobuf-c unpacks it.
///
/// protobuf-c allocates whatever a message asks for, truncates numbers that do not fit, cuts texts at a NUL, lets UTF-8
/// and enumerations pass unchecked, and merges fields that come twice. The scanner refuses all of that, names the
/// field, and allocates nothing but the field's path.
struct ProtobufScanner {
  /// Fields that the descriptor does not know are skipped, but only so many per message.
  static let maxUnknownFields = 64

  let limits: WireLimits

  /// Checks that `bytes` is a message of the type that `descriptor` describes. `path` names it in errors; empty for the
  /// outermost.
  func scan(_ bytes: UnsafeRawBufferPointer, as descriptor: ProtobufCMessageDescriptor, path: String = "")
    throws(WireError)
  {
    var reader = ProtobufReader(bytes)
    var tally = FieldTally()
    while !reader.isAtEnd {
      let (number, wireType) = try reader.tag(path)
      guard let index = Self.fieldIndex(number, in: descriptor) else {
        try tally.countUnknown(path)
        _ = try reader.skip(wireType, Self.join(path, "\(number)"))
        continue
      }
      let field = descriptor.fields[index]
      let name = String(cString: field.name)
      let fieldPath = Self.join(path, name)
      guard field.label == PROTOBUF_C_LABEL_REPEATED else {
        try tally.countSingular(field, index: index, fieldPath)
        try scanValue(of: field, wireType: wireType, &reader, fieldPath)
        continue
      }
      let elementType = Self.wireType(of: field.type)
      if wireType == .lengthDelimited, elementType != .lengthDelimited {
        let packed = try reader.lengthDelimited(fieldPath)
        try tally.countRepeated(
          index, Self.elementCount(packed, elementType), limit: limits.maxListElements, fieldPath)
        var elements = ProtobufReader(packed)
        while !elements.isAtEnd { try scanValue(of: field, wireType: elementType, &elements, fieldPath) }
      } else {
        let position = try tally.countRepeated(index, 1, limit: limits.maxListElements, fieldPath)
        try scanValue(of: field, wireType: wireType, &reader, "\(fieldPath)[\(position)]")
      }
    }
  }

  /// Numbers in a packed list, one that the list's end cuts off not counted.
  private static func elementCount(_ packed: UnsafeRawBufferPointer, _ type: ProtobufReader.WireType) -> Int {
    switch type {
    case .bits64: packed.count / 8
    case .bits32: packed.count / 4
    default: packed.count { $0 < 0x80 }
    }
  }

  private func scanValue(
    of field: ProtobufCFieldDescriptor, wireType: ProtobufReader.WireType, _ reader: inout ProtobufReader,
    _ path: String
  ) throws(WireError) {
    guard wireType == Self.wireType(of: field.type) else {
      throw .malformed(field: path, reason: "wire type \(wireType.rawValue) does not fit the field")
    }
    switch field.type {
    case PROTOBUF_C_TYPE_MESSAGE:
      let bytes = try reader.lengthDelimited(path)
      try scan(bytes, as: field.descriptor.assumingMemoryBound(to: ProtobufCMessageDescriptor.self).pointee, path: path)
    case PROTOBUF_C_TYPE_STRING:
      try scanText(try reader.lengthDelimited(path), path)
    case PROTOBUF_C_TYPE_ENUM:
      let value = Int64(bitPattern: try reader.varint(path))
      let values = field.descriptor.assumingMemoryBound(to: ProtobufCEnumDescriptor.self).pointee
      let isKnown = (0..<Int(values.n_values)).contains { Int64(values.values[$0].value) == value }
      guard isKnown else { throw .unknownValue(field: path, value: Int(value)) }
    case PROTOBUF_C_TYPE_UINT32:
      let value = try reader.varint(path)
      guard value <= UInt32.max else {
        throw .outOfRange(field: path, value: "\(value)", allowed: "at most \(UInt32.max)")
      }
    case PROTOBUF_C_TYPE_BOOL:
      let value = try reader.varint(path)
      guard value <= 1 else { throw .outOfRange(field: path, value: "\(value)", allowed: "0 or 1") }
    default:
      _ = try reader.skip(wireType, path)
    }
  }

  private func scanText(_ bytes: UnsafeRawBufferPointer, _ path: String) throws(WireError) {
    guard bytes.count <= limits.maxTextBytes else {
      throw .tooLarge(field: path, bytes: bytes.count, limit: limits.maxTextBytes)
    }
    guard String(validating: bytes, as: UTF8.self) != nil else {
      throw .invalidText(field: path, reason: "is not valid UTF-8")
    }
    guard !bytes.contains(0) else { throw .invalidText(field: path, reason: "holds a NUL character") }
  }

  private static func fieldIndex(_ number: UInt32, in descriptor: ProtobufCMessageDescriptor) -> Int? {
    (0..<Int(descriptor.n_fields)).first { descriptor.fields[$0].id == number }
  }

  private static func join(_ path: String, _ name: String) -> String { path.isEmpty ? name : "\(path).\(name)" }

  private static func wireType(of type: ProtobufCType) -> ProtobufReader.WireType {
    switch type {
    case PROTOBUF_C_TYPE_STRING, PROTOBUF_C_TYPE_BYTES, PROTOBUF_C_TYPE_MESSAGE: .lengthDelimited
    case PROTOBUF_C_TYPE_DOUBLE, PROTOBUF_C_TYPE_FIXED64, PROTOBUF_C_TYPE_SFIXED64: .bits64
    case PROTOBUF_C_TYPE_FLOAT, PROTOBUF_C_TYPE_FIXED32, PROTOBUF_C_TYPE_SFIXED32: .bits32
    default: .varint
    }
  }
}

/// Counts the fields of one message.
private struct FieldTally {
  private var unknown = 0
  private var singular: [Int] = []
  private var oneofs: [UInt32] = []
  private var repeated: [Int: Int] = [:]

  mutating func countUnknown(_ path: String) throws(WireError) {
    unknown += 1
    guard unknown <= ProtobufScanner.maxUnknownFields else {
      throw .tooMany(
        field: path.isEmpty ? "unknown fields" : "\(path): unknown fields", count: unknown,
        limit: ProtobufScanner.maxUnknownFields)
    }
  }

  mutating func countSingular(_ field: ProtobufCFieldDescriptor, index: Int, _ path: String) throws(WireError) {
    guard !singular.contains(index) else { throw .malformed(field: path, reason: "comes twice") }
    singular.append(index)
    guard field.flags & PROTOBUF_C_FIELD_FLAG_ONEOF.rawValue != 0 else { return }
    guard !oneofs.contains(field.quantifier_offset) else {
      throw .malformed(field: path, reason: "comes beside another member of the same oneof")
    }
    oneofs.append(field.quantifier_offset)
  }

  @discardableResult
  mutating func countRepeated(_ index: Int, _ count: Int, limit: Int, _ path: String) throws(WireError) -> Int {
    let before = repeated[index, default: 0]
    guard before + count <= limit else { throw .tooMany(field: path, count: before + count, limit: limit) }
    repeated[index] = before + count
    return before
  }
}
