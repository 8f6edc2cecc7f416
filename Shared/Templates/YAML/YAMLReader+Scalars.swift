extension YAMLReader {
  // MARK: - In quotes

  /// The text in quotes at `start` of the current line, and the column behind it.
  func quoted(_ start: Int) throws(TemplateError) -> (text: String, end: Int) {
    let line = lines[row], quote = line[start]
    var text = String.UnicodeScalarView(), place = start + 1
    while place < line.count {
      let scalar = line[place]
      place += 1
      if scalar == quote {
        guard quote == "'", place < line.count, line[place] == "'" else { return (String(text), place) }
        place += 1
        text.append("'")
      } else if scalar == "\\", quote == "\"" {
        text.append(try escape(&place))
      } else {
        text.append(scalar)
      }
    }
    throw failure("a text in quotes does not end on its line; a text of several lines begins with | or >")
  }

  /// The character that the escape at `place` means, which lies behind the backslash.
  private func escape(_ place: inout Int) throws(TemplateError) -> Unicode.Scalar {
    let line = lines[row]
    guard place < line.count else { throw failure("a text in quotes ends with a backslash") }
    let code = line[place]
    place += 1
    switch code {
    case "\"", "\\", "/", " ": return code
    case "n": return "\n"
    case "t": return "\t"
    case "r": return "\r"
    case "e": return "\u{1b}"
    case "x", "u", "U":
      let count = code == "x" ? 2 : code == "u" ? 4 : 8
      let digits = line[place...].prefix(count)
      guard digits.count == count, digits.allSatisfy(\.properties.isASCIIHexDigit),
        let value = UInt32(Self.text(digits), radix: 16), value != 0, let scalar = Unicode.Scalar(value)
      else { throw failure("\\\(Self.text([code]))\(Self.text(digits)) is no character") }
      place += count
      return scalar
    default: throw failure("the escape \\\(Self.text([code])) is not read")
    }
  }

  // MARK: - Blocks

  private enum Chomping { case strip, clip, keep }

  /// A literal (`|`) or folded (`>`) block whose head is at `start`; goes to the line behind it.
  mutating func blockScalar(_ start: Int, parent: Int) throws(TemplateError) -> String {
    let head = lines[row], isFolded = head[start] == ">"
    var place = start + 1, chomping = Chomping.clip, indent: Int?
    while place < head.count, head[place] != " " {
      switch head[place] {
      case "-" where chomping == .clip: chomping = .strip
      case "+" where chomping == .clip: chomping = .keep
      case "1"..."9" where indent == nil: indent = max(parent, 0) + Int(head[place].value) - 0x30
      default: throw failure("\(Self.text(head[start...place])) begins no block of text")
      }
      place += 1
    }
    try endLine(place)
    let contents = blockLines(indent, parent: parent)
    let last = contents.lastIndex { !$0.isEmpty }.map { $0 + 1 } ?? 0
    let trailing = contents.count - last
    var text =
      isFolded ? Self.folded(contents[..<last]) : contents[..<last].map { Self.text($0) }.joined(separator: "\n")
    switch chomping {
    case .strip: break
    case .clip: if last > 0 { text += "\n" }
    case .keep: text += String(repeating: "\n", count: trailing + (last > 0 ? 1 : 0))
    }
    return text
  }

  /// The lines of a block without their indentation.
  private mutating func blockLines(_ given: Int?, parent: Int) -> [[Unicode.Scalar]] {
    var indent = given, contents: [[Unicode.Scalar]] = []
    while row < lines.count {
      let line = lines[row], own = indentation
      if own == line.count, own <= indent ?? own {
        contents.append([])
      } else {
        if indent == nil, own > parent { indent = own }
        guard let indent, own >= indent else { break }
        contents.append(Array(line[indent...]))
      }
      row += 1
    }
    // An empty line at the end of the document is its last line end.
    if row == lines.count, contents.last?.isEmpty == true { contents.removeLast() }
    return contents
  }

  /// Lines joined by spaces; empty lines and lines that are indented further keep their line ends.
  private static func folded(_ contents: ArraySlice<[Unicode.Scalar]>) -> String {
    func isIndented(_ line: [Unicode.Scalar]) -> Bool { line.first == " " || line.first == "\t" }
    var text = "", previous: [Unicode.Scalar]?, breaks = 0
    for line in contents {
      if line.isEmpty {
        breaks += 1
        continue
      }
      if let previous {
        if isIndented(previous) || isIndented(line) {
          text += String(repeating: "\n", count: breaks + 1)
        } else {
          text += breaks == 0 ? " " : String(repeating: "\n", count: breaks)
        }
      } else {
        text += String(repeating: "\n", count: breaks)
      }
      text += Self.text(line)
      previous = line
      breaks = 0
    }
    return text
  }

  // MARK: - Flow collections

  /// Reads the list or mapping in brackets at `start` of the current line; returns the column behind it, of the line
  /// where it ends.
  mutating func flow(_ start: Int, _ depth: Int) throws(TemplateError) -> (node: TemplateNode, end: Int) {
    try count(depth: depth)
    let number = row + 1, isList = lines[row][start] == "[", close: Unicode.Scalar = isList ? "]" : "}"
    var elements: [TemplateNode] = [], members: [TemplateNode.Member] = [], keys: Set<String> = []
    var column = start + 1
    while true {
      try skipToFlowContent(&column, begin: number)
      if lines[row][column] == close { break }
      if isList {
        elements.append(try flowValue(&column, depth + 1))
      } else {
        let member = try flowMember(&column, depth + 1, begin: number)
        guard keys.insert(member.key).inserted else { throw failure("the key \(member.key.prefix(40)) comes twice") }
        members.append(member)
      }
      try skipToFlowContent(&column, begin: number)
      switch lines[row][column] {
      case ",": column += 1
      case close: continue
      default:
        throw failure(
          "a comma or \(Self.text([close])) is missing; a text that begins with \(isList ? "[" : "{") must be in quotes"
        )
      }
    }
    return (TemplateNode(isList ? .sequence(elements) : .mapping(members), line: number), column + 1)
  }

  private mutating func skipToFlowContent(_ column: inout Int, begin: Int) throws(TemplateError) {
    while true {
      let line = lines[row]
      while column < line.count, line[column] == " " { column += 1 }
      if column < line.count, line[column] != "#" || column > 0 && line[column - 1] != " " { return }
      row += 1
      column = 0
      guard row < lines.count else { throw failure("the bracket of line \(begin) is not closed") }
    }
  }

  private mutating func flowMember(
    _ column: inout Int, _ depth: Int, begin: Int
  ) throws(TemplateError) -> TemplateNode.Member {
    let keyLine = row + 1, key: String
    if lines[row][column] == "\"" || lines[row][column] == "'" {
      (key, column) = try quoted(column)
    } else {
      key = try flowPlain(&column)
    }
    try skipToFlowContent(&column, begin: begin)
    guard lines[row][column] == ":" else {
      throw failure("\(key.prefix(40)) has no value; a text that begins with { must be in quotes")
    }
    column += 1
    try skipToFlowContent(&column, begin: begin)
    if lines[row][column] == "," || lines[row][column] == "}" {
      try count(depth: depth)
      return TemplateNode.Member(key: key, line: keyLine, value: TemplateNode(.null, line: keyLine))
    }
    return TemplateNode.Member(key: key, line: keyLine, value: try flowValue(&column, depth))
  }

  private mutating func flowValue(_ column: inout Int, _ depth: Int) throws(TemplateError) -> TemplateNode {
    let number = row + 1
    switch lines[row][column] {
    case "[", "{":
      let node: TemplateNode
      (node, column) = try flow(column, depth)
      return node
    case "\"", "'":
      try count(depth: depth)
      let text: String
      (text, column) = try quoted(column)
      return TemplateNode(.scalar(text, isPlain: false), line: number)
    default:
      try count(depth: depth)
      return TemplateNode(Self.plain(try flowPlain(&column)), line: number)
    }
  }

  /// A plain scalar to the next sign of a flow collection, on one line.
  private func flowPlain(_ column: inout Int) throws(TemplateError) -> String {
    let line = lines[row], start = column
    try checkPlainStart(start)
    let signs: Set<Unicode.Scalar> = [",", "[", "]", "{", "}"]
    while column < line.count, !signs.contains(line[column]) {
      if line[column] == "#", column > start, line[column - 1] == " " { break }
      if line[column] == ":", column + 1 == line.count || line[column + 1] == " " || signs.contains(line[column + 1]) {
        break
      }
      column += 1
    }
    var end = column
    while end > start, line[end - 1] == " " || line[end - 1] == "\t" { end -= 1 }
    guard end > start else { throw failure("a value is missing before \(Self.text([line[start]]))") }
    return Self.text(line[start..<end])
  }
}
