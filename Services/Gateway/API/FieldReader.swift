import StrictJSON

/// Reads the fields of a JSON object one by one, strictly, and refuses what was not asked for.
public struct FieldReader {
  private let members: JSONObject
  /// Whether all values are texts, as in forms.
  private let isForm: Bool
  private var known: Set<String> = []

  /// Reads `value`, which must be an object.
  public init(_ value: JSON) throws(APIError) {
    guard case .object(let members) = value else {
      throw APIError(.invalidType, "the body must be a JSON object, not \(value.kind)")
    }
    self.members = members
    isForm = false
  }

  /// Reads the fields of a form: numbers, `true` and `false` are written as texts, and an empty text is an absent
  /// field, but in `prompts`, where it is a text as any other.
  ///
  /// - Throws: when a field comes twice.
  public init(form fields: [(name: String, value: String)], prompts: Set<String> = []) throws(APIError) {
    var members = JSONObject()
    for (name, value) in fields where !value.isEmpty || prompts.contains(name) {
      guard members.updateValue(.string(value), forKey: name) == nil else {
        throw APIError(.invalidValue, "\(name.prefix(80)) comes twice", param: String(name.prefix(80)))
      }
    }
    self.members = members
    isForm = true
  }

  /// Longest text of a form, in bytes, that is read as something else than a string.
  private static let maxTypedBytes = 16 << 10

  /// The value as what it says in a form.
  private func typed(_ value: JSON) -> JSON {
    guard isForm, case .string(let text) = value, text.utf8.count <= Self.maxTypedBytes else { return value }
    switch text.lowercased() {
    case "true": return .bool(true)
    case "false": return .bool(false)
    default: return (try? JSON(Array(text.utf8))) ?? value
    }
  }

  /// The field's value; nil when it is absent or null.
  private mutating func value(_ name: String) -> JSON? {
    known.insert(name)
    guard let value = members[name], value != .null else { return nil }
    return value
  }

  /// Whether the field is there, and not null.
  public mutating func has(_ name: String) -> Bool { value(name) != nil }

  /// A string without U+0000; nil when the field is absent or null.
  ///
  /// - Parameters:
  ///   - maxBytes: the limit in UTF-8 bytes.
  ///   - tooLong: the kind of error that more are.
  public mutating func string(
    _ name: String, maxBytes: Int = 512, tooLong: APIError.Code = .invalidValue
  ) throws(APIError) -> String? {
    guard let value = value(name) else { return nil }
    guard case .string(let text) = value else { throw wrongType(name, "a string", value) }
    guard !text.utf8.contains(0) else {
      throw APIError(.invalidValue, "\(name) must not contain the character U+0000", param: name)
    }
    guard text.utf8.count <= maxBytes else {
      throw APIError(tooLong, "\(name) has \(text.utf8.count) bytes, the limit is \(maxBytes)", param: name)
    }
    return text
  }

  /// A text where an empty one can mean nothing: many clients send "" for what was left empty in a form.
  public mutating func nonEmptyString(_ name: String, maxBytes: Int = 512) throws(APIError) -> String? {
    try string(name, maxBytes: maxBytes).flatMap { $0.isEmpty ? nil : $0 }
  }

  /// A boolean; nil when the field is absent or null.
  public mutating func bool(_ name: String) throws(APIError) -> Bool? {
    guard let value = value(name).map(typed) else { return nil }
    guard case .bool(let flag) = value else { throw wrongType(name, "true or false", value) }
    return flag
  }

  /// An integer, written without fraction or exponent, so that it is exact.
  public mutating func integer(_ name: String, in range: ClosedRange<Int>) throws(APIError) -> Int? {
    guard let value = value(name).map(typed) else { return nil }
    guard case .number(let number) = value else { throw wrongType(name, "an integer", value) }
    guard !number.text.contains(where: { ".eE".contains($0) }) else {
      throw APIError(.invalidType, "\(name) must be an integer, not \(number.text.prefix(40))", param: name)
    }
    guard let integer = number.integer, range.contains(integer) else {
      throw APIError(
        .invalidValue,
        "\(name) is \(number.text.prefix(40)), but must be from \(range.lowerBound) to \(range.upperBound)", param: name
      )
    }
    return integer
  }

  /// A finite number within `range`; nil when the field is absent or null.
  public mutating func number(_ name: String, in range: ClosedRange<Double>) throws(APIError) -> Double? {
    guard let value = value(name).map(typed) else { return nil }
    return try number(name, value, range)
  }

  private func number(_ name: String, _ value: JSON, _ range: ClosedRange<Double>) throws(APIError) -> Double {
    guard case .number(let number) = value else { throw wrongType(name, "a number", value) }
    guard let double = number.double, range.contains(double) else {
      throw APIError(
        .invalidValue,
        "\(name) is \(number.text.prefix(40)), but must be from \(range.lowerBound) to \(range.upperBound)", param: name
      )
    }
    return double
  }

  /// One number, or a list of some; nil when the field is absent or null.
  public mutating func numbers(
    _ name: String, in range: ClosedRange<Double>, maxCount: Int
  ) throws(APIError) -> [Double]? {
    guard let value = value(name).map(typed) else { return nil }
    guard case .array(let elements) = value else { return [try number(name, value, range)] }
    guard (1...maxCount).contains(elements.count) else {
      throw APIError(
        .invalidValue, "\(name) has \(elements.count) numbers, but must have 1 to \(maxCount)", param: name)
    }
    return try elements.map { (element) throws(APIError) in try number(name, element, range) }
  }

  /// The members of an object; nil when the field is absent or null.
  public mutating func object(_ name: String) throws(APIError) -> FieldReader? {
    guard let value = value(name).map(typed) else { return nil }
    guard case .object = value else { throw wrongType(name, "an object", value) }
    return try FieldReader(value)
  }

  /// A name, or the members of an object; nil when the field is absent or null.
  public mutating func nameOrMembers(_ name: String, maxBytes: Int = 64) throws(APIError) -> NameOrMembers? {
    guard let value = value(name).map(typed) else { return nil }
    switch value {
    case .object(let members): return .members(members)
    case .string(""): return nil
    case .string(let text) where text.utf8.count <= maxBytes: return .name(text)
    case .string:
      throw APIError(.invalidValue, "\(name) is a name of more than \(maxBytes) bytes", param: name)
    default: throw wrongType(name, "a name or an object", value)
    }
  }

  /// The members of the objects of a list; nil when the field is absent or null.
  public mutating func objects(
    _ name: String, minCount: Int = 1, maxCount: Int
  ) throws(APIError) -> [FieldReader]? {
    guard let value = value(name).map(typed) else { return nil }
    guard case .array(let elements) = value else { throw wrongType(name, "a list", value) }
    guard (minCount...maxCount).contains(elements.count) else {
      throw APIError(
        .invalidValue, "\(name) has \(elements.count) elements, but must have \(minCount) to \(maxCount)", param: name)
    }
    return try elements.enumerated().map { (index, element) throws(APIError) in
      guard case .object = element else { throw wrongType("\(name)[\(index)]", "an object", element) }
      return try FieldReader(element)
    }
  }

  /// A list of strings without control characters; nil when the field is absent or null.
  ///
  /// - Parameter length: of each, in Unicode scalars.
  public mutating func strings(
    _ name: String, maxCount: Int, length: ClosedRange<Int>
  ) throws(APIError) -> [String]? {
    guard let value = value(name).map(typed) else { return nil }
    guard case .array(let elements) = value else { throw wrongType(name, "a list of strings", value) }
    guard elements.count <= maxCount else {
      throw APIError(.invalidValue, "\(name) has \(elements.count) elements, the limit is \(maxCount)", param: name)
    }
    return try elements.enumerated().map { (index, element) throws(APIError) in
      try shortString("\(name)[\(index)]", element, length)
    }
  }

  /// The members of an object of strings; nil when the field is absent or null. Lengths are in Unicode scalars.
  public mutating func stringMembers(
    _ name: String, maxCount: Int, keyLength: ClosedRange<Int>, valueLength: ClosedRange<Int>
  ) throws(APIError) -> [String: String]? {
    guard let value = value(name).map(typed) else { return nil }
    guard case .object(let members) = value else { throw wrongType(name, "an object of strings", value) }
    guard members.count <= maxCount else {
      throw APIError(.invalidValue, "\(name) has \(members.count) members, the limit is \(maxCount)", param: name)
    }
    var strings: [String: String] = [:]
    for (key, member) in members {
      _ = try shortString("the key \"\(key.prefix(20))\" of \(name)", .string(key), keyLength, param: name)
      let path = "\(name).\(key)"
      guard case .string(let text) = member else { throw wrongType(path, "a string", member) }
      strings[key] = try shortString(path, .string(text), valueLength, isLine: false)
    }
    return strings
  }

  /// - Parameter isLine: whether control characters are refused, and not only U+0000.
  private func shortString(
    _ name: String, _ value: JSON, _ length: ClosedRange<Int>, param: String? = nil, isLine: Bool = true
  ) throws(APIError) -> String {
    guard case .string(let text) = value else { throw wrongType(name, "a string", value) }
    let count = text.unicodeScalars.count
    guard length.contains(count) else {
      throw APIError(
        .invalidValue, "\(name) has \(count) characters, but must have \(length.lowerBound) to \(length.upperBound)",
        param: param ?? name)
    }
    let isSound = { (scalar: Unicode.Scalar) in
      isLine ? scalar.properties.generalCategory != .control : scalar.value != 0
    }
    guard text.unicodeScalars.allSatisfy(isSound) else {
      throw APIError(.invalidValue, "\(name) must not contain control characters", param: param ?? name)
    }
    return text
  }

  /// Texts: one, a list of some, or objects whose member `image_url` has one; nil when the field is absent or null.
  /// Their length is not limited here.
  public mutating func dataURLs(_ name: String, maxCount: Int) throws(APIError) -> [String]? {
    guard let value = value(name) else { return nil }
    let elements = if case .array(let elements) = value { elements } else { [value] }
    guard elements.count <= maxCount else {
      throw APIError(
        .invalidValue, "\(name) has \(elements.count) images, the limit is \(maxCount)", param: name)
    }
    return try elements.map { (element) throws(APIError) in
      if case .string(let text) = element { return text }
      if let text = element["image_url"]?.text ?? element["image_url"]?["url"]?.text { return text }
      throw APIError(.invalidType, "\(name) must be a data URL or a list of them, not \(element.kind)", param: name)
    }
  }

  /// Whether a field with a value is there, whether it was read or not.
  public func holds(_ name: String) -> Bool { members[name].map { $0 != .null } ?? false }

  /// One of `values`; those that the API knows but this server does not do are refused with `unsupported`'s words.
  public mutating func choice(_ name: String, _ values: [String], unsupported: [String: String] = [:]) throws(APIError)
    -> String?
  {
    guard let text = try nonEmptyString(name) else { return nil }
    if let reason = unsupported[text] {
      throw APIError(.unsupportedValue, "\(name) \"\(text)\": \(reason)", param: name)
    }
    guard values.contains(text) else {
      let list = values.map { "\"\($0)\"" }.joined(separator: ", ")
      throw APIError(.invalidValue, "\(name) is \"\(text.prefix(40))\", but must be one of \(list)", param: name)
    }
    return text
  }

  /// Refuses a field that the API knows but this server does not serve.
  public mutating func refuse(_ name: String, because reason: String) throws(APIError) {
    if has(name) { throw APIError(.unsupportedValue, "\(name): \(reason)", param: name) }
  }

  /// Call it last: a field that no other call has read is a mistake of the client's, likely a misspelt one.
  public func refuseOthers() throws(APIError) {
    for name in members.keys where !known.contains(name) {
      throw APIError(
        .unknownField, "unknown field \"\(name.prefix(80))\"; known fields: \(known.sorted().joined(separator: ", "))",
        param: String(name.prefix(80)))
    }
  }

  private func wrongType(_ name: String, _ expected: String, _ value: JSON) -> APIError {
    APIError(.invalidType, "\(name) must be \(expected), not \(value.kind)", param: name)
  }
}

/// What a field holds that takes names of settings and settings.
public enum NameOrMembers: Hashable, Sendable {
  /// A name.
  case name(String)
  /// The members of an object.
  case members(JSONObject)
}
