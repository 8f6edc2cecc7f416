import Foundation
import StrictJSON
import Weights

/// The members of one JSON object of a configuration file, read field by field with limits.
///
/// A field that is `null` counts as absent.
public struct ConfigurationFields: Sendable {
  /// Path of the file, for errors.
  package let file: String
  private let prefix: String
  private let members: JSONObject

  private static let maxFileBytes = 4 << 20

  /// Reads a configuration file.
  package init(contentsOf url: URL) throws(ConfigurationError) {
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
    do { document = try JSON(bytes) } catch { throw .malformed(file: url.path, reason: Self.explain(error, in: bytes)) }
    guard case .object(let members) = document else {
      throw .malformed(file: url.path, reason: "is \(document.kind), not an object")
    }
    self.members = members
  }

  /// A syntax error with its place as editors show it, and the two mistakes that are made by hand.
  private static func explain(_ error: JSONError, in bytes: [UInt8]) -> String {
    if bytes.starts(with: [0xef, 0xbb, 0xbf]) {
      return "it begins with a byte-order mark; save it as UTF-8 without one"
    }
    let before = bytes.prefix(error.offset)
    let line = before.count { $0 == 0x0a } + 1,
      column = before.count - (before.lastIndex(of: 0x0a).map { $0 + 1 } ?? 0) + 1
    let isComma = before.last { ![0x20, 0x09, 0x0a, 0x0d].contains($0) } == UInt8(ascii: ",")
    let closes =
      bytes.dropFirst(error.offset).first.map { [UInt8(ascii: "}"), UInt8(ascii: "]")].contains($0) } ?? false
    let hint = isComma && closes ? ", behind a comma too many" : ""
    return "\(error.reason) in line \(line), column \(column)\(hint)"
  }

  private init(file: String, prefix: String, members: JSONObject) {
    self.file = file
    self.prefix = prefix
    self.members = members
  }

  /// The field's value, or nil if it is absent or null.
  package func value(_ field: String) -> JSON? { members[field].flatMap { $0 == .null ? nil : $0 } }

  /// Requires that there is no other field than the `known` ones: a misspelt one would be ignored.
  package func requireOnly(_ known: [String]) throws(ConfigurationError) {
    guard let field = members.keys.first(where: { !known.contains($0) }) else { return }
    throw .unknown(file: file, field: prefix + field, known: known)
  }

  private func wrongType(_ field: String, _ expected: String, _ found: JSON) -> ConfigurationError {
    .wrongType(file: file, field: prefix + field, expected: expected, found: found.kind)
  }

  /// An error that says that `field` breaks `limit`.
  package func outOfRange(_ field: String, _ value: some CustomStringConvertible, _ limit: String) -> ConfigurationError
  {
    .outOfRange(file: file, field: prefix + field, value: value.description, limit: limit)
  }

  /// A nested object, or nil if it is absent.
  package func object(_ field: String) throws(ConfigurationError) -> ConfigurationFields? {
    guard let value = value(field) else { return nil }
    guard case .object(let members) = value else { throw wrongType(field, "an object", value) }
    return ConfigurationFields(file: file, prefix: prefix + field + ".", members: members)
  }

  /// These fields, with absent ones taken from `other`.
  package func falling(backOn other: ConfigurationFields) -> ConfigurationFields {
    ConfigurationFields(
      file: file, prefix: prefix, members: members.filter { $0.value != .null }.merging(other.members) { own, _ in own }
    )
  }

  private func required<Value>(_ field: String, _ fallback: Value?) throws(ConfigurationError) -> Value {
    guard let fallback else { throw .missing(file: file, field: prefix + field) }
    return fallback
  }

  /// An integer in `range`.
  package func integer(_ field: String, in range: ClosedRange<Int>, default fallback: Int? = nil)
    throws(ConfigurationError)
    -> Int
  {
    guard let value = value(field) else { return try required(field, fallback) }
    guard let integer = value.integer else { throw wrongType(field, "an integer", value) }
    guard range.contains(integer) else { throw outOfRange(field, integer, "in \(range)") }
    return integer
  }

  /// A number in `range`.
  package func number(_ field: String, in range: ClosedRange<Double>, default fallback: Double? = nil)
    throws(ConfigurationError) -> Double
  {
    guard let value = value(field) else { return try required(field, fallback) }
    guard case .number(let text) = value, let number = text.double else { throw wrongType(field, "a number", value) }
    guard range.contains(number) else { throw outOfRange(field, number, "in \(range)") }
    return number
  }

  /// A boolean.
  package func boolean(_ field: String, default fallback: Bool? = nil) throws(ConfigurationError) -> Bool {
    guard let value = value(field) else { return try required(field, fallback) }
    guard case .bool(let boolean) = value else { throw wrongType(field, "a boolean", value) }
    return boolean
  }

  /// A string.
  package func string(_ field: String, default fallback: String? = nil) throws(ConfigurationError) -> String {
    guard let value = value(field) else { return try required(field, fallback) }
    guard case .string(let string) = value else { throw wrongType(field, "a string", value) }
    return string
  }

  /// `count` integers, each in `range`.
  package func integers(_ field: String, count: ClosedRange<Int>, in range: ClosedRange<Int>) throws(ConfigurationError)
    -> [Int]
  {
    try elements(field, count: count).enumerated().map { (index, element) throws(ConfigurationError) in
      guard let integer = element.integer else { throw wrongType("\(field)[\(index)]", "an integer", element) }
      guard range.contains(integer) else { throw outOfRange("\(field)[\(index)]", integer, "in \(range)") }
      return integer
    }
  }

  /// `count` numbers, each in `range`.
  package func numbers(_ field: String, count: ClosedRange<Int>, in range: ClosedRange<Double>)
    throws(ConfigurationError)
    -> [Double]
  {
    try elements(field, count: count).enumerated().map { (index, element) throws(ConfigurationError) in
      guard case .number(let text) = element, let number = text.double else {
        throw wrongType("\(field)[\(index)]", "a number", element)
      }
      guard range.contains(number) else { throw outOfRange("\(field)[\(index)]", number, "in \(range)") }
      return number
    }
  }

  /// `count` booleans.
  package func booleans(_ field: String, count: ClosedRange<Int>) throws(ConfigurationError) -> [Bool] {
    try elements(field, count: count).enumerated().map { (index, element) throws(ConfigurationError) in
      guard case .bool(let boolean) = element else { throw wrongType("\(field)[\(index)]", "a boolean", element) }
      return boolean
    }
  }

  /// `count` strings.
  package func strings(_ field: String, count: ClosedRange<Int>) throws(ConfigurationError) -> [String] {
    try elements(field, count: count).enumerated().map { (index, element) throws(ConfigurationError) in
      guard let text = element.text else { throw wrongType("\(field)[\(index)]", "a string", element) }
      return text
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
  package func require(_ field: String, oneOf supported: [String]) throws(ConfigurationError) {
    guard value(field) != nil else { return }
    let found = try string(field)
    guard supported.contains(found) else {
      throw .unsupported(file: file, field: prefix + field, value: "\"\(found.prefix(80))\"", supported: supported)
    }
  }

  /// Requires that the weights beside this configuration are plain numbers: `quantization_config` says that a library
  /// has quantised them.
  package func requireUnquantised() throws(ConfigurationError) {
    guard let value = value("quantization_config") else { return }
    let method =
      (value["quant_method"] ?? value["quant_type"])?.text.map { "\"\($0.prefix(80))\"" } ?? "without quant_method"
    let kind = ["bnb_4bit_quant_type", "weight_format", "quant_algo"].compactMap { value[$0]?.text }.first
    let bits =
      kind ?? (value["load_in_4bit"] == .bool(true) ? "4 bits" : value["load_in_8bit"] == .bool(true) ? "8 bits" : nil)
    throw .unsupported(
      file: file, field: prefix + "quantization_config",
      value: method + (bits.map { " (\($0.prefix(80)))" } ?? ""),
      supported: ["checkpoints in bf16, fp16 or fp32, of which `qwen-image quantize` makes int8 or q4"])
  }

  /// Requires that a switch, if present, is off: what it turns on is not implemented.
  package func requireOff(_ field: String) throws(ConfigurationError) {
    guard try boolean(field, default: false) == false else {
      throw .unsupported(file: file, field: prefix + field, value: "true", supported: ["false"])
    }
  }
}
