import StrictJSON
import Testing

@Suite("Writing JSON")
struct JSONWritingTests {
  static func text(_ value: JSON) -> String { String(decoding: value.bytes, as: UTF8.self) }

  @Test(arguments: [
    "null", "true", "false", "0", "-1.50e+3", "12345678901234567890.123", "\"\"", "[]", "{}",
    #"[1,[2,{"b":3,"a":[]}],""]"#,
    #"{"z":1,"a":{"é":"雪"}}"#, #""\"\\\n\r\t\u0000\u001f/""#,
  ])
  func whatWasReadIsWrittenAsItWas(_ text: String) throws {
    let value = try JSON(Array(text.utf8))
    #expect(Self.text(value) == text)
    #expect(try JSON(value.bytes) == value)
  }

  @Test func valuesAreMadeOfLiterals() {
    let value: JSON = ["a": [1, -2, "x", true, .null], "b": JSON(UInt64.max), "c": JSON(0.25), "d": JSON(3.0)]
    #expect(Self.text(value) == #"{"a":[1,-2,"x",true,null],"b":18446744073709551615,"c":0.25,"d":3}"#)
    #expect(JSON(Double.nan) == .null && JSON(nil as String?) == .null && JSON("x" as String?) == "x")
  }
}
