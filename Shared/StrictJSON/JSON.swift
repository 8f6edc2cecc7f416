import OrderedCollections

/// A JSON document, read strictly, with nothing lost: numbers keep their digits, objects their order.
///
/// Foundation's decoder keeps one of two equal keys and rounds large integers, and says nothing; here a duplicate key
/// is an error, because two programs may read the same document differently.
public enum JSON: Hashable, Sendable {
  /// `null`
  case null
  /// `true`, `false`
  case bool(Bool)
  /// As it is written.
  case number(JSONNumber)
  /// With escapes resolved.
  case string(String)
  /// `[…]`
  case array([JSON])
  /// `{…}`; keys are unique.
  case object(JSONObject)

  /// Parses a whole document.
  ///
  /// - Parameters:
  ///   - bytes: UTF-8 text; the caller bounds its length.
  ///   - maxDepth: levels of nesting allowed; bounds the recursion.
  ///   - maxValues: values allowed, those within others too; bounds the memory, of which a value of two bytes may take
  ///     fifty.
  public init(_ bytes: [UInt8], maxDepth: Int = 64, maxValues: Int = .max) throws(JSONError) {
    var reader = JSONReader(bytes, maxDepth: maxDepth, maxValues: maxValues)
    self = try reader.value()
    try reader.end()
  }

  /// What kind of value this is, for error messages.
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

// Access by kind: nil for a value of another one.
extension JSON {
  /// An object's member.
  public subscript(_ key: String) -> JSON? { if case .object(let members) = self { members[key] } else { nil } }
  /// An array's element; nil outside its bounds.
  public subscript(_ index: Int) -> JSON? { elements.flatMap { $0.indices.contains(index) ? $0[index] : nil } }
  /// An array's elements.
  public var elements: [JSON]? { if case .array(let elements) = self { elements } else { nil } }
  /// A string's text.
  public var text: String? { if case .string(let text) = self { text } else { nil } }
  /// A number's value, when it is written without fraction and exponent and fits.
  public var integer: Int? { if case .number(let number) = self { number.integer } else { nil } }
  /// A number's nearest `Double`, when it is finite.
  public var double: Double? { if case .number(let number) = self { number.double } else { nil } }
}

/// The members of an object, in the document's order.
public typealias JSONObject = OrderedDictionary<String, JSON>

/// A number as it is written: JSON sets no limits, and a detour through `Double` would change large integers.
public struct JSONNumber: Hashable, Sendable {
  /// Matches the grammar of RFC 8259.
  public let text: String

  /// The number written as `text`, which the caller has checked.
  package init(text: String) { self.text = text }

  /// A finite number as a document has it that was written and read again: without a fraction if it is whole.
  package init(_ value: Double) {
    text = Int(exactly: value).map { "\($0)" } ?? "\(value)"
  }

  /// The value, when it is written without fraction and exponent and fits.
  public var integer: Int? { Int(text) }

  /// The nearest `Double`, when it is finite.
  public var double: Double? { Double(text).flatMap { $0.isFinite ? $0 : nil } }
}

/// Why and where a document is not acceptable JSON.
public struct JSONError: Error, Hashable, Sendable, CustomStringConvertible {
  /// Byte of the document.
  public let offset: Int
  /// For people, without the place.
  public let reason: String

  /// `reason` at byte `offset`.
  public init(offset: Int, reason: String) {
    self.offset = offset
    self.reason = reason
  }

  /// For people.
  public var description: String { "\(reason) at byte \(offset)" }
}
