import OrderedCollections

// Not of `nil`, which stays the absence of a value: write `.null`.
extension JSON: ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral,
  ExpressibleByStringInterpolation,
  ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
  /// `true` or `false`.
  public init(booleanLiteral value: Bool) { self = .bool(value) }
  /// An integer.
  public init(integerLiteral value: Int) { self.init(value) }
  /// A number.
  public init(floatLiteral value: Double) { self.init(value) }
  /// A string.
  public init(stringLiteral value: String) { self = .string(value) }
  /// An array.
  public init(arrayLiteral elements: JSON...) { self = .array(elements) }
  /// An object; of two members with one name the last one is kept.
  public init(dictionaryLiteral members: (String, JSON)...) {
    self = .object(JSONObject(members, uniquingKeysWith: { $1 }))
  }

  /// An integer.
  public init(_ value: some FixedWidthInteger) { self = .number(JSONNumber(text: "\(value)")) }
  /// A number; `null` if it is not finite, for which JSON has no form.
  public init(_ value: Double) { self = value.isFinite ? .number(JSONNumber(value)) : .null }
  /// A string; `null` for nil.
  public init(_ text: String?) { self = text.map { .string($0) } ?? .null }
}
