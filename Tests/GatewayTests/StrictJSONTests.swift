import Foundation
import Gateway
import Testing

@Suite("JSON, strictly")
struct StrictJSONTests {
  @Test(arguments: [
    ("null", JSONValue.null), (" true\n", .bool(true)), ("false", .bool(false)), ("\"\"", .string("")), ("[]", .array([])),
    ("{}", .object([])),
    ("-0", .number(JSONNumber(text: "-0"))), ("1.50e+3", .number(JSONNumber(text: "1.50e+3"))),
    (#""\"\\\/\b\f\n\r\t""#, .string("\"\\/\u{8}\u{C}\n\r\t")), (#""é福\u00e9\uD83D\uDE00😀""#, .string("é福é😀😀")),
    (
      #"{"a":[1,{"b":null}]}"#,
      .object([JSONMember(key: "a", value: .array([.number(JSONNumber(text: "1")), .object([JSONMember(key: "b", value: .null)])]))])
    ),
  ])
  func reads(text: String, value: JSONValue) throws {
    #expect(try StrictJSON.parse(Array(text.utf8)) == value)
  }

  @Test(arguments: [
    "", " ", "nul", "NaN", "Infinity", "-Infinity", "-", "+1", "01", "1.", ".5", "1e", "0x10", "1_000", "'a'", "\"a", "\"\\x\"",
    "\"\\u12\"",
    "\"\\uD800\"", "\"\\uDC00\\uD800\"", "\"\\uD83Dx\"", "\"\u{1}\"", "\"a\nb\"", "[1,]", "[1 2]", "[", "{", "{\"a\"}", "{\"a\":}", "{a:1}",
    "{\"a\":1,}", "{\"a\":1,\"a\":2}", "{\"a\":1}{", "1 1", "\u{FEFF}{}", "//x\n1", "tru", "[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]",
  ])
  func refuses(text: String) {
    #expect(throws: JSONError.self) { try StrictJSON.parse(Array(text.utf8)) }
  }

  @Test(
    arguments: [
      [0x22, 0xFF, 0x22], [0x22, 0xC0, 0x80, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22], [0x22, 0xF0, 0x9F, 0x22], [0xFE, 0xFF, 0, 0x31],
    ] as [[UInt8]])
  func refusesWhatIsNotUTF8(bytes: [UInt8]) {
    #expect(throws: JSONError.notUTF8(offset: bytes[0] == 0xFE ? 0 : 1)) { try StrictJSON.parse(bytes) }
  }

  @Test func saysWhatIsWrong() {
    #expect(throws: JSONError.duplicateKey("a")) { try StrictJSON.parse(Array(#"{"a":1,"b":{"a":2},"\u0061":3}"#.utf8)) }
    #expect(throws: JSONError.tooDeep(limit: 16)) { try StrictJSON.parse(Array(repeating: UInt8(ascii: "["), count: 1_000_000)) }
    #expect(throws: JSONError.syntax(offset: 5, expected: "a value")) { try StrictJSON.parse(Array(#"{"a":NaN}"#.utf8)) }
  }

  @Test func numbersKeepTheirDigits() throws {
    for (text, integer) in [
      ("9223372036854775807", Int64.max), ("-9223372036854775808", .min), ("9007199254740993", 9_007_199_254_740_993),
    ] {
      #expect(JSONNumber(text: text).integer == integer)
    }
    for text in ["9223372036854775808", "1.0", "1e3", "-9223372036854775809"] { #expect(JSONNumber(text: text).integer == nil) }
    #expect(JSONNumber(text: "1e999").double == nil)
    #expect(JSONNumber(text: "2.5e-1").double == 0.25)
  }

  /// Damaged bodies are read or refused, never more; what is read here, Foundation reads too.
  @Test func damagedBodiesNeverCrash() throws {
    let body = Array(
      #"{"prompt":"a cat 福\n\u00e9\uD83D\uDE00","n":3,"seed":12,"x":[true,false,null,-1.5e-3,{"y":"z"}]}"#.utf8)
    var random = SystemRandomNumberGenerator()
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
      if (try? StrictJSON.parse(damaged)) != nil {
        accepted += 1
        #expect(throws: Never.self, "\(String(decoding: damaged, as: UTF8.self))") {
          try JSONSerialization.jsonObject(with: Data(damaged), options: .fragmentsAllowed)
        }
      }
    }
    #expect(accepted > 100)
  }
}
