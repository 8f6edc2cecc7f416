import Foundation
import StrictJSON
import Weights

/// The members of one JSON object of a configuration file, read field by field with limits.
///
/// A field that is `null` counts as absent.
struct ConfigurationFields {
  /// Path of the file, for errors.
  let file: String
  private let prefix: String
  private let members: JSONObject

  private static let maxFileBytes = 4 << 20

  /// Reads a configuration file.
  init(contentsOf url: URL) throws(ConfigurationError) {
    file = url.path
    prefix = ""
    let bytes: [UInt8]
    do { bytes = try readSmallFile(url.path, maxBytes: Self.maxFileBytes) } catch {
      switch error {
      case .cannotRead(_, let reason): throw .cannotRead(file: url.path, reason: reason)
      case .foreignFile(_, _, let kind): throw .malformed(file: url.path, reason: "it is \(kind)")
      default: throw .cannotRead(file: url.path, reason: error.description)
      }
    }
    let document: JSON
    do { document = try JSON(bytes) } catch { throw .malformed(file: url.path, reason: error.description) }
    guard case .object(let members) = document else { throw .malformed(file: url.path, reason: "is \(document.kind), not an object") }
    self.members = members
  }

  private init(file: String, prefix: String, members: JSONObject) {
    self.file = file
    self.prefix = prefix
    self.members = members
  }

  /// The field's value, or nil if it is absent or null.
  func value(_ field: String) -> JSON? { members[field].flatMap { $0 == .null ? nil : $0 } }

  private func wrongType(_ field: String, _ expected: String, _ found: JSON) -> ConfigurationError {
    .wrongType(file: file, field: prefix + field, expected: expected, found: found.kind)
  }

  /// An error that says that `field` breaks `limit`.
  func outOfRange(_ field: String, _ value: some CustomStringConvertible, _ limit: String) -> ConfigurationError {
    .outOfRange(file: file, field: prefix + field, value: value.description, limit: limit)
  }

  /// A nested object, or nil if it is absent.
  func object(_ field: String) throws(ConfigurationError) -> ConfigurationFields? {
    guard let value = value(field) else { return nil }
    guard case .object(let members) = value else { throw wrongType(field, "an object", value) }
    return ConfigurationFields(file: file, prefix: prefix + field + ".", members: members)
  }

  /// These fields, with absent ones taken from `other`.
  func falling(backOn other: ConfigurationFields) -> ConfigurationFields {
    ConfigurationFields(file: file, prefix: prefix, members: members.filter { $0.value != .null }.merging(other.members) { own, _ in own })
  }

  private func required<Value>(_ field: String, _ fallback: Value?) throws(ConfigurationError) -> Value {
    guard let fallback else { throw .missing(file: file, field: prefix + field) }
    return fallback
  }

  /// An integer in `range`.
  func integer(_ field: String, in range: ClosedRange<Int>, default fallback: Int? = nil) throws(ConfigurationError) -> Int {
    guard let value = value(field) else { return try required(field, fallback) }
    guard let integer = value.integer else { throw wrongType(field, "an integer", value) }
    guard range.contains(integer) else { throw outOfRange(field, integer, "in \(range)") }
    return integer
  }

  /// A number in `range`.
  func number(_ field: String, in range: ClosedRange<Double>, default fallback: Double? = nil) throws(ConfigurationError) -> Double {
    guard let value = value(field) else { return try required(field, fallback) }
    guard case .number(let text) = value, let number = text.double else { throw wrongType(field, "a number", value) }
    guard range.contains(number) else { throw outOfRange(field, number, "in \(range)") }
    return number
  }

  /// A boolean.
  func boolean(_ field: String, default fallback: Bool? = nil) throws(ConfigurationError) -> Bool {
    guard let value = value(field) else { return try required(field, fallback) }
    guard case .bool(let boolean) = value else { throw wrongType(field, "a boolean", value) }
    return boolean
  }

  /// A string.
  func string(_ field: String, default fallback: String? = nil) throws(ConfigurationError) -> String {
    guard let value = value(field) else { return try required(field, fallback) }
    guard case .string(let string) = value else { throw wrongType(field, "a string", value) }
    return string
  }

  /// `count` integers, each in `range`.
  func integers(_ field: String, count: ClosedRange<Int>, in range: ClosedRange<Int>) throws(ConfigurationError) -> [Int] {
    try elements(field, count: count).enumerated().map { (index, element) throws(ConfigurationError) in
      guard let integer = element.integer else { throw wrongType("\(field)[\(index)]", "an integer", element) }
      guard range.contains(integer) else { throw outOfRange("\(field)[\(index)]", integer, "in \(range)") }
      return integer
    }
  }

  /// `count` numbers, each in `range`.
  func numbers(_ field: String, count: ClosedRange<Int>, in range: ClosedRange<Double>) throws(ConfigurationError) -> [Double] {
    try elements(field, count: count).enumerated().map { (index, element) throws(ConfigurationError) in
      guard case .number(let text) = element, let number = text.double else { throw wrongType("\(field)[\(index)]", "a number", element) }
      guard range.contains(number) else { throw outOfRange("\(field)[\(index)]", number, "in \(range)") }
      return number
    }
  }

  /// `count` booleans.
  func booleans(_ field: String, count: ClosedRange<Int>) throws(ConfigurationError) -> [Bool] {
    try elements(field, count: count).enumerated().map { (index, element) throws(ConfigurationError) in
      guard case .bool(let boolean) = element else { throw wrongType("\(field)[\(index)]", "a boolean", element) }
      return boolean
    }
  }

  private func elements(_ field: String, count: ClosedRange<Int>) throws(ConfigurationError) -> [JSON] {
    guard let value = value(field) else { return try required(field, nil) }
    guard case .array(let elements) = value else { throw wrongType(field, "an array", value) }
    guard count.contains(elements.count) else {
      let limit = count.count == 1 ? "\(count.lowerBound)" : "\(count)"
      throw outOfRange(field, "\(elements.count) elements long", "\(limit) elements long")
    }
    return elements
  }

  /// Requires that a string field, if present, has one of the `supported` values.
  func require(_ field: String, oneOf supported: [String]) throws(ConfigurationError) {
    guard value(field) != nil else { return }
    let found = try string(field)
    guard supported.contains(found) else {
      throw .unsupported(file: file, field: prefix + field, value: "\"\(found.prefix(80))\"", supported: supported)
    }
  }

  /// Requires that a switch, if present, is off: what it turns on is not implemented.
  func requireOff(_ field: String) throws(ConfigurationError) {
    guard try boolean(field, default: false) == false else {
      throw .unsupported(file: file, field: prefix + field, value: "true", supported: ["false"])
    }
  }
}
