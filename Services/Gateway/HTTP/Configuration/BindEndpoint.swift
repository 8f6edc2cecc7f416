import Foundation

/// An endpoint at which the gateway listens for workers. ZeroMQ binds to addresses and interfaces; a host name is
/// nothing to it.
enum BindEndpoint {
  private static let scheme = "tcp://"

  /// The endpoint as ZeroMQ takes it: `localhost` becomes the address that it stands for.
  static func resolved(_ endpoint: String) -> String {
    guard host(of: endpoint)?.lowercased() == "localhost" else { return endpoint }
    return scheme + "127.0.0.1" + endpoint.dropFirst(scheme.count + "localhost".count)
  }

  /// What is wrong with the host of an endpoint; nil: nothing, or it has none.
  static func problem(with endpoint: String) -> String? {
    guard let host = host(of: endpoint), host != "*", Authority(host).map({ !isAddress($0.host) }) ?? true else {
      return nil
    }
    let interfaces = interfaces()
    guard !interfaces.contains(host) else { return nil }
    return
      "ZeroMQ listens at IP addresses and interfaces, not at host names: give an IP address of this machine, 0.0.0.0 "
      + "for all, or an interface (\(interfaces.sorted().joined(separator: ", ")))"
  }

  private static func host(of endpoint: String) -> String? {
    guard endpoint.hasPrefix(scheme), let colon = endpoint.lastIndex(of: ":") else { return nil }
    let start = endpoint.index(endpoint.startIndex, offsetBy: scheme.count)
    return colon > start ? String(endpoint[start..<colon]) : nil
  }

  private static func isAddress(_ host: String) -> Bool {
    var address = in_addr()
    // An address in brackets has been checked.
    return host.first == "[" || inet_pton(AF_INET, host, &address) == 1
  }

  /// Names of the network interfaces that are there.
  private static func interfaces() -> Set<String> {
    var first: UnsafeMutablePointer<ifaddrs>?
    guard getifaddrs(&first) == 0 else { return [] }
    defer { freeifaddrs(first) }
    return Set(
      sequence(first: first, next: { $0?.pointee.ifa_next }).compactMap {
        $0.map { String(cString: $0.pointee.ifa_name) }
      })
  }
}
