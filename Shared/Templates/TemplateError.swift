/// What is wrong with a template.
public struct TemplateError: Error, Hashable, Sendable, CustomStringConvertible {
  /// Of the template, from 1; nil: it came as JSON.
  public let line: Int?
  /// The member at fault, such as `slots.word.max_length`; empty: the template as a whole.
  public let path: String
  /// What is wrong with it, with the value and the limit.
  public let reason: String

  /// The problem `reason` of the member `path` in a line.
  public init(line: Int?, path: String = "", _ reason: String) {
    self.line = line
    self.path = path
    self.reason = reason
  }

  /// For people.
  public var description: String {
    let place = line.map { "line \($0): " } ?? ""
    return place + (path.isEmpty ? reason : "\(path): \(reason)")
  }
}

/// What is wrong with a row, by the template's slots or by its brand rules.
public struct RowProblem: Hashable, Sendable, CustomStringConvertible {
  /// From 1; 0: all rows.
  public let row: Int
  /// Of the table, from 1; nil: rows came as JSON.
  public let line: Int?
  /// The column at fault; nil: the row as a whole.
  public let column: String?
  /// The rule that is broken, such as `slots.word.max_length` or `brand.forbidden_words`.
  public let rule: String
  /// What is wrong, with the value and the limit.
  public let reason: String

  /// For people.
  public var description: String {
    let place = row > 0 ? "row \(row)" + (line.map { " (line \($0))" } ?? "") : "rows"
    return "\(place)\(column.map { ", column \($0)" } ?? ""): \(reason) (\(rule))"
  }
}

/// All that is wrong with the rows, in their order; ``TemplateLimits/problems`` at most.
public struct RowProblems: Error, Hashable, Sendable, CustomStringConvertible {
  /// At least one.
  public let problems: [RowProblem]
  /// Whether there are more.
  public let hasMore: Bool

  /// One problem of all rows together.
  public init(_ reason: String) { self = .one("rows", reason) }

  init(problems: [RowProblem], hasMore: Bool) {
    self.problems = problems
    self.hasMore = hasMore
  }

  /// For people: a line for each.
  public var description: String {
    (problems.map(\.description) + (hasMore ? ["and more"] : [])).joined(separator: "\n")
  }
}
