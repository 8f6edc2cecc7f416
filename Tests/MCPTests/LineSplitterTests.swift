import MCP
import StrictJSON
import Testing

@Suite("Lines of a stream")
struct LineSplitterTests {
  typealias Line = LineSplitter.Line

  static func lines(_ parts: [String], maxBytes: Int = 8) -> [Line] {
    var splitter = LineSplitter(maxBytes: maxBytes)
    return parts.flatMap { splitter.append(Array($0.utf8)) }
  }

  static func complete(_ text: String) -> Line { .complete(Array(text.utf8)) }

  @Test func linesComeInAnyParts() {
    let text = "one\ntwo\r\n\n\r\nthree"
    let expected = [Self.complete("one"), Self.complete("two")]
    #expect(Self.lines([text]) == expected, "the last line has no end")
    #expect(Self.lines(text.map { String($0) }) == expected)
    #expect(Self.lines(text.unicodeScalars.map { String($0) } + ["\n"]) == expected + [Self.complete("three")])
  }

  @Test func aLineThatIsTooLongIsDroppedAndSaid() {
    for parts in [["12345678\n123456789\nnext\n"], ["1234", "5678", "\n12345", "6789", "0123", "\nnext\n"]] {
      #expect(Self.lines(parts) == [Self.complete("12345678"), .tooLong, Self.complete("next")])
    }
    #expect(Self.lines(["12345678\r\n"]) == [Self.complete("12345678")])
    #expect(Self.lines(["12345678x\n"]) == [.tooLong])
    #expect(Self.lines(["12345678x\r\n"]) == [.tooLong])
  }
}

@Suite("Schemas of arguments")
struct SchemaCheckTests {
  static let schema: JSON = [
    "type": "object", "required": ["a"], "additionalProperties": false,
    "properties": [
      "a": ["type": "string", "minLength": 1, "maxLength": 3, "enum": ["x", "yy", ""]],
      "b": ["type": "number", "minimum": -1, "maximum": 2.5], "c": ["type": "boolean"],
      "d": ["type": "array", "maxItems": 2, "items": ["type": "integer", "maximum": 9]],
      "e": ["type": "object", "required": ["f"], "properties": ["f": ["type": "string"]]],
    ],
  ]

  @Test(arguments: [
    #"{"a":"x"}"#, #"{"a":"yy","b":-1}"#, #"{"a":"x","b":2.5,"c":false,"d":[]}"#, #"{"a":"x","d":[1,9.0]}"#,
    #"{"a":"x","e":{"f":"","g":1}}"#,
  ])
  func whatFitsIsTaken(_ text: String) throws {
    #expect(SchemaCheck.problem(of: try JSON(Array(text.utf8)), Self.schema) == nil)
  }

  @Test(arguments: [
    ("[]", "the arguments must be an object, not an array"), ("{}", "a is missing"),
    (#"{"a":"z"}"#, #"a must be one of "x", "yy", """#), (#"{"a":""}"#, "a has 0 characters, but must have at least 1"),
    (#"{"a":null}"#, "a must be a string, not null"), (#"{"a":"x","b":2.6}"#, "b is 2.6, but must be at least -1"),
    (#"{"a":"x","b":"1"}"#, "b must be a number"), (#"{"a":"x","c":0}"#, "c must be true or false"),
    (#"{"a":"x","d":[1,2,3]}"#, "d has 3 elements, the limit is 2"), (#"{"a":"x","d":[1,10]}"#, "d[1] is 10"),
    (#"{"a":"x","d":[1.5]}"#, "d[0] must be a whole number"), (#"{"a":"x","e":{}}"#, "e.f is missing"),
    (#"{"a":"x","g":1}"#, "g is not known; the arguments may have a, b, c, d, e"),
  ])
  func whatDoesNotFitIsNamed(_ text: String, _ expected: String) throws {
    let problem = SchemaCheck.problem(of: try JSON(Array(text.utf8)), Self.schema)
    #expect(problem?.contains(expected) == true, "\(problem ?? "nil")")
  }
}
