import StrictJSON

/// A row of a table: values for the slots of a template.
public struct TemplateRow: Hashable, Sendable {
  /// From 1, in the order of the table.
  public var number: Int
  /// Of the table, from 1; nil: rows came as JSON.
  public var line: Int?
  /// By the name of a slot, or of a slot and a language: `word.zh`. Values that are left empty are not there.
  public var values: [String: String]

  /// A row.
  public init(number: Int, line: Int? = nil, values: [String: String]) {
    self.number = number
    self.line = line
    self.values = values
  }

  /// The rows of a table in CSV.
  ///
  /// - Throws: ``RowProblems``: the text is no table, it is too large, or a column is for no slot.
  public static func rows(csv text: String, for template: Template) throws(RowProblems) -> [TemplateRow] {
    guard text.utf8.count <= TemplateLimits.tableBytes else {
      throw .one("table", "the table has \(text.utf8.count) bytes, the limit is \(TemplateLimits.tableBytes)")
    }
    let table: CSV
    do { table = try CSV(text) } catch { throw .one("table", "\(error)") }
    try check(columns: table.header, of: template)
    try check(count: table.rows.count)
    return table.rows.enumerated().map { index, row in
      let values = zip(table.header, row.fields).filter { !$0.1.isEmpty }
      return TemplateRow(number: index + 1, line: row.line, values: Dictionary(uniqueKeysWithValues: values.map { $0 }))
    }
  }

  /// The rows of an array of objects; numbers and booleans are texts.
  ///
  /// - Throws: ``RowProblems``: an element is no object, a member is for no slot, or its value is no text.
  public static func rows(json elements: [JSON], for template: Template) throws(RowProblems) -> [TemplateRow] {
    try check(count: elements.count)
    var rows: [TemplateRow] = []
    for (index, element) in elements.enumerated() {
      guard case .object(let members) = element else {
        throw .one("rows", "it must be an object, not \(element.kind)", row: index + 1)
      }
      try check(columns: Array(members.keys), of: template, row: index + 1)
      var row = TemplateRow(number: index + 1, values: [:])
      for (name, value) in members {
        switch value {
        case .null, .string(""): continue
        case .string(let text): row.values[name] = text
        case .number(let number): row.values[name] = number.text
        case .bool(let flag): row.values[name] = flag ? "true" : "false"
        case .array, .object:
          throw .one("rows", "it must be a text, not \(value.kind)", row: index + 1, column: name)
        }
      }
      rows.append(row)
    }
    return rows
  }

  private static func check(count: Int) throws(RowProblems) {
    guard (1...TemplateLimits.rows).contains(count) else {
      throw .one(
        "rows", count == 0 ? "there are no rows" : "there are \(count) rows, the limit is \(TemplateLimits.rows)")
    }
  }

  private static func check(columns: [String], of template: Template, row: Int = 0) throws(RowProblems) {
    var known: Set<String> = []
    for slot in template.slots {
      known.insert(slot.name)
      if slot.kind == .text { known.formUnion(template.languages.map { "\(slot.name).\($0.name)" }) }
    }
    for column in columns where !known.contains(column) {
      let names = template.slots.map(\.name).joined(separator: ", ")
      let languages = template.languages.isEmpty ? "" : ", each also with .LANGUAGE behind it"
      throw .one(
        "slots", "there is no such slot; slots are \(names.isEmpty ? "not in this template" : names)\(languages)",
        row: row, column: String(column.prefix(80)))
    }
  }
}

extension RowProblems {
  static func one(_ rule: String, _ reason: String, row: Int = 0, column: String? = nil) -> RowProblems {
    RowProblems(
      problems: [RowProblem(row: row, line: nil, column: column, rule: rule, reason: reason)], hasMore: false)
  }
}
