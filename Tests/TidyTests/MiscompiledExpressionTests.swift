import Foundation
import Testing

/// Swift 6.3.1 accepts the following expression and generates code that crashes when `tensor` throws:
///
///     try stored ?? .plain(tensor(name), bias: bias)
///
/// The right operand of `??`, `&&` and `||` is an autoclosure that throws `any Error`. When it constructs an enum case
/// of two or more values and the error comes from a function with typed throws, the compiler leaves out the conversion
/// of the error: the caller takes the error's bytes for a reference. What the enclosing function throws, and whether
/// the left operand is mapped, makes no difference.
///
/// No source file may contain such an operand. Nor may one contain `try a.map { … } ?? call(…)`, the form in which the
/// fault was found.
@Suite struct MiscompiledExpressionTests {
  /// One statement each: miscompiled, or of the form that is banned with it.
  private static let bad = [
    "return try packed.map { .packed($0) } ?? .plain(weights.tensor(name, [output, input]), bias: bias)",
    "form: try packed.map { .packed($0) } ?? .plain(weights.tensor(name), bias: bias),",
    "let form = try stored ?? .plain(tensor(name), bias: 3)",
    "let form = try stored ?? (.plain(tensor(name), bias: bias))",
    "let form = stored ?? .plain(try tensor(name), bias: bias)",
    "let form = try? stored ?? Form.plain(tensor(name), bias: nil)",
    "let form = try stored ?? Module.Form.plain(1, tensor(name).count)",
    "let isPlain = try name.isEmpty || Form.plain(tensor(name), bias: bias).isPlain",
    "let isPlain = try isKnown && Form.plain(tensor(name), bias: bias) == other",
    "let form =\n  try stored\n  ?? .plain(\n    tensor(name),\n    bias: bias)",
    "try check(a, stored ?? .plain(tensor(name), bias: bias))",
    "try found.flatMap { Form($0) } ?? read(name)",
    "let form = try found.map { value in\n  make(value)\n} ?? read(name)",
    "let form = try text(\"?? )\") == nil /* ( */ || .plain(tensor(name), bias: bias) == form  // .plain(",
  ]

  /// Statements that look similar and are in order.
  private static let good = [
    "let form = stored ?? .plain(tensor(name), bias: bias)",
    "let form = try stored ?? .plain(first, bias: bias)",
    "let form = try stored ?? .packed(tensor(name))",
    "let form = try stored ?? tensor(name, [1, 2])",
    "let form = try stored ?? wrapped.plain(tensor(name), bias: bias)",
    "let form = try stored == nil ? .plain(tensor(name), bias: bias) : .packed(1)",
    "let form = try .plain(tensor(name), bias: bias)",
    "let tensor = try tensor(name)\nreturn stored ?? .plain(make(tensor), bias: bias)",
    "guard try isKnown(name), a || b else { throw Failure.plain(tensor(name), bias: bias) }",
    "let mode = try fields.choice(key).flatMap { Mode(rawValue: $0) } ?? .standard",
    "let names = try (a ?? b).map { .plain(make($0), bias: nil) }",
    "let text = try read(name) + \"a ?? .plain(tensor(name), bias: 1)\"",
    "// try stored ?? .plain(tensor(name), bias: bias)",
  ]

  @Test(arguments: bad) func findsTheBadForms(_ source: String) {
    #expect(!MiscompiledExpressions.lines(in: source).isEmpty)
  }

  @Test(arguments: good) func passesTheGoodForms(_ source: String) {
    #expect(MiscompiledExpressions.lines(in: source) == [])
  }

  @Test func reportsTheLine() {
    let lines = ["let a = 1", Self.good[0], Self.bad[2], "}", Self.bad[0]]
    #expect(MiscompiledExpressions.lines(in: lines.joined(separator: "\n")) == [3, 5])
  }

  @Test func noSourceHasThem() throws {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    var count = 0
    for top in ["Shared", "Services", "Tests"] {
      let files = FileManager.default.enumerator(at: root.appending(path: top), includingPropertiesForKeys: nil)
      while let file = files?.nextObject() as? URL {
        if file.lastPathComponent == ".build" { files?.skipDescendants() }
        guard file.pathExtension == "swift" else { continue }
        count += 1
        for line in MiscompiledExpressions.lines(in: try String(contentsOf: file, encoding: .utf8)) {
          Issue.record("\(file.path):\(line): make the value in a statement of its own, see MiscompiledExpressionTests")
        }
      }
    }
    #expect(count > 200)
  }
}

/// Finds the expressions in Swift source. It knows brackets, strings and comments, and no types: a static function that
/// is called like an enum case counts as one.
private struct MiscompiledExpressions {
  /// The source without comments and the contents of string literals.
  private let code: [Unicode.Scalar]

  /// The lines of the operators, from 1.
  static func lines(in source: String) -> [Int] {
    let scanner = MiscompiledExpressions(source)
    return scanner.operators.filter(scanner.isBad).map { index in scanner.code[..<index].count { $0 == "\n" } + 1 }
  }

  private init(_ source: String) {
    let pattern = /"""[\s\S]*?"""|#"[^\n]*?"#|"(?:\\.|[^"\\\n])*"|\/\/[^\n]*|\/\*[\s\S]*?\*\//
    code = Array(
      source.replacing(pattern) { match in match.output.filter { "\"\n".contains($0) } }.unicodeScalars)
  }

  /// Where an operator begins whose right operand is an autoclosure.
  private var operators: [Int] {
    code.indices.dropLast().filter { index in
      "?&|".unicodeScalars.contains(code[index]) && code[index + 1] == code[index]
        && (index == 0 || code[index - 1] != code[index])
    }
  }

  private func isBad(_ index: Int) -> Bool {
    let right = rightOperand(after: index + 2)
    guard right.contains("(") else { return false }
    let left = leftPart(before: index)
    guard Self.hasTry(left) || Self.hasTry(right) else { return false }
    return Self.constructsCase(right) || code[index] == "?" && Self.endsWithMap(left)
  }

  /// The text from `start` to the end of the operand's expression.
  private func rightOperand(after start: Int) -> String {
    var depth = 0, end = start
    scan: while end < code.count {
      switch code[end] {
      case "(", "[": depth += 1
      case "{":
        if depth == 0 { break scan }
        depth += 1
      case ")", "]", "}": depth -= 1
      case ",", ";": if depth == 0 { break scan }
      case "\n": if depth == 0, endsStatement(at: end) { break scan }
      default: break
      }
      if depth < 0 { break }
      end += 1
    }
    return text(start..<end)
  }

  /// The text from the beginning of the statement to `end`.
  private func leftPart(before end: Int) -> String {
    var depth = 0, start = end
    scan: while start > 0 {
      switch code[start - 1] {
      case ")", "]", "}": depth += 1
      case "(", "[": depth = max(depth - 1, 0)
      case "{":
        if depth == 0 { break scan }
        depth -= 1
      case ";": if depth == 0 { break scan }
      case "\n": if depth == 0, endsStatement(at: start - 1) { break scan }
      default: break
      }
      start -= 1
    }
    return text(start..<end)
  }

  /// Whether the line break at `index` ends a statement: neither the line before nor the one behind asks for more.
  private func endsStatement(at index: Int) -> Bool {
    let before = code[..<index].last { !$0.properties.isWhitespace }
    let after = code[index...].first { !$0.properties.isWhitespace }
    guard let before, let after else { return true }
    return !"=,([{?:&|+-*/<>".unicodeScalars.contains(before) && !".?:&|+-*/=<>)]".unicodeScalars.contains(after)
  }

  private func text(_ range: Range<Int>) -> String { String(String.UnicodeScalarView(code[range])) }

  private static func hasTry(_ text: String) -> Bool { text.contains(/\btry\b/.wordBoundaryKind(.simple)) }

  /// Whether the text ends with `.map { … }` or `.flatMap { … }`.
  private static func endsWithMap(_ text: String) -> Bool {
    let trimmed = Array(text.reversed().drop { $0.isWhitespace })
    guard trimmed.first == "}" else { return false }
    var depth = 0
    for (offset, character) in trimmed.enumerated() {
      if character == "}" { depth += 1 }
      if character == "{" { depth -= 1 }
      guard depth == 0 else { continue }
      let before = trimmed.dropFirst(offset + 1).drop { $0.isWhitespace }
      let name = String(before.prefix { $0.isLetter || $0 == "." }.reversed())
      return name.hasSuffix(".map") || name.hasSuffix(".flatMap")
    }
    return false
  }

  /// Whether the text calls an enum case, `.name(` or `Type.name(`, with two or more arguments that hold a call.
  private static func constructsCase(_ text: String) -> Bool {
    let call = /(?:^|[^\w.)\]}?!]|\b[A-Z]\w*)\.[a-z_]\w*\(/.wordBoundaryKind(.simple)
    return text.matches(of: call).contains { match in
      var depth = 1, commas = 0, hasCall = false, last: Character = "("
      for character in text[match.range.upperBound...] {
        if character == "(", last.isLetter || last.isNumber || last == "_" || last == ">" { hasCall = true }
        if "([{".contains(character) { depth += 1 }
        if ")]}".contains(character) { depth -= 1 }
        if depth == 0 { break }
        if depth == 1, character == "," { commas += 1 }
        last = character
      }
      return commas > 0 && hasCall
    }
  }
}
