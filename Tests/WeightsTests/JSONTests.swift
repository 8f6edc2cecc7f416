import Foundation
import Testing
import Weights

@Suite struct JSONTests {
  @Test(arguments: [
    (#"{"a":[1,-2,3.5,1e3],"b":{"c":null},"d":true,"e":false,"f":""} "#, true), ("null", true), ("-0", true), ("[]", true), ("{ }", true),
    (#""\u00e9\ud83d\ude00\n\/""#, true), ("", false), ("{", false), ("[1,]", false), ("{\"a\":1,}", false), ("{\"a\" 1}", false),
    ("01", false), ("1.", false), (".5", false), ("+1", false), ("1e", false), ("NaN", false), ("Infinity", false), ("1e999", false),
    ("tru", false), ("nulll", false), ("\"\\x\"", false), ("\"\\ud800\"", false), ("\"\\ud800\\u0041\"", false), ("\"\\udc00\"", false),
    ("\"a\nb\"", false), ("\"unterminated", false), ("\"\\", false), ("\"\\u12", false), ("1 2", false), ("{1:2}", false), ("/**/1", false),
  ])
  func acceptsExactlyJSON(text: String, valid: Bool) {
    let document = try? JSON(Array(text.utf8))
    #expect((document != nil) == valid, "\(text)")
  }

  @Test func readsValues() throws {
    #expect(
      try JSON(Array(#"{"a":[1,-2.5,"x\u0041\u00e9\ud83d\ude00"],"b":9223372036854775808}"#.utf8))
        == .object([
          "a": .array([.number(1, integer: 1), .number(-2.5, integer: nil), .string("xAé😀")]),
          "b": .number(9_223_372_036_854_775_808, integer: nil),
        ]))
  }

  @Test func refusesDuplicateKeysInvalidUTF8AndDeepNesting() {
    #expect(throws: JSONError(offset: 12, reason: "duplicate key \"a\"")) { try JSON(Array(#"{"a":1,"a":2}"#.utf8)) }
    #expect(throws: JSONError.self) { try JSON([0x22, 0xff, 0x22]) }
    #expect(throws: JSONError.self) { try JSON([0x22, 0x5c, 0x6e, 0xc0, 0x80, 0x22]) }
    #expect(throws: JSONError.self) { try JSON([UInt8](repeating: UInt8(ascii: "["), count: 1_000_000)) }
  }

  /// Foundation's parser is the oracle for documents both should read.
  @Test(arguments: ["transformer/config.json", "text_encoder/config.json", "tokenizer/vocab.json", "tokenizer/tokenizer_config.json"])
  func agreesWithFoundation(file: String) throws {
    let data = try Data(contentsOf: golden.appending(path: "tiny/checkpoint/\(file)"))
    let expected = try #require(try JSONSerialization.jsonObject(with: data) as? NSDictionary)
    #expect(foundationObject(try JSON(Array(data))) as? NSDictionary == expected)
  }

  private func foundationObject(_ json: JSON) -> Any {
    switch json {
    case .null: NSNull()
    case .bool(let value): value
    case .number(let value, let integer): integer.map { $0 as Any } ?? value
    case .string(let value): value
    case .array(let elements): elements.map(foundationObject)
    case .object(let members): members.mapValues(foundationObject)
    }
  }
}
