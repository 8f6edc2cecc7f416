import ImageCodec

/// XMP packets (ISO 16684-1) that name the digital source type of an image.
public enum XMP {
  /// Keyword of the text in a PNG file.
  public static let keyword = "XML:com.adobe.xmp"
  /// What a segment of a JPEG file with XMP begins with.
  static let jpegHeader = Array("http://ns.adobe.com/xap/1.0/\0".utf8)

  /// The packet: UTF-8, read-only, without times and identifiers, so that the same image has the same bytes.
  public static func packet(_ origin: ImageOrigin) -> [UInt8] {
    let software = escaped("\(ImageMetadata.software) \(origin.softwareVersion)")
    let lines = [
      "<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>",
      "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\">",
      "<rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">",
      "<rdf:Description rdf:about=\"\" xmlns:xmp=\"http://ns.adobe.com/xap/1.0/\"",
      " xmlns:Iptc4xmpExt=\"http://iptc.org/std/Iptc4xmpExt/2008-02-29/\"",
      " xmp:CreatorTool=\"\(software)\"",
      " Iptc4xmpExt:DigitalSourceType=\"\(escaped(origin.sourceType.uri))\"/>",
      "</rdf:RDF>",
      "</x:xmpmeta>",
      "<?xpacket end=\"r\"?>",
    ]
    return Array(lines.joined(separator: "\n").utf8)
  }

  /// A text as the value of an attribute.
  private static func escaped(_ text: String) -> String {
    text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing("\"", with: "&quot;")
  }

  /// The file with a packet that names its origin.
  ///
  /// - Parameter file: one that the encoders of this software have written, without XMP.
  /// - Throws: ``ProvenanceError``.
  public static func adding(_ origin: ImageOrigin, to file: [UInt8]) throws(ProvenanceError) -> [UInt8] {
    try ImageContainer(file).inserting(.xmp(packet(origin))).file
  }
}
