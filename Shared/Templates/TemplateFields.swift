import StrictJSON

/// Reads the members of a mapping one by one, and refuses what was not asked for, with its line.
struct TemplateFields {
  private let members: [TemplateNode.Member]
  private let line: Int?
  /// Of the mapping in the template, such as `slots.word`.
  private let path: String
  private var known: [String] = []

  /// Reads `node`, which must be a mapping.
  init(_ node: TemplateNode, _ path: String = "") throws(TemplateError) {
    guard case .mapping(let members) = node.value else {
      throw TemplateError(line: node.line, path: path, "it must be a mapping, not \(node.kind)")
    }
    self.members = members
    self.line = node.line
    self.path = path
  }

  func path(_ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

  /// A problem of the member `key`.
  func failure(_ key: String, _ reason: String) -> TemplateError {
    TemplateError(line: members.first { $0.key == key }?.line ?? line, path: path(key), reason)
  }

  /// The member's value; nil when it is absent or null.
  mutating func node(_ key: String) -> TemplateNode? {
    known.append(key)
    guard let member = members.first(where: { $0.key == key }), member.value.value != .null else { return nil }
    return member.value
  }

  /// All members, whose keys are names.
  func named(maxCount: Int) throws(TemplateError) -> [TemplateNode.Member] {
    guard (1...maxCount).contains(members.count) else {
      throw TemplateError(line: line, path: path, "it has \(members.count) members, but must have 1 to \(maxCount)")
    }
    for member in members where !TemplateName.isValid(member.key) {
      throw TemplateError(
        line: member.line, path: path, "\(member.key.prefix(60).quoted) is no name: \(TemplateName.rule)")
    }
    return members
  }

  /// A text; nil when it is absent. Numbers and booleans are texts where texts are asked for.
  mutating func text(_ key: String, length: ClosedRange<Int>, isLine: Bool = true) throws(TemplateError) -> String? {
    try node(key).map { (node) throws(TemplateError) in try text(node, key, length, isLine: isLine) }
  }

  private func text(
    _ node: TemplateNode, _ key: String, _ length: ClosedRange<Int>, isLine: Bool = true
  ) throws(TemplateError) -> String {
    guard case .scalar(let text, _) = node.value else { throw failure(key, "it must be a text, not \(node.kind)") }
    let count = text.unicodeScalars.count
    guard length.contains(count) else {
      throw failure(key, "it has \(count) characters, but must have \(length.lowerBound) to \(length.upperBound)")
    }
    let isSound = text.unicodeScalars.allSatisfy {
      $0.properties.generalCategory != .control || !isLine && ["\n", "\t"].contains($0)
    }
    guard isSound else { throw failure(key, "it has control characters") }
    return text
  }

  /// A text with slots.
  mutating func pattern(_ key: String, maxBytes: Int = TemplateLimits.promptBytes) throws(TemplateError)
    -> TemplateText?
  {
    guard let text = try text(key, length: 0...maxBytes, isLine: false) else { return nil }
    guard text.utf8.count <= maxBytes else {
      throw failure(key, "it has \(text.utf8.count) bytes, the limit is \(maxBytes)")
    }
    do { return try TemplateText(text) } catch { throw failure(key, error.reason) }
  }

  /// An integer; nil when it is absent.
  mutating func integer(_ key: String, in range: ClosedRange<Int>) throws(TemplateError) -> Int? {
    guard let node = node(key) else { return nil }
    guard case .scalar(let text, isPlain: true) = node.value, let value = Int(text) else {
      throw failure(key, "it must be an integer, not \(node.kind)")
    }
    guard range.contains(value) else {
      throw failure(key, "it is \(value), but must be from \(range.lowerBound) to \(range.upperBound)")
    }
    return value
  }

  /// `true` or `false`; nil when it is absent.
  mutating func bool(_ key: String) throws(TemplateError) -> Bool? {
    guard let node = node(key) else { return nil }
    switch node.value {
    case .scalar("true", isPlain: true): return true
    case .scalar("false", isPlain: true): return false
    default: throw failure(key, "it must be true or false")
    }
  }

  /// A list of texts of one line, none twice; a single text is a list of one. Empty when it is absent.
  mutating func texts(_ key: String, maxCount: Int, length: ClosedRange<Int>) throws(TemplateError) -> [String] {
    guard let node = node(key) else { return [] }
    let elements = if case .sequence(let elements) = node.value { elements } else { [node] }
    guard (1...maxCount).contains(elements.count) else {
      throw failure(key, "it has \(elements.count) elements, but must have 1 to \(maxCount)")
    }
    var texts: [String] = []
    for element in elements {
      let text = try text(element, key, length)
      guard !texts.contains(text) else { throw failure(key, "\(text.prefix(40).quoted) comes twice") }
      texts.append(text)
    }
    return texts
  }

  /// All members, whatever their keys, as texts of one line.
  mutating func allTexts(maxCount: Int, length: ClosedRange<Int>) throws(TemplateError) -> [String: String] {
    guard members.count <= maxCount else {
      throw TemplateError(line: line, path: path, "it has \(members.count) members, the limit is \(maxCount)")
    }
    var texts: [String: String] = [:]
    for member in members { texts[member.key] = try text(member.key, length: length) }
    return texts
  }

  /// The members of a mapping; nil when it is absent.
  mutating func fields(_ key: String) throws(TemplateError) -> TemplateFields? {
    try node(key).map { (node) throws(TemplateError) in try TemplateFields(node, path(key)) }
  }

  /// Call it last: a key that no other call has read is a mistake, likely a misspelt one.
  func refuseOthers() throws(TemplateError) {
    for member in members where !known.contains(member.key) {
      let key = String(member.key.prefix(60))
      throw TemplateError(
        line: member.line, path: path(key), "there is no such key; known keys: \(known.joined(separator: ", "))")
    }
  }
}
