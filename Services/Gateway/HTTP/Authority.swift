import Foundation

/// A host and a port, as the `Host` field and absolute request targets have them: RFC 9110, section 7.2.
package struct Authority: Hashable, Sendable {
  /// The longest name that DNS allows.
  private static let maxHostBytes = 255

  /// A name in lower case without the root's dot, an IPv4 address, or an IPv6 address in brackets.
  package let host: String
  /// nil: the scheme's.
  package let port: Int?

  /// - Returns: nil for what is neither a host name nor an IP address, with or without a port: user names, blanks,
  ///   lists, encodings.
  package init?(_ text: some StringProtocol) {
    let text = text.lowercased()
    let end =
      text.first == "["
      ? text.firstIndex(of: "]").map { text.index(after: $0) } : text.firstIndex(of: ":") ?? text.endIndex
    guard let end, text.utf8.count <= Self.maxHostBytes + 6 else { return nil }
    var host = text[..<end]
    if host.first == "[" {
      guard Self.ipv6Bytes(host.dropFirst().dropLast()) != nil else { return nil }
    } else {
      if host.last == "." { host = host.dropLast() }
      guard (1...Self.maxHostBytes).contains(host.utf8.count), host.utf8.allSatisfy(Self.isNameByte), host.first != ".",
        !host.contains("..")
      else { return nil }
    }
    self.host = String(host)
    switch text[end...] {
    case "", ":": port = nil
    case let rest:
      guard (2...6).contains(rest.utf8.count), rest.utf8.dropFirst().allSatisfy({ (0x30...0x39).contains($0) }),
        let number = UInt16(rest.dropFirst())
      else { return nil }
      port = Int(number)
    }
  }

  /// Whether it names this machine, without a look at any name server's word: `localhost`, 127.0.0.0/8 and `::1`.
  package var isLoopback: Bool {
    if host == "localhost" { return true }
    if let bytes = Self.ipv6Bytes(host.dropFirst().dropLast()), host.first == "[" {
      // ::1, or an IPv4 address mapped into IPv6.
      let isMapped = bytes[..<10].allSatisfy { $0 == 0 } && bytes[10...11].allSatisfy { $0 == 0xFF }
      return bytes[..<15].allSatisfy { $0 == 0 } && bytes[15] == 1 || isMapped && bytes[12] == 127
    }
    var address = in_addr()
    return inet_pton(AF_INET, host, &address) == 1 && UInt32(bigEndian: address.s_addr) >> 24 == 127
  }

  private static func ipv6Bytes(_ text: Substring) -> [UInt8]? {
    var address = in6_addr()
    guard inet_pton(AF_INET6, String(text), &address) == 1 else { return nil }
    return withUnsafeBytes(of: address) { Array($0) }
  }

  private static func isNameByte(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
    case UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"): true
    default: false
    }
  }
}

extension Authority: CustomStringConvertible {
  /// As it stands in a URL.
  package var description: String { host + (port.map { ":\($0)" } ?? "") }
}
