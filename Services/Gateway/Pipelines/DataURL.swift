import GatewayAPI

/// Images in texts: data URLs with base64 (RFC 2397), or bare base64, which many clients of other servers send.
package enum DataURL {
  /// Bytes of a data URL before its comma: a media type with some parameters.
  private static let maxHeaderBytes = 256

  /// The bytes that `text` stands for. Base64 may have either alphabet of RFC 4648, line breaks, and no padding.
  ///
  /// - Parameters:
  ///   - text: the value of a field.
  ///   - field: its name, for errors.
  ///   - maxBytes: of the result.
  /// - Throws: an error that says what is wrong: an address, another encoding, too long, a character of no alphabet.
  package static func bytes(of text: String, field: String, maxBytes: Int) throws(APIError) -> [UInt8] {
    let start = text.utf8.prefix(maxHeaderBytes)
    let scheme = start.prefix { isSchemeByte($0) }
    let hasScheme = !scheme.isEmpty && start.dropFirst(scheme.count).first == UInt8(ascii: ":")
    var encoded = text.utf8[...]
    if hasScheme {
      guard String(decoding: scheme, as: UTF8.self).lowercased() == "data" else {
        throw APIError(
          .unsupportedValue, "\(field) is an address; this server fetches nothing: send the image as a data URL",
          param: field)
      }
      guard let comma = start.firstIndex(of: UInt8(ascii: ",")),
        String(decoding: start[..<comma], as: UTF8.self).lowercased().hasSuffix(";base64")
      else {
        throw APIError(.invalidValue, "\(field) must be a data URL with base64: data:image/png;base64,…", param: field)
      }
      encoded = text.utf8[text.utf8.index(after: comma)...]
    }
    // Line breaks may make it longer: the exact number of bytes is compared below.
    guard encoded.count / 4 * 3 <= maxBytes + maxBytes / 8 + 1024 else { throw tooLong(field, encoded.count, maxBytes) }
    let bytes = try decode(encoded, field)
    guard bytes.count <= maxBytes else { throw tooLong(field, encoded.count, maxBytes) }
    return bytes
  }

  /// Whether a part of a form without a file's name is a text that stands for an image, and not the image.
  static func isText(_ bytes: ArraySlice<UInt8>) -> Bool {
    let start = bytes.prefix(maxHeaderBytes), scheme = start.prefix { isSchemeByte($0) }
    let rest = start.dropFirst(scheme.count)
    return String(decoding: scheme, as: UTF8.self).lowercased() == "data"
      ? rest.first == UInt8(ascii: ":") : !scheme.isEmpty && rest.starts(with: "://".utf8)
  }

  private static func isSchemeByte(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "+"), UInt8(ascii: "-"), UInt8(ascii: "."):
      true
    default: false
    }
  }

  private static func tooLong(_ field: String, _ count: Int, _ maxBytes: Int) -> APIError {
    APIError(.bodyTooLarge, "\(field) has about \(count / 4 * 3) bytes, the limit is \(maxBytes)", param: field)
  }

  private static func decode(_ text: Substring.UTF8View, _ field: String) throws(APIError) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(text.count / 4 * 3 + 3)
    var bits: UInt32 = 0, digits = 0, padding = 0
    for (place, byte) in text.enumerated() {
      let value = table[Int(byte)]
      if value < 64, padding == 0 {
        bits = bits << 6 | UInt32(value)
        digits += 1
        if digits % 4 == 0 {
          bytes.append(UInt8(truncatingIfNeeded: bits >> 16))
          bytes.append(UInt8(truncatingIfNeeded: bits >> 8))
          bytes.append(UInt8(truncatingIfNeeded: bits))
        }
      } else if byte == UInt8(ascii: "="), digits % 4 >= 2, digits % 4 + padding < 4 {
        padding += 1
      } else if value != whiteSpace {
        let found = byte == UInt8(ascii: "%") ? "\"%\": do not percent-encode it" : "the byte \(byte)"
        throw APIError(.invalidValue, "\(field) is no base64: after \(place) bytes comes \(found)", param: field)
      }
    }
    switch digits % 4 {
    case 2: bytes.append(UInt8(truncatingIfNeeded: bits >> 4))
    case 3:
      bytes.append(UInt8(truncatingIfNeeded: bits >> 10))
      bytes.append(UInt8(truncatingIfNeeded: bits >> 2))
    case 1: throw APIError(.invalidValue, "\(field) is no base64: its end is missing", param: field)
    default: break
    }
    guard !bytes.isEmpty else { throw APIError(.invalidValue, "\(field) is no base64: it is empty", param: field) }
    return bytes
  }

  private static let whiteSpace: UInt8 = 64
  /// The value of each byte: below 64 of a digit, 64 for white space, 255 for others.
  private static let table: [UInt8] = {
    var table = [UInt8](repeating: 255, count: 256)
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for (value, digit) in digits.utf8.enumerated() { table[Int(digit)] = UInt8(value) }
    table[Int(UInt8(ascii: "-"))] = 62
    table[Int(UInt8(ascii: "_"))] = 63
    for space in " \t\r\n".utf8 { table[Int(space)] = whiteSpace }
    return table
  }()
}
