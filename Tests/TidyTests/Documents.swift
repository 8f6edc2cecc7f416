import Foundation

/// What documents refer to is there.
enum Documents {
  // MARK: Links

  fileprivate static let link = NSRegularExpression.known(#"!?\[[^\]\n]*\]\(([^)\s]+)(?:\s+"[^"]*")?\)"#)

  /// Relative links whose file, or whose heading, is not there.
  ///
  /// - Parameter exists: whether the repository has a file or folder of this path.
  static func linkFindings(in files: [SourceFile], exists: (String) -> Bool) -> [Finding] {
    let documents = Dictionary(uniqueKeysWithValues: files.map { ($0.path, $0) })
    return files.flatMap { file in
      prose(of: file).flatMap { number, line -> [Finding] in
        link.matches(in: line).compactMap { $0[1].map(String.init) }.compactMap { target in
          guard !target.contains("://"), !target.hasPrefix("mailto:") else { return nil }
          let parts = target.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false)
          let path = parts[0].isEmpty ? file.path : resolve(String(parts[0]), from: file.path)
          guard let path, exists(path) else { return Finding(file, line: number, "\(target): there is no such file") }
          guard parts.count == 2 else { return nil }
          guard let document = documents[path] else {
            return Finding(file, line: number, "\(target): \(path) has no headings")
          }
          return anchors(of: document).contains(String(parts[1]))
            ? nil
            : Finding(file, line: number, "\(target): there is no such heading")
        }
      }
    }
  }

  /// A path from the root of the repository; nil: it leads out of it.
  static func resolve(_ link: String, from path: String) -> String? {
    var parts = path.split(separator: "/").dropLast().map(String.init)
    for part in link.split(separator: "/") {
      switch part {
      case ".": continue
      case "..": if parts.popLast() == nil { return nil }
      default: parts.append(part.removingPercentEncoding ?? String(part))
      }
    }
    return parts.joined(separator: "/")
  }

  /// The names that links use for a document's headings, as GitHub makes them.
  static func anchors(of file: SourceFile) -> Set<String> {
    var counts: [String: Int] = [:], anchors: Set<String> = []
    for (_, line) in prose(of: file, keepsCode: true) where line.hasPrefix("#") {
      let title = line.drop { $0 == "#" }.trimmingCharacters(in: .whitespaces).lowercased()
      let name = String(title.filter { $0.isLetter || $0.isNumber || "-_ ".contains($0) }.map { $0 == " " ? "-" : $0 })
      anchors.insert(counts[name].map { "\(name)-\($0)" } ?? name)
      counts[name, default: 0] += 1
    }
    return anchors
  }

  /// The numbered lines outside of code blocks; code within a line is blanked unless it is kept.
  static func prose(of file: SourceFile, keepsCode: Bool = false) -> [(Int, String)] {
    var isCode = false
    return file.lines.enumerated().compactMap { index, line in
      if line.drop(while: { $0 == " " }).hasPrefix("```") {
        isCode.toggle()
        return nil
      }
      if isCode { return nil }
      let text = String(line)
      return (
        index + 1,
        keepsCode
          ? text
          : code.stringByReplacingMatches(
            in: text, range: NSRange(text.startIndex..., in: text), withTemplate: "")
      )
    }
  }

  private static let code = NSRegularExpression.known("`[^`]*`")

  // MARK: Paths and names

  private static let codeSpan = NSRegularExpression.known("`([^`]+)`")
  private static let pathStart = NSRegularExpression.known(
    #"^(?:\./)?((?:Shared|Services|Tests|compose|proto|\.ci)/[\w.+/-]*)$"#)

  /// Paths in backticks that lead nowhere, and names behind a path that its file does not have.
  ///
  /// Names in backticks that follow the path of a source file in backticks, with nothing but commas between them, must
  /// be declared in that file.
  static func nameFindings(
    in files: [SourceFile], sources: [String: SourceFile], exists: (String) -> Bool
  ) -> [Finding] {
    files.flatMap { file in
      prose(of: file, keepsCode: true).flatMap { number, line -> [Finding] in
        var findings: [Finding] = [], source: SourceFile?, end = line.startIndex
        for match in codeSpan.matches(in: line) {
          guard let whole = match[0], let span = match[1] else { continue }
          let between = line[end..<whole.startIndex]
          end = whole.endIndex
          if let path = path(in: String(span)) {
            source = sources[path]
            if !exists(path) { findings.append(Finding(file, line: number, "there is no \(path)")) }
          } else if let declared = source, between.allSatisfy({ " ,".contains($0) }) {
            if !declares(declared, String(span)) {
              findings.append(Finding(file, line: number, "\(declared.path) does not declare \(span)"))
            }
          } else {
            source = nil
          }
        }
        return findings
      }
    }
  }

  /// The path that a code span is; nil: it is something else, such as a command or a pattern.
  private static func path(in span: String) -> String? {
    guard let path = pathStart.matches(in: span).first?[1] else { return nil }
    return path.hasSuffix("/") ? String(path.dropLast()) : String(path)
  }

  /// Whether a source declares a function, type, case or value: `step(_:now:)`, `Scheduler.step`, `promisesHold`.
  static func declares(_ file: SourceFile, _ name: String) -> Bool {
    let base = name.prefix { $0 != "(" && $0 != "<" }.split(separator: ".").last.map(String.init) ?? name
    let word = NSRegularExpression.escapedPattern(for: base)
    let keywords = "func|def|struct|class|enum|actor|protocol|typealias|let|var|case|message|service|rpc"
    let pattern =
      base == "init"
      ? #"\binit[(?<]"#
      : #"\b(?:\#(keywords))\s+(?:\w+(?:\([^)\n]*\))?, )*\#(word)\b"#
        + #"|^[\w *]+\b\#(word)\("#
    let expression = NSRegularExpression.known(pattern, .anchorsMatchLines)
    return expression.firstMatch(in: file.text, range: NSRange(file.text.startIndex..., in: file.text)) != nil
  }

  // MARK: Promises

  /// Rows of the promises' tables that name no test. Whether the tests exist is what ``nameFindings`` finds.
  static func promiseFindings(in page: SourceFile) -> [Finding] {
    page.lines.enumerated().compactMap { index, line in
      guard line.hasPrefix("| "), !line.hasPrefix("| Fault") else { return nil }
      let cells = line.split(separator: "|")
      guard let last = cells.last, cells.count >= 3 else {
        return Finding(page, line: index + 1, "the row lacks a column")
      }
      let references = last.split(separator: ";")
      let isWhole =
        !references.isEmpty && references.allSatisfy { $0.contains("`Tests/") && $0.filter { $0 == "`" }.count >= 4 }
      return isWhole ? nil : Finding(page, line: index + 1, "the row names no test, as `file` `function`")
    }
  }
}

extension Documents {
  /// Paths in the repository that a document links to.
  static func linkedPaths(in file: SourceFile) -> [String] {
    prose(of: file).flatMap { _, line in
      link.matches(in: line).compactMap { $0[1] }.filter { !$0.contains("://") && !$0.hasPrefix("#") }.compactMap {
        resolve(String($0.prefix { $0 != "#" }), from: file.path)
      }
    }
  }
}
