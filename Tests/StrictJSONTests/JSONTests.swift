import Foundation
import StrictJSON
import TestSupport
import Testing

@Suite("JSON, strictly")
struct JSONTests {
  private static func number(_ text: String) -> JSON { .number(JSONNumber(text: text)) }

  @Test(arguments: [
    ("null", JSON.null), (" true\n", .bool(true)), ("false", .bool(false)), ("\"\"", .string("")), ("[]", .array([])),
    ("{ }", .object([:])), ("-0", number("-0")), ("1.50e+3", number("1.50e+3")), ("1E9", number("1E9")),
    (#""\"\\\/\b\f\n\r\t""#, .string("\"\\/\u{8}\u{C}\n\r\t")), (#""é福\u00e9\uD83D\uDE00😀""#, .string("é福é😀😀")),
    (#"{"b":[1,{"a":null}],"a":2}"#, .object(["b": .array([number("1"), .object(["a": .null])]), "a": number("2")])),
  ])
  func reads(text: String, value: JSON) throws {
    #expect(try JSON(Array(text.utf8)) == value)
  }

  @Test(arguments: [
    "", " ", "nul", "nulll", "NaN", "Infinity", "-Infinity", "-", "+1", "01", "1.", ".5", "1e", "0x10", "1_000", "'a'",
    "\"a", "\"\\",
    "\"\\x\"", "\"\\u12\"", "\"\\uD800\"", "\"\\ud800\\u0041\"", "\"\\uDC00\\uD800\"", "\"\\uD83Dx\"", "\"\u{1}\"",
    "\"a\nb\"", "[1,]",
    "[1 2]", "[", "{", "{\"a\"}", "{\"a\":}", "{a:1}", "{1:2}", "{\"a\" 1}", "{\"a\":1,}", "{\"a\":1,\"a\":2}",
    "{\"a\":1}{", "1 1",
    "\u{FEFF}{}", "//x\n1", "/**/1",
  ])
  func refuses(text: String) {
    #expect(throws: JSONError.self) { try JSON(Array(text.utf8)) }
  }

  @Test(
    arguments: [
      [0x22, 0xFF, 0x22], [0x22, 0xC0, 0x80, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22], [0x22, 0xF0, 0x9F, 0x22],
      [0x22, 0x5C, 0x6E, 0xC0, 0x80, 0x22], [0xFE, 0xFF, 0, 0x31],
    ] as [[UInt8]])
  func refusesWhatIsNotUTF8(bytes: [UInt8]) {
    #expect(throws: JSONError.self) { try JSON(bytes) }
  }

  @Test func saysWhatIsWrongAndWhere() {
    #expect(throws: JSONError(offset: 12, reason: "duplicate key \"a\"")) { try JSON(Array(#"{"a":1,"a":2}"#.utf8)) }
    #expect(throws: JSONError(offset: 5, reason: "expected a value")) { try JSON(Array(#"{"a":NaN}"#.utf8)) }
    #expect(throws: JSONError(offset: 17, reason: "nested deeper than 16 levels")) {
      try JSON(Array(repeating: UInt8(ascii: "["), count: 1_000_000), maxDepth: 16)
    }
  }

  @Test func numbersKeepTheirDigits() throws {
    for (text, integer) in [
      ("9223372036854775807", Int.max), ("-9223372036854775808", .min), ("9007199254740993", 9_007_199_254_740_993),
    ] {
      #expect(try JSON(Array(text.utf8)).integer == integer)
    }
    for text in ["9223372036854775808", "1.0", "1e3", "-9223372036854775809", "\"1\""] {
      #expect(try JSON(Array(text.utf8)).integer == nil)
    }
    #expect(JSONNumber(text: "1e999").double == nil)
    #expect(JSONNumber(text: "2.5e-1").double == 0.25)
  }

  /// Foundation's parser is the oracle for documents both should read.
  @Test(arguments: [
    "transformer/config.json", "text_encoder/config.json", "tokenizer/vocab.json", "tokenizer/tokenizer_config.json",
  ])
  func agreesWithFoundation(file: String) throws {
    let golden = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().appending(
      path: "Golden")
    let data = try Data(contentsOf: golden.appending(path: "tiny/checkpoint/\(file)"))
    let expected = try #require(try JSONSerialization.jsonObject(with: data) as? NSDictionary)
    #expect(foundationObject(try JSON(Array(data))) as? NSDictionary == expected)
  }

  private func foundationObject(_ json: JSON) -> Any {
    switch json {
    case .null: NSNull()
    case .bool(let value): value
    case .number(let number): number.integer.map { $0 as Any } ?? number.double ?? .nan
    case .string(let value): value
    case .array(let elements): elements.map(foundationObject)
    case .object(let members):
      Dictionary(uniqueKeysWithValues: members.elements.map { ($0.key, foundationObject($0.value)) })
    }
  }

  /// Damaged documents are read or refused, never more; what is read here, Foundation reads too.
  @Test func damagedDocumentsNeverCrash() throws {
    let body = Array(
      #"{"prompt":"a cat 福\n\u00e9\uD83D\uDE00","n":3,"seed":12,"x":[true,false,null,-1.5e-3,{"y":"z"}]}"#.utf8)
    var random = TestRandom("damaged documents")
    var accepted = 0
    for round in 0..<20_000 {
      var damaged = body
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        let index = Int.random(in: 0..<damaged.count, using: &random)
        switch round % 4 {
        case 0: damaged[index] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        case 1: damaged.remove(at: index)
        case 2: damaged.insert(damaged[Int.random(in: 0..<damaged.count, using: &random)], at: index)
        default: damaged = Array(damaged[..<max(1, index)])
        }
      }
      if (try? JSON(damaged)) != nil {
        accepted += 1
        #expect(throws: Never.self, "\(String(decoding: damaged, as: UTF8.self))") {
          try JSONSerialization.jsonObject(with: Data(damaged), options: .fragmentsAllowed)
        }
      }
    }
    #expect(accepted > 100)
  }
}
