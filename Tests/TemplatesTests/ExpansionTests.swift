import StrictJSON
import Templates
import Testing

/// What rows make of a template.
@Suite("Expansion of templates") struct ExpansionTests {
  private static func expand(_ yaml: String, _ csv: String) throws -> [TemplateRequest] {
    let template = try Template(yaml: yaml)
    return try template.expanded(TemplateRow.rows(csv: csv, for: template))
  }

  private static func problems(_ yaml: String, _ csv: String) -> [String] {
    do {
      _ = try expand(yaml, csv)
      return []
    } catch let error as RowProblems {
      return error.problems.map(\.description)
    } catch {
      return ["\(error)"]
    }
  }

  @Test func rowsAreMadeInAllSizesAndLanguages() throws {
    let requests = try Self.expand(
      TemplateTests.poster, "word,word.zh,colour,photo\nin SALE,in 大,blue,a b.png\nOPEN in,,,\n")
    #expect(requests.count == 8)
    #expect(requests.map(\.row) == [1, 1, 1, 1, 2, 2, 2, 2] && requests.map(\.line) == [2, 2, 2, 2, 3, 3, 3, 3])
    #expect(
      requests.prefix(4).map(\.output) == [
        "poster/0001-in-SALE-banner-en", "poster/0001-in-SALE-banner-zh", "poster/0001-in-SALE-square-en",
        "poster/0001-in-SALE-square-zh",
      ])
    #expect(requests[0].prompt == "photo, \"in SALE\" in blue on {wall}, colours: crimson, ivory, flat")
    #expect(requests[1].prompt == "蓝色的\"in 大\"，wall, colours: crimson, ivory, flat")
    #expect(requests[5].prompt == "红色的\"OPEN in\"，wall, colours: crimson, ivory, flat")
    #expect(requests.map { $0.fields["seed"]?.integer } == [101, 101, 101, 101, 102, 102, 102, 102])
    #expect(requests[2].fields["size"]?.text == "128x128" && requests[2].fields["negative_prompt"]?.text == " ")
    #expect(requests[0].files.map(\.values) == [["a b.png"]] && requests[4].files.isEmpty)
    let json = requests[1].json(withOutput: true)
    #expect(json["tags"] == ["template:poster", "spring"] && json["image"] == ["a b.png"])
    #expect(json["metadata"] == ["template": "poster", "row": "1", "size": "banner", "language": "zh"])
    #expect(json["output"]?.text == requests[1].output && requests[1].json(withOutput: false)["output"] == nil)
    // More rows change nothing about the first ones.
    let more = try Self.expand(
      TemplateTests.poster, "word,word.zh,colour,photo\nin SALE,in 大,blue,a b.png\nOPEN in,,,\nx in,,,\n")
    #expect(Array(more.prefix(8)) == requests)
  }

  @Test func aTemplateMayHaveNeitherSizesNorLanguages() throws {
    let requests = try Self.expand("name: t\nprompt: a {x}\nslots: { x: {} }\nseed: 7\n", "x\n1\n2\n")
    #expect(requests.map(\.output) == ["0001", "0002"] && requests.map(\.prompt) == ["a 1", "a 2"])
    #expect(requests.allSatisfy { $0.fields["seed"] == 7 && $0.fields["size"] == nil })
  }

  @Test func everyBrokenRuleHasRowColumnAndName() {
    let csv = "word,colour,place\nSALE FREE,green,\n,,in\nin,,im Freien in\nTOOLONGWORD,,in\n"
    #expect(
      Self.problems(TemplateTests.poster, csv) == [
        "row 1 (line 2), column word: it has 9 characters, the limit is 7 (slots.word.max_length)",
        "row 1 (line 2), column word: it has the word \"free\" (brand.forbidden_words)",
        "row 1 (line 2), column colour: \"green\" is none of red, blue (slots.colour.allowed)",
        "row 2 (line 3), column word: it is empty (slots.word.required)",
        "row 3 (line 4), column place: it has 12 characters, the limit is 9 (brand.max_text_length)",
        "row 4 (line 5), column word: it has 11 characters, the limit is 7 (slots.word.max_length)",
        "row 4 (line 5), column word: it has 11 characters, the limit is 9 (brand.max_text_length)",
      ])
    #expect(
      Self.problems(TemplateTests.poster, "word\n免费送\n") == [
        "row 1 (line 2), column word: it has the word \"免费\" (brand.forbidden_words)"
      ])
    #expect(
      Self.problems(TemplateTests.poster, "word\nSALE\n") == [
        "row 1 (line 2), column prompt.zh: it lacks the word \"in\" (brand.required_words)"
      ])
    // What the template itself allows is no row's text.
    #expect(
      Self.problems(
        "name: t\nprompt: '{x}'\nslots: { x: { allowed: [yellow] } }\nbrand: { max_text_length: 3 }", "x\nyellow\n")
        == [])
    #expect(
      Self.problems(
        "name: t\nprompt: '{x}'\nslots: { x: {} }\nbrand: { max_prompt_length: 3, forbidden_words: [a b] }",
        "x\na b c\n")
        == [
          "row 1 (line 2), column x: it has the word \"a b\" (brand.forbidden_words)"
        ])
  }

  @Test(arguments: [
    ("FREE offers", "free", true), ("carefree", "free", false), ("free!", "FREE", true), ("freed", "free", false),
    ("免费送", "免费", true), ("x免费", "免费", true), ("Größe", "GRÖSSE", false), ("a", "ab", false), ("re-use", "use", true),
    ("カフェ", "カ", true), ("7 days", "7", true), ("17 days", "7", false),
  ])
  func wordsAreFoundWhole(text: String, word: String, expected: Bool) {
    #expect(WordText(text).holds(WordText(word)) == expected)
  }

  @Test(arguments: [
    ("y\n1\n", "rows, column y: there is no such slot; slots are x (slots)"), ("x\n", "rows: there are no rows (rows)"),
    ("", "rows: line 1: there is no header (table)"), ("x\n\"1", "rows: line 2: a quoted field has no end (table)"),
    ("x.de\n1\n", "rows, column x.de: there is no such slot; slots are x (slots)"),
    ("x\n\"a\nb\"\n", "row 1 (line 2), column x: it has control characters (slots.x.kind)"),
    ("x\n" + String(repeating: "1\n", count: 10_001), "rows: there are 10001 rows, the limit is 10000 (rows)"),
  ])
  func tablesAreChecked(csv: String, reason: String) {
    #expect(Self.problems("name: t\nprompt: '{x}'\nslots: { x: {} }", csv) == [reason])
  }

  @Test func rowsOfJSONAreChecked() throws {
    let template = try Template(yaml: "name: t\nprompt: '{x}'\nslots: { x: { default: d } }")
    let rows = try TemplateRow.rows(json: [["x": 7], ["x": true], ["x": .null], ["x": "a"]], for: template)
    #expect(try template.expanded(rows).map(\.prompt) == ["7", "true", "d", "a"])
    for (element, reason): (JSON, String) in [
      (7, "row 1: it must be an object, not a number (rows)"),
      (["x": []], "row 1, column x: it must be a text, not an array (rows)"),
      (["y": 1], "row 1, column y: there is no such slot; slots are x (slots)"),
    ] {
      let error = #expect(throws: RowProblems.self) { try TemplateRow.rows(json: [element], for: template) }
      #expect(error?.problems.map(\.description) == [reason])
    }
  }

  @Test func namesOfFilesAreSafeAndDiffer() throws {
    let yaml = "name: t\nprompt: '{x}'\nslots: { x: {} }\noutput: 'a/{x}'"
    #expect(
      try Self.expand(yaml, "x\n../../etc/passwd\n./.\n\"a\\b:c\"\n中文 图\n")
        .map(\.output) == ["a/etc-passwd", "a/empty", "a/a-b-c", "a/中文-图"])
    #expect(try Self.expand(yaml, "x\n\(String(repeating: "x", count: 4000))\n")[0].output.count == 62)
    #expect(
      Self.problems(yaml, "x\nA\na\n") == [
        "row 2 (line 3): a/a is the name of a file of row 1, too; {row} makes names differ (output)"
      ])
    for name in ["index", "contact-sheet", "Index"] {
      #expect(
        Self.problems("name: t\nprompt: '{x}'\nslots: { x: {} }\noutput: '{x}'", "x\n\(name)\n").first?
          .hasSuffix("is the name of another file: contact-sheet.png or index.html (output)") == true)
    }
  }

  @Test func allTogetherIsBounded() throws {
    let template = try Template(
      yaml: "name: t\nprompt: '{x}'\nslots: { x: {} }\nsizes: { a: 1x1, b: 2x2 }\nlanguages: { c: {}, d: {} }")
    let rows = (1...2501).map { TemplateRow(number: $0, values: ["x": "1"]) }
    let error = #expect(throws: RowProblems.self) { try template.expanded(rows) }
    #expect(error?.problems.first?.reason == "2501 rows in 4 sizes and languages are 10004 images, the limit is 10000")
    #expect(try template.expanded(Array(rows.dropLast())).count == 10_000)
    let files = try Template(
      yaml: "name: t\nprompt: p\nslots: { f: { kind: file } }\ninputs: { image: f }\nsizes: { a: 1x1, b: 2x2 }")
    let large = TemplateRow(number: 1, values: ["f": String(repeating: "x", count: 40 << 20)])
    let tooMuch = #expect(throws: RowProblems.self) { try files.expanded([large]) }
    #expect(tooMuch?.problems.first?.reason == "all requests have more than 67108864 bytes")
    let wrong = (1...200).map { TemplateRow(number: $0, values: [:]) }
    let many = #expect(throws: RowProblems.self) { try template.expanded(wrong) }
    #expect(many?.problems.count == 100 && many?.hasMore == true)
  }
}
