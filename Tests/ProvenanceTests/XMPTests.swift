import Foundation
import FoundationXML
import ImageCodec
import Provenance
import Testing

/// Files as the encoders write them.
enum TestFiles {
  static let encodings = [
    ImageEncoding.png, ImageEncoding(format: .webp), ImageEncoding(format: .webp, quality: 60),
    ImageEncoding(format: .jpeg), ImageEncoding(format: .jpeg, quality: 60),
  ]

  static var metadata: ImageMetadata {
    ImageMetadata(
      model: "m", fingerprint: "f", prompt: "a cat 猫", negativePrompt: nil, trueCFGScale: 1, steps: 8, width: 33,
      height: 17, seed: 7, softwareVersion: "1.2")
  }

  static func image(channels: Int) -> RasterImage {
    RasterImage(
      width: 33, height: 17, channels: channels,
      pixels: (0..<33 * 17 * channels).map { UInt8(truncatingIfNeeded: $0 &* $0 &+ $0 / 7) })
  }

  static func file(_ encoding: ImageEncoding, channels: Int = 3, hasTexts: Bool = true) throws -> [UInt8] {
    try encoding.file(of: image(channels: channels), texts: hasTexts ? metadata.texts : [])
  }
}

@Suite("XMP") struct XMPTests {
  private let origin = ImageOrigin(TestFiles.metadata)

  /// The packet of a file, by the rules of the format.
  static func packet(of file: [UInt8]) throws -> [UInt8]? {
    let header = Array("http://ns.adobe.com/xap/1.0/\0".utf8), keyword = Array("XML:com.adobe.xmp\0\0\0\0\0".utf8)
    let packets = try ReadPiece.all(of: file).compactMap { piece -> [UInt8]? in
      switch piece.kind {
      case "iTXt" where piece.data.starts(with: keyword): Array(piece.data.dropFirst(keyword.count))
      case "APP1" where piece.data.starts(with: header): Array(piece.data.dropFirst(header.count))
      case "XMP ": piece.data
      default: nil
      }
    }
    #expect(packets.count <= 1)
    return packets.first
  }

  @Test(
    "the source type is in files of all formats", arguments: TestFiles.encodings,
    [(3, true), (4, true), (3, false), (4, false)])
  func formats(encoding: ImageEncoding, contents: (channels: Int, hasTexts: Bool)) throws {
    let (channels, hasTexts) = contents
    let plain = try TestFiles.file(encoding, channels: channels, hasTexts: hasTexts)
    let file = try XMP.adding(origin, to: plain)
    #expect(try XMP.adding(origin, to: plain) == file, "not the same bytes each time")
    let properties = try XMPReader.properties(of: try #require(try Self.packet(of: file)))
    #expect(
      properties["http://iptc.org/std/Iptc4xmpExt/2008-02-29/ DigitalSourceType"]
        == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia")
    #expect(properties["http://ns.adobe.com/xap/1.0/ CreatorTool"] == "qwen-image-cluster 1.2")
    // Nothing else has changed.
    #expect(try ImageFile.decode(file) == ImageFile.decode(plain))
    let texts = try ImageFile.texts(of: file).texts
    #expect(try ImageFile.texts(of: plain).texts == texts.filter { $0.keyword != XMP.keyword })
    if encoding.format == .png {
      // As libpng reads it.
      #expect(texts.first { $0.keyword == XMP.keyword }?.text == String(decoding: XMP.packet(origin), as: UTF8.self))
    }
    if encoding.format == .webp {
      let pieces = try ReadPiece.all(of: file)
      #expect(pieces.map(\.kind).first == "VP8X" && pieces.map(\.kind).last == "XMP ")
      #expect(
        pieces[0].data == [(hasTexts ? 0x08 : 0) | 0x04 | (channels == 4 ? 0x10 : 0), 0, 0, 0, 32, 0, 0, 16, 0, 0])
    }
  }

  @Test(
    "edits are composites; control images alone make none",
    arguments: [
      ([("image", "1")], DigitalSourceType.compositeWithTrainedAlgorithmicMedia),
      ([("image", "1"), ("mask", "2")], .compositeWithTrainedAlgorithmicMedia),
      ([("control", "1"), ("mask", "2")], .compositeWithTrainedAlgorithmicMedia),
      ([], .compositeWithTrainedAlgorithmicMedia), ([("control", "1")], .trainedAlgorithmicMedia),
    ])
  func sourceTypes(inputs: [(String, String)], type: DigitalSourceType) {
    let files = inputs.map { ImageSource.Input(role: $0.0, file: Array($0.1.utf8)) }
    var metadata = TestFiles.metadata
    #expect(ImageOrigin(metadata).sourceType == .trainedAlgorithmicMedia)
    metadata.source = ImageSource(pipeline: "edit", inputs: files)
    #expect(ImageOrigin(metadata).sourceType == type)
    #expect(ImageOrigin(metadata).ingredients.map(\.sha256) == files.map(\.sha256))
  }

  @Test("versions cannot break the XML")
  func escaping() throws {
    let origin = ImageOrigin(sourceType: .trainedAlgorithmicMedia, model: "m", softwareVersion: "1\"<&>'2")
    let properties = try XMPReader.properties(of: XMP.packet(origin))
    #expect(properties["http://ns.adobe.com/xap/1.0/ CreatorTool"] == "qwen-image-cluster 1\"<&>'2")
  }

  @Test("files that are none are errors, and cut ones do not trap", arguments: TestFiles.encodings)
  func damaged(encoding: ImageEncoding) throws {
    let file = try TestFiles.file(encoding)
    for count in 0..<min(file.count, 300) {
      _ = try? XMP.adding(origin, to: Array(file[..<count]))
      var other = file
      for value in [UInt8(0), 0x7f, 0xff] {
        other[count] = value
        _ = try? XMP.adding(origin, to: other)
      }
    }
    for bytes in [[], Array(file[..<8]), Array("GIF89a and more of it".utf8), [UInt8](repeating: 0, count: 100)] {
      #expect(throws: ProvenanceError.self) { try XMP.adding(origin, to: bytes) }
    }
    if encoding.format == .webp {
      #expect(throws: ProvenanceError.self) { try XMP.adding(origin, to: file + [0, 0]) }
    }
  }
}

/// The attributes of the RDF description in a packet, by namespace and name.
private final class XMPReader: NSObject, XMLParserDelegate {
  private var properties: [String: String] = [:]
  private var namespaces: [String: String] = [:]

  static func properties(of packet: [UInt8]) throws -> [String: String] {
    let reader = XMPReader()
    let parser = XMLParser(data: Data(packet))
    parser.shouldProcessNamespaces = true
    parser.shouldReportNamespacePrefixes = true
    parser.delegate = reader
    try #require(parser.parse(), "the packet is no XML: \(String(describing: parser.parserError))")
    return reader.properties
  }

  func parser(_ parser: XMLParser, didStartMappingPrefix prefix: String, toURI namespaceURI: String) {
    namespaces[prefix] = namespaceURI
  }

  func parser(
    _ parser: XMLParser, didStartElement elementName: String, namespaceURI: String?, qualifiedName qName: String?,
    attributes attributeDict: [String: String]
  ) {
    guard elementName == "Description", namespaceURI == "http://www.w3.org/1999/02/22-rdf-syntax-ns#" else { return }
    for (name, value) in attributeDict {
      let parts = name.split(separator: ":")
      if parts.count == 2, let namespace = namespaces[String(parts[0])] {
        properties["\(namespace) \(parts[1])"] = value
      }
    }
  }
}
