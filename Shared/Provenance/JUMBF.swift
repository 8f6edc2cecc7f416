/// Boxes of JUMBF (ISO/IEC 19566-5), as C2PA uses them.
package struct JUMBFBox: Hashable, Sendable {
  /// What a superbox contains: a UUID that begins with four letters, and ends with the same bytes for all of them.
  package enum Kind: String, CaseIterable, Sendable {
    /// All manifests of a file.
    case store = "c2pa"
    /// A manifest.
    case manifest = "c2ma"
    case assertionStore = "c2as"
    case claim = "c2cl"
    case signature = "c2cs"
    /// A CBOR value.
    case cbor = "cbor"

    /// The 16 bytes.
    var uuid: [UInt8] {
      Array(rawValue.utf8) + [0x00, 0x11, 0x00, 0x10, 0x80, 0x00, 0x00, 0xaa, 0x00, 0x38, 0x9b, 0x71]
    }
  }

  /// Longest label in bytes.
  package static let maxLabelBytes = 256
  /// Longest box in bytes.
  package static let maxBytes = 4 << 20

  /// What the box contains.
  var kind: Kind
  /// Its name within the superbox around it.
  var label: String
  /// The boxes inside it.
  var contents: Contents

  /// What is inside a superbox besides its description.
  package enum Contents: Hashable, Sendable {
    /// Further superboxes.
    case boxes([JUMBFBox])
    /// One content box with the bytes of a CBOR value.
    case cbor([UInt8])
  }

  package init(_ kind: Kind, _ label: String, _ boxes: [JUMBFBox]) {
    (self.kind, self.label, contents) = (kind, label, .boxes(boxes))
  }

  package init(_ kind: Kind, _ label: String, cbor: CBOR) throws(ProvenanceError) {
    (self.kind, self.label, contents) = (kind, label, .cbor(try cbor.encoded()))
  }

  /// The bytes of the superbox, with its header.
  package func encoded() throws(ProvenanceError) -> [UInt8] { try Self.box("jumb", payload()) }

  /// What is in the superbox: the bytes that a hashed URI is a digest of.
  package func payload() throws(ProvenanceError) -> [UInt8] {
    let name = Array(label.utf8)
    guard name.count <= Self.maxLabelBytes else {
      throw .tooLarge("bytes of a JUMBF label", found: name.count, limit: Self.maxLabelBytes)
    }
    precondition(!name.contains(0), "a label with NUL")
    // The box has a label, and may be asked for by it.
    let isRequestableWithLabel: UInt8 = 0x03
    var bytes = try Self.box("jumd", kind.uuid + [isRequestableWithLabel] + name + [0])
    switch contents {
    case .boxes(let boxes): for box in boxes { bytes += try box.encoded() }
    case .cbor(let value): bytes += try Self.box("cbor", value)
    }
    return bytes
  }

  private static func box(_ type: String, _ payload: [UInt8]) throws(ProvenanceError) -> [UInt8] {
    let count = payload.count + 8
    guard count <= maxBytes, let length = UInt32(exactly: count) else {
      throw .tooLarge("bytes of a JUMBF box", found: count, limit: maxBytes)
    }
    return length.bigEndianBytes + Array(type.utf8) + payload
  }
}
