import Provenance
import Testing

@Suite("JUMBF") struct JUMBFTests {
  @Test("boxes have the structure of the standard")
  func structure() throws {
    let inner = try JUMBFBox(.cbor, "c2pa.a", cbor: .text("x"))
    let box = JUMBFBox(.store, "c2pa", [JUMBFBox(.assertionStore, "s", [inner, inner]), inner])
    let bytes = try box.encoded()
    // The description: a header of 8 bytes, a UUID of 16, toggles, a label and NUL.
    #expect(bytes.count == 8 + (8 + 16 + 1 + 5) + (8 + (8 + 16 + 1 + 2) + 2 * 50) + 50)
    let read = try ReadBox(bytes)
    #expect(read.kind == "c2pa" && read.label == "c2pa" && read.content == nil)
    #expect(read.boxes.map(\.label) == ["s", "c2pa.a"] && read.boxes.map(\.kind) == ["c2as", "cbor"])
    #expect(read["s"]?.boxes.count == 2)
    #expect(read["s", "c2pa.a"]?.content == [0x61, 0x78])
    #expect(try read["c2pa.a"]?.payload == inner.payload())
    #expect(try inner.encoded() == [0, 0, 0, 50] + Array("jumb".utf8) + inner.payload())
  }

  @Test("labels and boxes that are too long are errors")
  func limits() throws {
    let longest = String(repeating: "x", count: JUMBFBox.maxLabelBytes)
    #expect(try JUMBFBox(.claim, longest, cbor: .null).encoded().count == 8 + 8 + 16 + 1 + longest.count + 1 + 9)
    #expect(throws: ProvenanceError.self) { try JUMBFBox(.claim, longest + "x", cbor: .null).encoded() }
    let large = try JUMBFBox(.cbor, "x", cbor: .bytes([UInt8](repeating: 0, count: CBOR.maxBytes - 5)))
    let count = JUMBFBox.maxBytes / CBOR.maxBytes
    #expect(try JUMBFBox(.store, "x", [JUMBFBox](repeating: large, count: count - 1)).encoded().count > 0)
    #expect(throws: ProvenanceError.self) {
      try JUMBFBox(.store, "x", [JUMBFBox](repeating: large, count: count)).encoded()
    }
  }
}
