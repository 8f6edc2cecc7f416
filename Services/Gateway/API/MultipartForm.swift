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
  /// Most bytes of the header of a part.
  public static let maxHeaderBytes = 8 << 10

  /// The boundary in a content type; nil: it is another type, or has none.
  public static func boundary(of contentType: String) -> String? {
    var parameters = contentType.split(separator: ";").map { $0.trimmingSpaces() }[...]
    guard parameters.popFirst()?.lowercased() == "multipart/form-data" else { return nil }
    for parameter in parameters where parameter.lowercased().hasPrefix("boundary=") {
      var value = parameter.dropFirst("boundary=".count)
      if value.count > 1, value.first == "\"", value.last == "\"" { value = value.dropFirst().dropLast() }
      return (1...70).contains(value.utf8.count) ? String(value) : nil
    }
    return nil
  }

  /// Takes a body apart. The contents are not copied.
  ///
  /// - Throws: an error of kind `malformedRequest` when it is not such a form.
  public init(_ body: [UInt8], boundary: String) throws(APIError) {
    let delimiter = Array("\r\n--\(boundary)".utf8)
    // The first delimiter has no line break before it when there is no preamble.
    var place =
      body.starts(with: delimiter.dropFirst(2)) ? delimiter.count - 2 : Self.find(delimiter, in: body, from: 0)
    guard place >= 0 else { throw Self.malformed("its boundary is nowhere in it") }
    if !body.starts(with: delimiter.dropFirst(2)) { place += delimiter.count }
    parts = []
    while true {
      // White space may follow a boundary.
      while place < body.count, body[place] == 0x20 || body[place] == 0x09 { place += 1 }
      if body[place...].starts(with: [0x2D, 0x2D]) { return }
      guard body[place...].starts(with: [0x0D, 0x0A]) else { throw Self.malformed("a boundary does not end its line") }
      guard parts.count < Self.maxParts else { throw Self.malformed("it has more than \(Self.maxParts) parts") }
      let end = Self.find(delimiter, in: body, from: place)
      guard end >= 0 else { throw Self.malformed("part \(parts.count + 1) has no end") }
      parts.append(try Self.part(body[place + 2..<max(end, place + 2)], number: parts.count + 1))
      place = end + delimiter.count
    }
  }

  private static func part(_ bytes: ArraySlice<UInt8>, number: Int) throws(APIError) -> Part {
    var header: [String] = [], place = bytes.startIndex
    while true {
      guard place - bytes.startIndex <= maxHeaderBytes, let end = lineEnd(bytes, place) else {
        throw malformed("the header of part \(number) has no end within \(maxHeaderBytes) bytes")
      }
      let line = bytes[place..<end]
      place = end + 2
      if line.isEmpty { break }
      header.append(String(decoding: line, as: UTF8.self))
    }
    guard let disposition = header.first(where: { $0.lowercased().hasPrefix("content-disposition:") }),
      let name = parameter("name", of: disposition)
    else { throw malformed("part \(number) has no name") }
    guard name.utf8.count <= 256 else { throw malformed("the name of part \(number) has more than 256 bytes") }
    return Part(name: name, fileName: parameter("filename", of: disposition), bytes: bytes[place...])
  }

  /// Where the line break is that ends the line from `start`.
  private static func lineEnd(_ bytes: ArraySlice<UInt8>, _ start: Int) -> Int? {
    var place = start
    let limit = min(bytes.endIndex - 1, start + maxHeaderBytes)
    while place < limit {
      if bytes[place] == 0x0D, bytes[place + 1] == 0x0A { return place }
      place += 1
    }
    return nil
  }

  /// A parameter of a header field: quoted, with `\"` for a quotation mark, or a token.
  private static func parameter(_ name: String, of field: String) -> String? {
    var rest = field[...]
    while let semicolon = rest.firstIndex(of: ";") {
      rest = rest[rest.index(after: semicolon)...].trimmingSpaces()
      guard rest.lowercased().hasPrefix("\(name)=") else { continue }
      rest = rest.dropFirst(name.count + 1)
      guard rest.first == "\"" else { return String(rest.prefix { $0 != ";" }.trimmingSpaces()) }
      var value = "", isEscaped = false
      for character in rest.dropFirst() {
        if isEscaped {
          value.append(character)
          isEscaped = false
        } else if character == "\\" {
          isEscaped = true
        } else if character == "\"" {
          return value
        } else {
          value.append(character)
        }
      }
      return nil
    }
    return nil
  }

  /// Where `pattern` begins, at or after `start`; -1: nowhere.
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

extension StringProtocol {
  fileprivate func trimmingSpaces() -> SubSequence {
    guard let start = firstIndex(where: { $0 != " " && $0 != "\t" }),
      let end = lastIndex(where: { $0 != " " && $0 != "\t" })
    else { return self[endIndex..<endIndex] }
    return self[start...end]
  }
}
