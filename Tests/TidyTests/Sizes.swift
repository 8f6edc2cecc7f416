import Foundation

/// Lines, functions and files that are easy to read.
enum Sizes {
  static let maxLineLength = 120
  static let maxFileLines = 500
  static let maxFunctionLines = 70

  /// Lines of code that are too long. Prose in Markdown is not counted: its viewer breaks lines.
  static func longLines(in files: [SourceFile]) -> [Finding] {
    files.filter { ["swift", "proto"].contains($0.kind) }.flatMap { file in
      file.lines.enumerated().filter { $0.element.count > maxLineLength }.map {
        Finding(file, line: $0.offset + 1, "the line has \($0.element.count) characters")
      }
    }
  }

  /// Files that are too long, unless they are in `reasons`.
  static func longFiles(in files: [SourceFile], reasons: [String: String]) -> [Finding] {
    files.filter { isCode($0) && $0.lines.count > maxFileLines && reasons[$0.path] == nil }.map {
      Finding($0, "the file has \($0.lines.count) lines; the limit is \(maxFileLines)")
    }
  }

  /// Functions that are too long, unless they are in `reasons`, as `path name`.
  static func longFunctions(in files: [SourceFile], reasons: [String: String]) -> [Finding] {
    files.flatMap { file in
      functions(in: file).filter { $0.lineCount > maxFunctionLines && reasons["\(file.path) \($0.name)"] == nil }.map {
        Finding(file, line: $0.line, "\($0.name) has \($0.lineCount) lines; the limit is \(maxFunctionLines)")
      }
    }
  }

  /// Entries of the lists of reasons that have no reason any more.
  static func unneeded(_ files: [SourceFile], fileReasons: [String: String], functionReasons: [String: String])
    -> [Finding]
  {
    let long = Set(longFiles(in: files, reasons: [:]).map(\.path))
    var functions: Set<String> = []
    for file in files {
      for function in Self.functions(in: file) where function.lineCount > maxFunctionLines {
        functions.insert("\(file.path) \(function.name)")
      }
    }
    return fileReasons.keys.filter { !long.contains($0) }.sorted().map { Finding(path: $0, "no longer a long file") }
      + functionReasons.keys.filter { !functions.contains($0) }.sorted().map {
        Finding(path: $0, "no longer a long function")
      }
  }

  static func isCode(_ file: SourceFile) -> Bool {
    ["swift", "c", "h", "inc", "proto", "py", "sh", "js"].contains(file.kind)
  }

  struct Function: Equatable {
    let name: String
    /// Of its first line, from 1.
    let line: Int
    let lineCount: Int
  }

  /// The functions of a Swift, C or Python file, nested ones too.
  static func functions(in file: SourceFile) -> [Function] {
    cache.value(for: file.text) {
      switch file.kind {
      case "swift": swiftFunctions(CodeText.code(of: file))
      case "c", "h", "inc": cFunctions(CodeText.code(of: file))
      case "py": pythonFunctions(file)
      default: []
      }
    }
  }

  private static let cache = Cache<[Function]>()

  private static let swiftStart = NSRegularExpression.known(#"\b(?:func\s+([^\s(<]+)|(init|deinit|subscript)\b[?!]?)"#)

  private static func swiftFunctions(_ code: String) -> [Function] {
    let bytes = Array(code.utf8)
    let lineStarts = LineStarts(bytes)
    let matches = swiftStart.matches(in: code, range: NSRange(code.startIndex..., in: code))
    return matches.compactMap { match in
      let start = code.utf16.index(code.utf16.startIndex, offsetBy: match.range.location)
      let offset = code.utf8.distance(from: code.startIndex, to: start)
      // `.init(` and `self.init(` are calls.
      if offset > 0, bytes[offset - 1] == UInt8(ascii: ".") { return nil }
      let group = match.range(at: 1).location == NSNotFound ? match.range(at: 2) : match.range(at: 1)
      guard let name = Range(group, in: code).map({ String(code[$0]) }),
        let end = bodyEnd(bytes, after: offset + match.range.length)
      else { return nil }
      let line = lineStarts.line(of: offset)
      return Function(name: name, line: line, lineCount: lineStarts.line(of: end) - line + 1)
    }
  }

  /// Where the body ends whose declaration begins before `start`; nil: there is no body, as in a protocol.
  private static func bodyEnd(_ bytes: [UInt8], after start: Int) -> Int? {
    var index = start, depth = 0, hasParameters = false
    while index < bytes.count {
      switch bytes[index] {
      case UInt8(ascii: "("), UInt8(ascii: "["): depth += 1
      case UInt8(ascii: ")"), UInt8(ascii: "]"):
        depth -= 1
        hasParameters = true
        if depth < 0 { return nil }
      case UInt8(ascii: "{"): if depth == 0 { return closingBrace(bytes, from: index) }
      case UInt8(ascii: "}"): if depth == 0 { return nil }
      case UInt8(ascii: "\n"): if depth == 0, hasParameters, endsDeclaration(bytes, at: index) { return nil }
      default: break
      }
      index += 1
    }
    return nil
  }

  /// Whether a declaration without a body ends with the line that ends at `index`: the next line neither opens the body
  /// nor continues the signature.
  private static func endsDeclaration(_ bytes: [UInt8], at index: Int) -> Bool {
    let rest = bytes[index...].drop { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\n") }.prefix(8)
    let text = String(decoding: rest, as: UTF8.self)
    let continuations = ["{", "->", "throws", "async", "where ", "rethrows", "else"]
    return !continuations.contains { text.hasPrefix($0) }
  }

  private static func closingBrace(_ bytes: [UInt8], from start: Int) -> Int? {
    var depth = 0
    for index in start..<bytes.count {
      if bytes[index] == UInt8(ascii: "{") { depth += 1 }
      if bytes[index] == UInt8(ascii: "}") { depth -= 1 }
      if depth == 0 { return index }
    }
    return nil
  }

  private static let cStart = NSRegularExpression.known(#"(\w+)\s*\("#)

  /// C functions begin and end in the first column.
  private static func cFunctions(_ code: String) -> [Function] {
    let lines = code.split(separator: "\n", omittingEmptySubsequences: false)
    var functions: [Function] = [], start: Int?
    for (index, line) in lines.enumerated() {
      if line.hasPrefix("}") {
        if let first = start, let name = cStart.matches(in: String(lines[first])).first?[1] {
          functions.append(Function(name: String(name), line: first + 1, lineCount: index - first + 1))
        }
        start = nil
      } else if start == nil, let first = line.first, first.isLetter, line.contains("("), !line.hasSuffix(";") {
        start = index
      } else if line.hasSuffix(";"), let first = start, !lines[first...index].contains(where: { $0.contains("{") }) {
        start = nil
      }
    }
    return functions
  }

  private static let pythonStart = NSRegularExpression.known(#"^( *)(?:async )?def (\w+)"#)

  private static func pythonFunctions(_ file: SourceFile) -> [Function] {
    file.lines.enumerated().compactMap { index, line in
      guard let match = pythonStart.matches(in: String(line)).first, let indent = match[1]?.count, let name = match[2]
      else {
        return nil
      }
      var end = index
      for next in file.lines.indices.dropFirst(index + 1) {
        let text = file.lines[next]
        if text.allSatisfy(\.isWhitespace) { continue }
        if text.prefix(while: { $0 == " " }).count <= indent, !text.hasPrefix(")") { break }
        end = next
      }
      return Function(name: String(name), line: index + 1, lineCount: end - index + 1)
    }
  }
}

/// Line numbers of byte offsets.
struct LineStarts {
  private var starts = [0]

  init(_ bytes: [UInt8]) {
    for (index, byte) in bytes.enumerated() where byte == UInt8(ascii: "\n") { starts.append(index + 1) }
  }

  /// From 1.
  func line(of offset: Int) -> Int {
    var low = 0, high = starts.count
    while high - low > 1 {
      let middle = (low + high) / 2
      if starts[middle] <= offset { low = middle } else { high = middle }
    }
    return low + 1
  }
}
