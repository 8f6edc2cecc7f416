import StrictJSON

/// A value of a template as it is written, in YAML or JSON.
package struct TemplateNode: Equatable, Sendable {
  package enum Value: Equatable, Sendable {
    /// Nothing, `~` or `null`.
    case null
    /// isPlain: written without quotes, so that it may be a number, `true` or `false`.
    case scalar(String, isPlain: Bool)
    case sequence([TemplateNode])
    case mapping([Member])
  }

  package struct Member: Equatable, Sendable {
    package let key: String
    /// Where the key is.
    package let line: Int?
    package let value: TemplateNode
  }

  package let value: Value
  /// From 1; nil: JSON.
  package let line: Int?

  /// For messages.
  var kind: String {
    switch value {
    case .null: "nothing"
    case .scalar(_, isPlain: true): "a plain value"
    case .scalar(_, isPlain: false): "a text"
    case .sequence: "a list"
    case .mapping: "a mapping"
    }
  }

  init(_ value: Value, line: Int?) {
    self.value = value
    self.line = line
  }

  /// A document of JSON, whose size and depth the caller has bounded.
  init(_ json: JSON) {
    line = nil
    switch json {
    case .null: value = .null
    case .bool(let flag): value = .scalar(flag ? "true" : "false", isPlain: true)
    case .number(let number): value = .scalar(number.text, isPlain: true)
    case .string(let text): value = .scalar(text, isPlain: false)
    case .array(let elements): value = .sequence(elements.map { TemplateNode($0) })
    case .object(let members):
      value = .mapping(members.map { Member(key: $0.key, line: nil, value: TemplateNode($0.value)) })
    }
  }
}
