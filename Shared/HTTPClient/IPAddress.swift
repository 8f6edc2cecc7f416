import Foundation

/// An IPv4 or IPv6 address.
public struct IPAddress: Hashable, Sendable, CustomStringConvertible {
  /// 4 or 16, in the order of the network. An IPv4 address that is written as an IPv6 address is an IPv4 address.
  public let bytes: [UInt8]

  init?(bytes: [UInt8]) {
    let mapped: [UInt8] = Array(repeating: 0, count: 10) + [0xFF, 0xFF]
    switch bytes.count {
    case 4: self.bytes = bytes
    case 16: self.bytes = bytes.starts(with: mapped) ? Array(bytes.suffix(4)) : bytes
    default: return nil
    }
  }

  /// - Returns: nil when `text` is no address in the usual notation; names, ports, brackets and zones are none.
  public init?(_ text: String) {
    var v4 = in_addr(), v6 = in6_addr()
    if inet_pton(AF_INET, text, &v4) == 1 {
      self.init(bytes: withUnsafeBytes(of: v4) { Array($0) })
    } else if inet_pton(AF_INET6, text, &v6) == 1 {
      self.init(bytes: withUnsafeBytes(of: v6) { Array($0) })
    } else {
      return nil
    }
  }

  /// Of a socket's address.
  ///
  /// - Returns: nil when it is of another family, or cut off.
  init?(_ address: UnsafeRawBufferPointer) {
    guard address.count >= MemoryLayout<sa_family_t>.size else { return nil }
    switch Int32(address.loadUnaligned(as: sa_family_t.self)) {
    case AF_INET where address.count >= MemoryLayout<sockaddr_in>.size:
      let address = address.loadUnaligned(as: sockaddr_in.self)
      self.init(bytes: withUnsafeBytes(of: address.sin_addr) { Array($0) })
    case AF_INET6 where address.count >= MemoryLayout<sockaddr_in6>.size:
      let address = address.loadUnaligned(as: sockaddr_in6.self)
      self.init(bytes: withUnsafeBytes(of: address.sin6_addr) { Array($0) })
    default: return nil
    }
  }

  /// In the usual notation.
  public var description: String {
    var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
    inet_ntop(bytes.count == 4 ? AF_INET : AF_INET6, bytes, &text, socklen_t(text.count))
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Whether it is that of one machine on the public Internet, by IANA's registries of special addresses: not of this
  /// machine, a private network, a link, a group, or documents. An address that stands for an IPv4 address behind a
  /// translator is what that one is.
  public var isPublic: Bool {
    if bytes.count == 4 { return !Self.special.contains { $0.contains(self) } }
    if Self.translated.contains(self) { return IPAddress(bytes: Array(bytes.suffix(4)))?.isPublic ?? false }
    return Self.global.contains(self) && !Self.special.contains { $0.contains(self) }
  }

  /// NAT64 (RFC 6052).
  private static let translated = IPNetwork("64:ff9b::/96")!
  private static let global = IPNetwork("2000::/3")!
  private static let special = [
    // This network, private ones, shared ones of providers, this machine, the link.
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
    // Protocols, documents, relays, measurements, groups, reserved ones and broadcast.
    "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4",
    // Protocols such as Teredo, documents, 6to4.
    "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
  ].map { IPNetwork($0)! }
}

/// The addresses that begin with the same bits.
public struct IPNetwork: Hashable, Sendable {
  private let prefix: [UInt8]
  private let bitCount: Int

  /// - Returns: nil when `text` is no address, or address/bits, or when bits beyond these are not 0.
  public init?(_ text: String) {
    let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    guard let address = IPAddress(String(parts[0])) else { return nil }
    prefix = address.bytes
    let limit = prefix.count * 8
    if parts.count == 2 {
      guard parts[1].utf8.count <= 3, parts[1].allSatisfy(\.isNumber), let bits = Int(parts[1]), bits <= limit else {
        return nil
      }
      bitCount = bits
    } else {
      bitCount = limit
    }
    let isAligned = (bitCount..<limit).allSatisfy { prefix[$0 / 8] & (0x80 >> UInt8($0 % 8)) == 0 }
    guard isAligned else { return nil }
  }

  /// Whether the address is one of the network's.
  public func contains(_ address: IPAddress) -> Bool {
    guard address.bytes.count == prefix.count else { return false }
    let whole = bitCount / 8, rest = bitCount % 8
    guard address.bytes[..<whole] == prefix[..<whole] else { return false }
    return rest == 0 || (address.bytes[whole] ^ prefix[whole]) >> UInt8(8 - rest) == 0
  }
}

/// Which addresses a client may connect to: public ones, and those that are allowed by name or network.
public struct AddressPolicy: Hashable, Sendable {
  /// Hosts of any address, as they stand in addresses, in lower case; IPv6 addresses are in brackets.
  public var hosts: Set<String>
  /// Networks of any kind.
  public var networks: [IPNetwork]

  /// Public addresses, and these.
  public init(hosts: Set<String> = [], networks: [IPNetwork] = []) {
    self.hosts = hosts
    self.networks = networks
  }

  /// Whether a connection may be made to `address` for a request to `host`.
  public func admits(_ address: IPAddress, of host: String) -> Bool {
    address.isPublic || hosts.contains(host.lowercased()) || networks.contains { $0.contains(address) }
  }
}
