/// Reads the part of YAML 1.2 that templates are written in, and refuses the rest by name and line.
///
/// Read: block mappings and sequences, flow collections also over several lines, plain scalars on one line, quoted
/// scalars on one line, literal and folded blocks, comments, one document. Refused: anchors, aliases, tags, complex
/// keys, directives, several documents, scalars that continue on the next line without a sign of it, tabs as
/// indentation, keys that come twice. What is read means what it means in YAML; nothing is guessed.
///
/// A reader of all of YAML keeps neither the lines of keys nor a bound on aliases, which as keys take time exponential
/// in the size of a document.
package struct YAMLReader {
  /// The document without line ends.
  var lines: [[Unicode.Scalar]]
  /// The line that is read next.
  var row = 0
  private var valueCount = 0

  /// Reads a document.
  ///
  /// - Throws: ``TemplateError`` with the line.
  package static func document(_ text: String) throws(TemplateError) -> TemplateNode {
    guard text.utf8.count <= TemplateLimits.templateBytes else {
      throw TemplateError(
        line: nil, "the template has \(text.utf8.count) bytes, the limit is \(TemplateLimits.templateBytes)")
    }
    var reader = YAMLReader(text)
    try reader.skipDocumentStart()
    guard try reader.findContent() else { throw TemplateError(line: 1, "the template is empty") }
    let node = try reader.block(depth: 1)
    guard try !reader.findContent() else { throw reader.failure("this line is indented less than the first one") }
    return node
  }

  private init(_ text: String) {
    var scalars = Substring(text).unicodeScalars
    if scalars.first == "\u{feff}" { scalars.removeFirst() }
    lines = scalars.split(separator: "\n", omittingEmptySubsequences: false).map { line in
      line.last == "\r" ? Array(line.dropLast()) : Array(line)
    }
  }

  func failure(_ reason: String) -> TemplateError {
    TemplateError(line: min(row, max(lines.count - 1, 0)) + 1, reason)
  }

  /// Counts one more value.
  mutating func count(depth: Int) throws(TemplateError) {
    valueCount += 1
    guard valueCount <= TemplateLimits.values else {
      throw failure("there are more than \(TemplateLimits.values) values")
    }
    guard depth <= TemplateLimits.depth else {
      throw failure("nested deeper than \(TemplateLimits.depth) levels")
    }
  }

  // MARK: - Lines

  private mutating func skipDocumentStart() throws(TemplateError) {
    guard try findContent() else { return }
    if lines[row].first == "%" { throw failure("directives are not read") }
    if Self.isMarker(lines[row], "-") {
      guard lines[row].dropFirst(3).allSatisfy({ $0 == " " }) else { throw failure("nothing may follow ---") }
      row += 1
    }
  }

  private static func isMarker(_ line: [Unicode.Scalar], _ mark: Unicode.Scalar) -> Bool {
    line.count >= 3 && line[..<3].allSatisfy { $0 == mark } && (line.count == 3 || line[3] == " ")
  }

  /// Columns of spaces before the text of the current line.
  var indentation: Int { lines[row].firstIndex { $0 != " " } ?? lines[row].count }

  /// Goes to the next line that has more than a comment; false: there is none.
  mutating func findContent() throws(TemplateError) -> Bool {
    while row < lines.count {
      let line = lines[row], start = indentation
      if start < line.count, line[start] != "#" {
        if line[start] == "\t" {
          guard line[start...].allSatisfy({ $0 == "\t" || $0 == " " }) else {
            throw failure("a tab indents the line: use spaces")
          }
        } else {
          if Self.isMarker(line, ".") || row > 0 && Self.isMarker(line, "-") && hasStarted {
            throw failure("a template is one document, without ... and without a second ---")
          }
          return true
        }
      }
      row += 1
    }
    return false
  }

  /// Whether a value was read: `---` may stand before the first one only.
  private var hasStarted: Bool { valueCount > 0 }

  /// Whether a dash at `column` begins an element of a sequence.
  func isDash(_ column: Int) -> Bool {
    let line = lines[row]
    return column < line.count && line[column] == "-" && (column + 1 == line.count || line[column + 1] == " ")
  }

  /// Requires that nothing but a comment follows on the line, and goes to the next one.
  mutating func endLine(_ column: Int) throws(TemplateError) {
    let line = lines[row]
    let rest = line[min(column, line.count)...].drop { $0 == " " }
    guard rest.isEmpty || rest.first == "#" && (rest.startIndex > column || column == 0) else {
      throw failure("\"\(Self.text(rest.prefix(20)))\" follows a complete value")
    }
    row += 1
  }

  package static func text(_ scalars: some Sequence<Unicode.Scalar>) -> String {
    var view = String.UnicodeScalarView()
    view.append(contentsOf: scalars)
    return String(view)
  }

  // MARK: - Blocks

  /// Reads the value that begins with the current line, which has content.
  mutating func block(depth: Int) throws(TemplateError) -> TemplateNode {
    let indent = indentation
    if isDash(indent) { return try sequence(indent, depth) }
    if try keyEnd(indent) != nil { return try mapping(indent, depth) }
    return try value(indent, parent: indent - 1, isMember: false, depth)
  }

  private mutating func sequence(_ indent: Int, _ depth: Int) throws(TemplateError) -> TemplateNode {
    try count(depth: depth)
    let line = row + 1
    var elements: [TemplateNode] = []
    while try findContent(), indentation == indent, isDash(indent) {
      // What stands behind the dash is indented as far as it stands.
      lines[row][indent] = " "
      let inner = indentation
      if inner < lines[row].count, lines[row][inner] != "#" {
        let key = try keyEnd(inner)
        if isDash(inner) || key != nil {
          elements.append(try block(depth: depth + 1))
        } else {
          elements.append(try value(inner, parent: indent, isMember: false, depth + 1))
        }
      } else {
        elements.append(try value(lines[row].count, parent: indent, isMember: false, depth + 1))
      }
    }
    try checkIndentation(atMost: indent)
    return TemplateNode(.sequence(elements), line: line)
  }

  private mutating func mapping(_ indent: Int, _ depth: Int) throws(TemplateError) -> TemplateNode {
    try count(depth: depth)
    let line = row + 1
    var members: [TemplateNode.Member] = [], keys: Set<String> = []
    while try findContent(), indentation == indent {
      guard !isDash(indent), let (key, end) = try keyEnd(indent) else {
        throw failure("the line has no key: a key, a colon and a space are expected")
      }
      guard keys.insert(key).inserted else { throw failure("the key \(key.prefix(40)) comes twice") }
      let keyLine = row + 1
      members.append(
        TemplateNode.Member(
          key: key, line: keyLine, value: try value(end, parent: indent, isMember: true, depth + 1)))
    }
    try checkIndentation(atMost: indent)
    return TemplateNode(.mapping(members), line: line)
  }

  /// After a value the next line belongs to it no more.
  private mutating func checkIndentation(atMost indent: Int) throws(TemplateError) {
    guard try findContent(), indentation > indent else { return }
    throw failure(
      "the line is indented further than what it could belong to; a text of several lines begins with | or >")
  }

  /// The key at `column` and the column behind its colon; nil: there is no key.
  private func keyEnd(_ column: Int) throws(TemplateError) -> (key: String, end: Int)? {
    let line = lines[row]
    guard column < line.count else { return nil }
    func isColon(_ place: Int) -> Bool {
      place < line.count && line[place] == ":" && (place + 1 == line.count || line[place + 1] == " ")
    }
    switch line[column] {
    case "\"", "'":
      guard let (text, end) = try? quoted(column) else { return nil }
      let place = line[end...].firstIndex { $0 != " " } ?? line.count
      return isColon(place) ? (text, place + 1) : nil
    case "[", "{", "|", ">", "#": return nil
    case "?" where column + 1 == line.count || line[column + 1] == " ":
      throw failure("complex keys (?) are not read")
    case "&", "*", "!", "@", "`", "%": return nil
    default: break
    }
    var place = column
    while place < line.count {
      if isColon(place) {
        let key = Self.text(line[column..<place])
        guard let last = key.unicodeScalars.last, last != " " else { throw failure("a key ends with a space") }
        return (key, place + 1)
      }
      if line[place] == "#", place > column, line[place - 1] == " " { return nil }
      place += 1
    }
    return nil
  }

  /// Reads a value that begins at `column`, or below.
  ///
  /// - Parameters:
  ///   - parent: the indentation of what it belongs to.
  ///   - isMember: whether that is a mapping, below which a sequence may be indented as far as the key.
  private mutating func value(
    _ column: Int, parent: Int, isMember: Bool, _ depth: Int
  ) throws(TemplateError) -> TemplateNode {
    let line = lines[row]
    let start = line[column...].firstIndex { $0 != " " } ?? line.count
    guard start < line.count, line[start] != "#" else {
      let own = row
      row += 1
      if try findContent(), indentation > parent || isMember && indentation == parent && isDash(parent) {
        return try block(depth: depth)
      }
      try count(depth: depth)
      return TemplateNode(.null, line: own + 1)
    }
    if line[start] == "[" || line[start] == "{" {
      let (node, end) = try flow(start, depth)
      try endLine(end)
      try checkIndentation(atMost: parent)
      return node
    }
    try count(depth: depth)
    let number = row + 1, node: TemplateNode.Value
    switch line[start] {
    case "|", ">":
      return TemplateNode(.scalar(try blockScalar(start, parent: parent), isPlain: false), line: number)
    case "\"", "'":
      let (text, end) = try quoted(start)
      node = .scalar(text, isPlain: false)
      try endLine(end)
    default:
      node = Self.plain(try plainText(start))
      row += 1
    }
    try checkIndentation(atMost: parent)
    return TemplateNode(node, line: number)
  }

  /// A plain scalar to the end of the line, or to a comment.
  private func plainText(_ start: Int) throws(TemplateError) -> String {
    let line = lines[row]
    try checkPlainStart(start)
    var end = start
    while end < line.count {
      if line[end] == "#", line[end - 1] == " " || line[end - 1] == "\t" { break }
      if line[end] == ":", end + 1 == line.count || line[end + 1] == " " {
        throw failure("a text with a colon and a space must be in quotes")
      }
      end += 1
    }
    while line[end - 1] == " " || line[end - 1] == "\t" { end -= 1 }
    return Self.text(line[start..<end])
  }

  /// Refuses what would mean something else.
  func checkPlainStart(_ start: Int) throws(TemplateError) {
    let line = lines[row], next = start + 1 < line.count ? line[start + 1] : " "
    switch line[start] {
    case "&": throw failure("anchors (&) are not read; put a text that begins with & in quotes")
    case "*": throw failure("aliases (*) are not read; put a text that begins with * in quotes")
    case "!": throw failure("tags (!) are not read; put a text that begins with ! in quotes")
    case "@", "`", "%", ",", "]", "}", "\t":
      throw failure("a text that begins with \(Self.text([line[start]]).quoted) must be in quotes")
    case "-" where next == " ", "?" where next == " ", ":" where next == " ":
      throw failure("a text that begins with \(Self.text([line[start]])) and a space must be in quotes")
    default: return
    }
  }

  /// What a plain scalar says.
  static func plain(_ text: String) -> TemplateNode.Value {
    ["~", "null", "Null", "NULL"].contains(text) ? .null : .scalar(text, isPlain: true)
  }
}
