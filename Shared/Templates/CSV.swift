/// A table of comma-separated values with a header (RFC 4180): fields in quotes may hold commas, line breaks, and
/// quotes written twice. A byte-order mark is skipped, and lines may end with LF alone.
public struct CSV: Equatable {
  /// Why a text is none.
  public struct Failure: Error, Equatable, CustomStringConvertible {
    /// From 1.
    public let line: Int
    /// For people.
    public let reason: String

    /// `reason` in a line.
    public init(line: Int, reason: String) {
      self.line = line
      self.reason = reason
    }

    /// For people.
    public var description: String { "line \(line): \(reason)" }
  }

  /// Names of the columns.
  public private(set) var header: [String] = []
  /// The rows below, each with as many fields, and the line where it begins.
  public private(set) var rows: [(line: Int, fields: [String])] = []

  /// Whether headers, rows and their lines are the same.
  public static func == (one: CSV, other: CSV) -> Bool {
    one.header == other.header && one.rows.elementsEqual(other.rows) { $0.line == $1.line && $0.fields == $1.fields }
  }

  /// Reads a table.
  ///
  /// - Throws: ``Failure`` naming the line.
  public init(_ text: String) throws(Failure) {
    var reader = Reader(text)
    while let (line, fields) = try reader.row() {
      // Empty lines, such as the last one, are no rows.
      if fields == [""] { continue }
      guard !header.isEmpty else {
        header = fields
        for name in fields where name.isEmpty || fields.count(where: { $0 == name }) > 1 {
          throw Failure(line: line, reason: name.isEmpty ? "a column has no name" : "two columns are named \(name)")
        }
        continue
      }
      guard fields.count == header.count else {
        throw Failure(line: line, reason: "it has \(fields.count) fields, the header \(header.count)")
      }
      rows.append((line, fields))
    }
    guard !header.isEmpty else { throw Failure(line: 1, reason: "there is no header") }
  }

  private struct Reader {
    private var rest: Substring.UnicodeScalarView
    private var line = 1

    init(_ text: String) {
      rest = Substring(text).unicodeScalars
      if rest.first == "\u{feff}" { rest.removeFirst() }
    }

    mutating func row() throws(Failure) -> (line: Int, fields: [String])? {
      guard !rest.isEmpty else { return nil }
      let start = line
      var fields: [String] = []
      while true {
        fields.append(rest.first == "\"" ? try quoted() : plain())
        switch rest.popFirst() {
        case ",": continue
        case "\r" where rest.first == "\n":
          rest.removeFirst()
          fallthrough
        case "\n": line += 1
        case nil: break
        default: throw Failure(line: line, reason: "a quoted field continues after its end")
        }
        return (start, fields)
      }
    }

    private mutating func plain() -> String {
      var end = rest.startIndex
      while end < rest.endIndex, ![",", "\n"].contains(rest[end]) { end = rest.index(after: end) }
      var field = rest[..<end]
      rest = rest[end...]
      if field.last == "\r", rest.first == "\n" { field.removeLast() }
      return String(field)
    }

    private mutating func quoted() throws(Failure) -> String {
      let start = line
      var field = String.UnicodeScalarView()
      rest.removeFirst()
      while let scalar = rest.popFirst() {
        if scalar == "\"" {
          guard rest.first == "\"" else { return String(field) }
          rest.removeFirst()
        }
        if scalar == "\n" { line += 1 }
        field.append(scalar)
      }
      throw Failure(line: start, reason: "a quoted field has no end")
    }
  }
}
