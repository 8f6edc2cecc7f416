import Provenance
import Testing

@Suite("CBOR") struct CBORTests {
  private static func bytes(_ hexadecimal: String) -> [UInt8] {
    let digits = Array(hexadecimal)
    return stride(from: 0, to: digits.count, by: 2).map { UInt8(String(digits[$0..<$0 + 2]), radix: 16)! }
  }

  /// Of the kinds of values that C2PA needs, those of RFC 8949, appendix A.
  @Test(
    "values are encoded as the standard's examples are",
    arguments: [
      (CBOR(0), "00"), (CBOR(1), "01"), (CBOR(10), "0a"), (CBOR(23), "17"), (CBOR(24), "1818"), (CBOR(25), "1819"),
      (CBOR(100), "1864"), (CBOR(1000), "1903e8"), (CBOR(1_000_000), "1a000f4240"),
      (CBOR(1_000_000_000_000), "1b000000e8d4a51000"), (.unsigned(.max), "1bffffffffffffffff"),
      (.negative(.max), "3bffffffffffffffff"), (CBOR(-1), "20"), (CBOR(-10), "29"), (CBOR(-100), "3863"),
      (CBOR(-1000), "3903e7"), (.bool(false), "f4"), (.bool(true), "f5"), (.null, "f6"),
      (.tagged(1, CBOR(1_363_896_240)), "c11a514b67b0"), (.tagged(23, .bytes([1, 2, 3, 4])), "d74401020304"),
      (.tagged(32, .text("http://www.example.com")), "d82076687474703a2f2f7777772e6578616d706c652e636f6d"),
      (.bytes([]), "40"), (.bytes([1, 2, 3, 4]), "4401020304"), (.text(""), "60"), (.text("a"), "6161"),
      (.text("IETF"), "6449455446"), (.text("\"\\"), "62225c"), (.text("\u{fc}"), "62c3bc"),
      (.text("\u{6c34}"), "63e6b0b4"), (.text("\u{10151}"), "64f0908591"), (.array([]), "80"),
      (.array([CBOR(1), CBOR(2), CBOR(3)]), "83010203"),
      (
        .array([CBOR(1), .array([CBOR(2), CBOR(3)]), .array([CBOR(4), CBOR(5)])]),
        "8301820203820405"
      ),
      (.array((1...25).map { CBOR($0) }), "98190102030405060708090a0b0c0d0e0f101112131415161718181819"),
      (.map([]), "a0"), (.map([.init(CBOR(1), CBOR(2)), .init(CBOR(3), CBOR(4))]), "a201020304"),
      (.object(["a": CBOR(1), "b": .array([CBOR(2), CBOR(3)])]), "a26161016162820203"),
      (.array([.text("a"), .object(["b": .text("c")])]), "826161a161626163"),
      (
        .object(["a": .text("A"), "b": .text("B"), "c": .text("C"), "d": .text("D"), "e": .text("E")]),
        "a56161614161626142616361436164614461656145"
      ),
    ])
  func examples(value: CBOR, encoding: String) throws {
    #expect(try value.encoded() == Self.bytes(encoding))
  }

  /// RFC 8949, section 4.2.1: the order of their bytes, so shorter texts come first.
  @Test("keys of a map are sorted")
  func order() throws {
    let keys: [CBOR] = [
      .bool(false), .array([CBOR(-1)]), .array([CBOR(100)]), .text("aa"), .text("z"), CBOR(-1), CBOR(100), CBOR(10),
    ]
    let map = CBOR.map(keys.map { CBOR.Entry($0, .null) })
    let expected = ["0a", "1864", "20", "617a", "626161", "811864", "8120", "f4"].map { $0 + "f6" }.joined()
    #expect(try map.encoded() == Self.bytes("a8" + expected))
    #expect(try CBOR.object(["b": nil, "a": CBOR(1)]).encoded() == Self.bytes("a1616101"))
  }

  @Test("what is too deep, too long or there twice is an error")
  func limits() throws {
    func nested(_ depth: Int) -> CBOR { (0..<depth).reduce(CBOR(0)) { value, _ in .array([value]) } }
    #expect(try nested(CBOR.maxDepth).encoded().count == CBOR.maxDepth + 1)
    #expect(throws: ProvenanceError.self) { try nested(CBOR.maxDepth + 1).encoded() }
    let head = 5
    let longest = CBOR.bytes([UInt8](repeating: 7, count: CBOR.maxBytes - head))
    #expect(try longest.encoded().count == CBOR.maxBytes)
    #expect(throws: ProvenanceError.tooLarge("bytes of CBOR", found: CBOR.maxBytes + 1, limit: CBOR.maxBytes)) {
      try CBOR.bytes([UInt8](repeating: 7, count: CBOR.maxBytes - head + 1)).encoded()
    }
    #expect(throws: ProvenanceError.repeatedKey) { try CBOR.object(["a": CBOR(1), "a": CBOR(2)]).encoded() }
  }
}
