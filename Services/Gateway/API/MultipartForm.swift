/// A body of `multipart/form-data` (RFC 7578): named parts, some of them files.
public struct MultipartForm: Sendable {
  /// One part.
  public struct Part: Sendable, Equatable {
    /// The field's name.
    public var name: String
    /// The file's name, as the client has it; nil: the part is a field, no file. Nothing is derived from it.
    public var fileName: String?
    /// The contents.
    public var bytes: ArraySlice<UInt8>

    /// See the properties.
    public init(name: String, fileName: String? = nil, bytes: ArraySlice<UInt8>) {
      self.name = name
      self.fileName = fileName
      self.bytes = bytes
    }
  }

  /// The parts, in order.
  public var parts: [Part]

  /// A form of these parts.
  public init(parts: [Part]) { self.parts = parts }

  /// Most parts of a form.
  public static let maxParts = 128
  /// Most bytes of the header of a part, without the empty line at its end.
  public static let maxHeaderBytes = 8 << 10
  /// Most bytes of a boundary: RFC 2046, section 5.1.1.
  public static let maxBoundaryBytes = 70
  /// Most bytes of the name of a part.
  public static let maxNameBytes = 256

  /// The boundary in a content type; nil: it is another type.
  ///
  /// - Throws: an error of kind `malformedRequest` when the type is `multipart/form-data` without a boundary of 1 to 70
  ///   bytes.
  public static func boundary(of contentType: String) throws(APIError) -> String? {
    guard contentType.utf8.count <= maxHeaderBytes else { return nil }
    guard let field = HeaderValue(contentType.utf8) else {
      // A quotation that has no end may be in any type; only this one is read here.
      guard contentType.lowercased().hasPrefix("multipart/form-data") else { return nil }
      throw APIError(.malformedRequest, "the content type \"\(contentType.prefix(200))\" is not complete")
    }
    guard field.value == "multipart/form-data" else { return nil }
    guard let boundary = field["boundary"], !boundary.isEmpty else {
      throw APIError(
        .malformedRequest,
        "the content type multipart/form-data has no boundary: leave this header to the program that makes the form")
    }
    guard boundary.utf8.count <= maxBoundaryBytes else {
      throw APIError(
        .malformedRequest, "the boundary has \(boundary.utf8.count) bytes, the limit is \(maxBoundaryBytes)")
    }
    return boundary
  }

  /// Takes a body apart. The contents are not copied.
  ///
  /// - Throws: an error of kind `malformedRequest` when it is not such a form.
  public init(_ body: [UInt8], boundary: String) throws(APIError) {
    guard !body.isEmpty else { throw Self.malformed("it is empty") }
    let delimiter = Array("\r\n--\(boundary)".utf8)
    var place: Int
    if body.starts(with: delimiter.dropFirst(2)) {
      // There is no preamble, and so no line break before the first delimiter.
      place = delimiter.count - 2
    } else {
      place = Self.find(delimiter, in: body, from: 0)
      guard place >= 0 else { throw Self.malformed("its boundary is at the beginning of no line") }
      place += delimiter.count
    }
    parts = []
    while true {
      // White space may follow a boundary.
      while place < body.count, body[place] == 0x20 || body[place] == 0x09 { place += 1 }
      if body[place...].starts(with: [0x2D, 0x2D]) { return }
      guard body[place...].starts(with: [0x0D, 0x0A]) else {
        throw Self.malformed("boundary \(parts.count + 1) is followed neither by CR LF nor by --")
      }
      guard parts.count < Self.maxParts else { throw Self.malformed("it has more than \(Self.maxParts) parts") }
      let end = Self.find(delimiter, in: body, from: place)
      guard end >= 0 else { throw Self.malformed("part \(parts.count + 1) has no end: the last boundary is missing") }
      parts.append(try Self.part(body[place + 2..<max(end, place + 2)], number: parts.count + 1))
      place = end + delimiter.count
    }
  }

  private static func part(_ bytes: ArraySlice<UInt8>, number: Int) throws(APIError) -> Part {
    guard let end = headerEnd(bytes) else {
      throw malformed(
        bytes.count > maxHeaderBytes
          ? "the header of part \(number) has no end within \(maxHeaderBytes) bytes"
          : "the header of part \(number) does not end with an empty line")
    }
    var disposition: HeaderValue?
    for line in lines(bytes[bytes.startIndex..<end]) {
      guard let colon = line.firstIndex(of: UInt8(ascii: ":")) else {
        throw malformed("the header of part \(number) has a line without a colon")
      }
      let value = HeaderValue(line[(colon + 1)...])
      switch HeaderValue.text(line[..<colon]).lowercased() {
      case "content-disposition" where disposition == nil:
        guard let value else { throw malformed("the Content-Disposition of part \(number) is not complete") }
        disposition = value
      case "content-disposition": throw malformed("part \(number) has two Content-Disposition fields")
      case "content-transfer-encoding":
        guard let value, ["7bit", "8bit", "binary"].contains(value.value) else {
          throw malformed("part \(number) has a Content-Transfer-Encoding: send its bytes as they are")
        }
      default: break
      }
    }
    guard let disposition else { throw malformed("part \(number) has no Content-Disposition") }
    guard disposition.value == "form-data" else {
      throw malformed("the Content-Disposition of part \(number) is not form-data")
    }
    guard let name = disposition["name"], !name.isEmpty else { throw malformed("part \(number) has no name") }
    guard name.utf8.count <= maxNameBytes else {
      throw malformed("the name of part \(number) has \(name.utf8.count) bytes, the limit is \(maxNameBytes)")
    }
    // Of a part without a header, the first line is the empty one.
    let contents = end == bytes.startIndex ? end + 2 : end + 4
    return Part(name: name, fileName: disposition["filename"] ?? disposition["filename*"], bytes: bytes[contents...])
  }

  /// Where the header's last line ends.
  private static func headerEnd(_ bytes: ArraySlice<UInt8>) -> Int? {
    if bytes.starts(with: [0x0D, 0x0A]) { return bytes.startIndex }
    let last = min(bytes.endIndex - 4, bytes.startIndex + maxHeaderBytes)
    var place = bytes.startIndex
    while place <= last {
      if bytes[place] == 0x0D, bytes[place...].starts(with: [0x0D, 0x0A, 0x0D, 0x0A]) { return place }
      place += 1
    }
    return nil
  }

  /// Lines between CR LF; a header has few of them.
  private static func lines(_ header: ArraySlice<UInt8>) -> [ArraySlice<UInt8>] {
    var lines: [ArraySlice<UInt8>] = [], start = header.startIndex, place = start
    while place + 1 < header.endIndex {
      if header[place] == 0x0D, header[place + 1] == 0x0A {
        lines.append(header[start..<place])
        start = place + 2
        place = start
      } else {
        place += 1
      }
    }
    if start < header.endIndex { lines.append(header[start...]) }
    return lines
  }

  /// Where `pattern` begins, at or after `start`; -1: nowhere. Its first byte is nowhere else in it, so that no byte is
  /// compared more than twice.
  private static func find(_ pattern: [UInt8], in bytes: [UInt8], from start: Int) -> Int {
    guard pattern.count <= bytes.count - start else { return -1 }
    return bytes.withUnsafeBufferPointer { bytes in
      pattern.withUnsafeBufferPointer { pattern in
        let last = bytes.count - pattern.count
        var place = start
        while place <= last {
          if bytes[place] == pattern[0] {
            var length = 1
            while length < pattern.count, bytes[place + length] == pattern[length] { length += 1 }
            if length == pattern.count { return place }
          }
          place += 1
        }
        return -1
      }
    }
  }

  private static func malformed(_ reason: String) -> APIError {
    APIError(.malformedRequest, "the body is no multipart/form-data: \(reason)")
  }
}

/// The value of a header field with its parameters: `form-data; name="image"; filename="a;b.png"`.
struct HeaderValue {
  /// In small letters.
  let value: String
  private var parameters: [String: String] = [:]

  /// Reads tokens and quoted strings, in which `\"` is a quotation mark and `\\` a backslash; nil: a quoted string has
  /// no end, or something follows it. Of two parameters with one name the first counts.
  init?(_ field: some Collection<UInt8>) {
    var bytes = Array(field)[...]
    value = Self.text(bytes.prefix { $0 != UInt8(ascii: ";") }).lowercased()
    while let semicolon = bytes.firstIndex(of: UInt8(ascii: ";")) {
      bytes = bytes[(semicolon + 1)...]
      let name = bytes.prefix { $0 != UInt8(ascii: "=") && $0 != UInt8(ascii: ";") }
      bytes = bytes[name.endIndex...]
      guard bytes.first == UInt8(ascii: "=") else { continue }
      bytes = bytes.dropFirst().drop { $0 == 0x20 || $0 == 0x09 }
      let text: String
      if bytes.first == UInt8(ascii: "\"") {
        guard let quoted = Self.takeQuoted(&bytes) else { return nil }
        text = quoted
      } else {
        let token = bytes.prefix { $0 != UInt8(ascii: ";") }
        bytes = bytes[token.endIndex...]
        text = Self.text(token)
      }
      let key = Self.text(name).lowercased()
      if parameters[key] == nil { parameters[key] = text }
    }
  }

  /// The parameter of that name, which is in small letters.
  subscript(_ name: String) -> String? { parameters[name] }

  private static func takeQuoted(_ bytes: inout ArraySlice<UInt8>) -> String? {
    var text: [UInt8] = [], place = bytes.startIndex + 1
    while place < bytes.endIndex, bytes[place] != UInt8(ascii: "\"") {
      let next = place + 1
      if bytes[place] == UInt8(ascii: "\\"), next < bytes.endIndex,
        bytes[next] == UInt8(ascii: "\"") || bytes[next] == UInt8(ascii: "\\")
      {
        place = next
      }
      text.append(bytes[place])
      place += 1
    }
    guard place < bytes.endIndex else { return nil }
    bytes = bytes[(place + 1)...].drop { $0 == 0x20 || $0 == 0x09 }
    guard bytes.first ?? UInt8(ascii: ";") == UInt8(ascii: ";") else { return nil }
    return String(decoding: text, as: UTF8.self)
  }

  /// Without white space around it.
  static func text(_ bytes: ArraySlice<UInt8>) -> String {
    let isSpace = { (byte: UInt8) in
      byte == 0x20 || byte == 0x09
    }
    let start = bytes.firstIndex { !isSpace($0) } ?? bytes.endIndex
    let end = bytes.lastIndex { !isSpace($0) }.map { $0 + 1 } ?? bytes.endIndex
    return String(decoding: bytes[start..<end], as: UTF8.self)
  }
}
