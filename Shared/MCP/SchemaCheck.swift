import StrictJSON

/// Compares arguments with the part of JSON Schema that this server's tools use: `type`, `enum`, limits of numbers, of
/// the lengths of strings and of lists, `items`, `properties`, `required` and `additionalProperties: false`.
public enum SchemaCheck {
  /// What is wrong with `value`, for the model that sent it; nil: nothing.
  ///
  /// - Parameter path: how it is called; empty: it is the arguments themselves.
  public static func problem(of value: JSON, _ schema: JSON, path: String = "") -> String? {
    let name = path.isEmpty ? "the arguments" : path
    if let type = schema["type"]?.text, !isOfType(value, type) {
      return "\(name) must be \(named(type)), not \(value.kind)"
    }
    if let choices = schema["enum"]?.elements, !choices.contains(value) {
      let list = choices.map { $0.text.map { "\"\($0)\"" } ?? String(decoding: $0.bytes, as: UTF8.self) }
      return "\(name) must be one of \(list.joined(separator: ", "))"
    }
    switch value {
    case .number: return numberProblem(value, schema, name)
    case .string(let text): return lengthProblem(text.unicodeScalars.count, schema, "Length", "characters", name)
    case .array(let elements):
      if let problem = lengthProblem(elements.count, schema, "Items", "elements", name) { return problem }
      guard let items = schema["items"] else { return nil }
      return elements.enumerated().lazy.compactMap { problem(of: $1, items, path: "\(name)[\($0)]") }.first
    case .object(let members): return memberProblem(members, schema, path, name)
    case .bool, .null: return nil
    }
  }

  private static func isOfType(_ value: JSON, _ type: String) -> Bool {
    switch (type, value) {
    case ("object", .object), ("array", .array), ("string", .string), ("boolean", .bool), ("number", .number): true
    case ("integer", .number(let number)): number.integer != nil || number.double.flatMap { Int(exactly: $0) } != nil
    default: false
    }
  }

  private static func named(_ type: String) -> String {
    switch type {
    case "object": "an object"
    case "array": "a list"
    case "integer": "a whole number"
    case "boolean": "true or false"
    default: "a \(type)"
    }
  }

  private static func numberProblem(_ value: JSON, _ schema: JSON, _ name: String) -> String? {
    guard let number = value.double else { return "\(name) is too large" }
    let (least, most) = (schema["minimum"]?.double, schema["maximum"]?.double)
    guard number < least ?? -.infinity || number > most ?? .infinity else { return nil }
    func text(_ bound: String) -> String? { schema[bound].map { String(decoding: $0.bytes, as: UTF8.self) } }
    let range = [text("minimum").map { "at least \($0)" }, text("maximum").map { "at most \($0)" }].compactMap { $0 }
    return "\(name) is \(String(decoding: value.bytes, as: UTF8.self)), but must be \(range.joined(separator: " and "))"
  }

  private static func lengthProblem(
    _ count: Int, _ schema: JSON, _ keyword: String, _ unit: String, _ name: String
  ) -> String? {
    if let least = schema["min\(keyword)"]?.integer, count < least {
      return "\(name) has \(count) \(unit), but must have at least \(least)"
    }
    if let most = schema["max\(keyword)"]?.integer, count > most {
      return "\(name) has \(count) \(unit), the limit is \(most)"
    }
    return nil
  }

  private static func memberProblem(_ members: JSONObject, _ schema: JSON, _ path: String, _ name: String) -> String? {
    guard case .object(let properties)? = schema["properties"] else { return nil }
    func inner(_ member: String) -> String { path.isEmpty ? member : "\(path).\(member)" }
    for required in schema["required"]?.elements?.compactMap(\.text) ?? [] where members[required] == nil {
      return "\(inner(required)) is missing"
    }
    for (member, value) in members {
      guard let property = properties[member] else {
        guard schema["additionalProperties"] == false else { continue }
        let known = properties.keys.joined(separator: ", ")
        return "\(inner(String(member.prefix(80)))) is not known; \(name) may have \(known)"
      }
      if let problem = problem(of: value, property, path: inner(member)) { return problem }
    }
    return nil
  }
}
