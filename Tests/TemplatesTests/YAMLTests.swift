import Templates
import Testing

/// The part of YAML that templates are written in.
@Suite("YAML of templates") struct YAMLTests {
  /// A node as one line: texts in quotes, plain scalars as they are.
  static func shown(_ node: TemplateNode) -> String {
    switch node.value {
    case .null: "null"
    case .scalar(let text, isPlain: true): text
    case .scalar(let text, isPlain: false):
      "\"\(text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n"))\""
    case .sequence(let elements): "[\(elements.map(shown).joined(separator: ", "))]"
    case .mapping(let members): "{\(members.map { "\($0.key): \(shown($0.value))" }.joined(separator: ", "))}"
    }
  }

  @Test(arguments: [
    ("a: 1\nb: x y  # note\n", "{a: 1, b: x y}"),
    ("---\na:\n  b:\n    - c\n    - d: 1\n      e: 2\n", "{a: {b: [c, {d: 1, e: 2}]}}"),
    ("a:\n- 1\n-\n  - 2\n- - 3\n  - 4\nb: ~\n", "{a: [1, [2], [3, 4]], b: null}"),
    ("\u{feff}a: 'it''s'\r\n\"b c\" : \"\\u4e2d\\n\\\"\"\r\n", "{a: \"it's\", b c: \"中\\n\\\"\"}"),
    (
      "a: [1, 'x, y', [], {b: c, d: }, ]\nb: {x: 1,\n  # more\n  y: [a,\n b]}\n",
      "{a: [1, \"x, y\", [], {b: c, d: null}], b: {x: 1, y: [a, b]}}"
    ),
    ("a: {\"x\":1}\nb: http://x.y/#z\nc: -1\nd: a #\ne: a#b\n", "{a: {x: 1}, b: http://x.y/#z, c: -1, d: a, e: a#b}"),
    (
      "a: |\n  one\n   two\n\n  three\n\n\nb: >-\n  one\n  two\n\n  three\n",
      "{a: \"one\\n two\\n\\nthree\\n\", b: \"one two\\nthree\"}"
    ),
    ("a: |+\n  x\n\nb: |2-\n    y\n  z\n", "{a: \"x\\n\\n\", b: \"  y\\nz\"}"),
    ("a: >\n  x\n    y\n  z\n", "{a: \"x\\n  y\\nz\\n\"}"), ("# only\n\n[a, b]\n", "[a, b]"),
    ("a:\n  # note\nb: 1", "{a: null, b: 1}"),
    ("a: |\nb: 1\n", "{a: \"\", b: 1}"), ("- a\n-   b: 1\n    c: 2\n", "[a, {b: 1, c: 2}]"),
  ])
  func documentsAreRead(text: String, expected: String) throws {
    #expect(Self.shown(try YAMLReader.document(text)) == expected)
  }

  @Test(arguments: [
    ("", "line 1: the template is empty"), ("a: &x 1\nb: *x\n", "line 1: anchors (&) are not read"),
    ("a: 1\nb: *x\n", "line 2: aliases (*) are not read"), ("a: !!str 1\n", "line 1: tags (!) are not read"),
    ("? a\n: b\n", "line 1: complex keys (?) are not read"),
    ("%YAML 1.2\n---\na: 1\n", "line 1: directives are not read"),
    ("a: 1\n---\nb: 1\n", "line 2: a template is one document"), ("a: 1\n...\n", "line 2: a template is one document"),
    ("a: 1\n\tb: 2\n", "line 2: a tab indents the line"), ("a: one\n  two\n", "line 2: the line is indented further"),
    ("a: 'x\n  y'\n", "line 1: a text in quotes does not end"), ("a: 1\na: 2\n", "line 2: the key a comes twice"),
    ("a: {b: 1, b: 2}\n", "line 1: the key b comes twice"), ("a: b: c\n", "line 1: a text with a colon and a space"),
    ("a: {word} on red\n", "line 1: word has no value; a text that begins with { must be in quotes"),
    ("a: {b: 1} c\n", "line 1: \"c\" follows a complete value"),
    ("a: [1, 2\nb: 3\n", "line 2: a comma or ] is missing"),
    ("a: [1,\n", "line 2: the bracket of line 1 is not closed"),
    ("  a: 1\nb: 2\n", "line 2: this line is indented less"),
    ("a: \"\\q\"\n", "line 1: the escape \\q is not read"), ("a: \"\\ud800\"\n", "line 1: \\ud800 is no character"),
    ("a:\n  b: 1\n c: 2\n", "line 3: the line is indented further"), ("a: 1\n- b\n", "line 2: the line has no key"),
    ("a: @x\n", "line 1: a text that begins with \"@\" must be in quotes"), ("a: |x\n", "line 1: |x begins no block"),
    (String(repeating: "[", count: 5000), "line 1: nested deeper than 8 levels"),
    ("a: [" + String(repeating: "1,", count: 9000) + "]", "line 1: there are more than 8192 values"),
    (String(repeating: "- ", count: 9000) + "a", "line 1: nested deeper than 8 levels"),
    ("a: " + String(repeating: "x", count: 300_000), "the template has 300003 bytes, the limit is 262144"),
  ])
  func otherDocumentsAreRefusedByLine(text: String, reason: String) {
    let error = #expect(throws: TemplateError.self) { try YAMLReader.document(text) }
    #expect(error?.description.hasPrefix(reason) == true, "\(error?.description ?? "none")")
  }

  /// Whatever is cut off or changed, the reader ends.
  @Test func damagedDocumentsEnd() {
    let text = """
      name: x
      prompt: "a {b}"
      slots:
        b: {allowed: [a, 'b'], default: a}
        c: |-
          x
        d:
          - e: 1
            f: >+
             g

      """
    let scalars = Array(text.unicodeScalars)
    for index in scalars.indices {
      _ = try? YAMLReader.document(YAMLReader.text(scalars[..<index]))
      for other in "-:{}[]#&*!|>'\"%@` \n\t,?0a\\" {
        var changed = scalars
        changed[index] = other.unicodeScalars.first!
        _ = try? YAMLReader.document(YAMLReader.text(changed))
      }
    }
  }
}
