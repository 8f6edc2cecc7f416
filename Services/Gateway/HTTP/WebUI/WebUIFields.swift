import GatewayAPI
import StrictJSON

/// The fields of a body of A1111's API, read as leniently as its server reads them: numbers may be written as texts and
/// whole numbers with a fraction of 0, flags as 0 and 1, and fields that are not known are left alone.
struct WebUIFields {
  let members: JSONObject
  /// Before the names of the fields in errors, with a dot at its end.
  private let prefix: String

  /// Reads `value`, which must be an object.
  init(_ value: JSON, inside prefix: String = "") throws(APIError) {
    self.prefix = prefix
    guard case .object(let members) = value else {
      let name = prefix.isEmpty ? "the body" : String(prefix.dropLast())
      let param = prefix.isEmpty ? nil : name
      throw APIError(.invalidType, "\(name) must be a JSON object, not \(value.kind)", param: param)
    }
    self.members = members
  }

  /// The field's value; nil when it is absent or null.
  func value(_ name: String) -> JSON? { members[name].flatMap { $0 == .null ? nil : $0 } }

  /// A text; nil when the field is absent or null. Its length is not limited here.
  func text(_ name: String) throws(APIError) -> String? {
    guard let value = value(name) else { return nil }
    guard let text = value.text else { throw wrongType(name, "a string", value) }
    return text
  }

  /// A short text; nil when the field is absent, null or empty.
  func name(_ field: String) throws(APIError) -> String? {
    guard let text = try text(field), !text.isEmpty else { return nil }
    guard text.utf8.count <= Self.maxNameBytes else {
      throw error(field, "has \(text.utf8.count) bytes, the limit is \(Self.maxNameBytes)")
    }
    return text
  }

  /// A finite number; nil when the field is absent, null or an empty text.
  func number(_ name: String) throws(APIError) -> Double? {
    guard let value = value(name), value != .string("") else { return nil }
    let text = value.text.flatMap { $0.utf8.count <= Self.maxNumberBytes ? $0 : nil }
    guard let number = value.double ?? text.flatMap({ Double($0) }), number.isFinite else {
      throw wrongType(name, "a number", value)
    }
    return number
  }

  /// A whole number; nil when the field is absent, null or an empty text.
  func integer(_ name: String, in range: ClosedRange<Int>) throws(APIError) -> Int? {
    guard let value = value(name), value != .string("") else { return nil }
    let text = value.text.flatMap { $0.utf8.count <= Self.maxNumberBytes ? $0 : nil }
    let exact = value.integer ?? text.flatMap { Int($0) }
    let number = value.double ?? text.flatMap { Double($0) }
    guard let integer = exact ?? number.flatMap({ Int(exactly: $0) }) else {
      throw wrongType(name, "a whole number", value)
    }
    guard range.contains(integer) else {
      throw error(name, "is \(integer), but must be from \(range.lowerBound) to \(range.upperBound)")
    }
    return integer
  }

  /// A flag; nil when the field is absent or null.
  func flag(_ name: String) throws(APIError) -> Bool? {
    guard let value = value(name) else { return nil }
    switch value {
    case .bool(let flag): return flag
    case .number(let number) where number.integer == 0: return false
    case .number(let number) where number.integer == 1: return true
    case .string(let text) where ["false", "0", "off", "no"].contains(text.lowercased()): return false
    case .string(let text) where ["true", "1", "on", "yes"].contains(text.lowercased()): return true
    default: throw wrongType(name, "true or false", value)
    }
  }

  /// The members of an object; nil when the field is absent or null.
  func object(_ name: String) throws(APIError) -> WebUIFields? {
    guard let value = value(name) else { return nil }
    return try WebUIFields(value, inside: "\(prefix)\(name).")
  }

  /// The elements of a list; nil when the field is absent or null.
  func list(_ name: String, maxCount: Int) throws(APIError) -> [JSON]? {
    guard let value = value(name) else { return nil }
    guard let elements = value.elements else { throw wrongType(name, "a list", value) }
    guard elements.count <= maxCount else {
      throw error(name, "has \(elements.count) elements, the limit is \(maxCount)")
    }
    return elements
  }

  /// An error about the value of a field.
  func error(_ name: String, _ problem: String, _ code: APIError.Code = .invalidValue) -> APIError {
    APIError(code, "\(prefix)\(name) \(problem)", param: "\(prefix)\(name)")
  }

  private func wrongType(_ name: String, _ expected: String, _ value: JSON) -> APIError {
    error(name, "must be \(expected), not \(value.kind)", .invalidType)
  }

  private static let maxNameBytes = 512
  private static let maxNumberBytes = 40
}
