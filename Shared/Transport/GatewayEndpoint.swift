/// Where gateways are found: one place, or a name that may stand for several.
public struct GatewayEndpoint: Sendable, Hashable, CustomStringConvertible {
  /// As it was configured, such as `tcp://gateways:5555`.
  public let text: String
  /// The host name to be resolved; nil: ``text`` is one place, as an IP address or a path is.
  public let name: String?
  private let port: String

  /// The address that `text` writes.
  ///
  /// - Throws: `TransportError.invalidEndpoint`.
  public init(_ text: String) throws(TransportError) {
    let endpoint = try Endpoint(text)
    self.text = text
    guard endpoint.scheme == .tcp, let colon = endpoint.address.lastIndex(of: ":") else {
      (name, port) = (nil, "")
      return
    }
    let host = String(endpoint.address[..<colon])
    name = Self.isName(host) ? host : nil
    port = String(endpoint.address[endpoint.address.index(after: colon)...])
  }

  /// Checks that one may connect there.
  ///
  /// - Throws: `TransportError.plaintextRefused`.
  public func check(_ security: DealerSecurity) throws(TransportError) {
    if case .plaintext(allowRemote: false) = security, try !Endpoint(text).isLocal {
      throw .plaintextRefused(endpoint: text)
    }
  }

  /// The endpoint of one of the name's addresses, which is written in digits.
  public func endpoint(at address: String) -> String {
    address.contains(":") ? "tcp://[\(address)]:\(port)" : "tcp://\(address):\(port)"
  }

  /// ``text``.
  public var description: String { text }

  /// Whether a host is a name, not an IP address, a wildcard or one of ZeroMQ's pairs of addresses.
  private static func isName(_ host: String) -> Bool {
    let isPlain = host.utf8.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"):
        true
      default: false
      }
    }
    let isNumeric = host.utf8.allSatisfy {
      (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) || $0 == UInt8(ascii: ".")
    }
    return isPlain && !isNumeric
  }
}
