/// Which hosts requests may be for.
///
/// A web page whose name is made to mean 127.0.0.1 (DNS rebinding) is of the same origin as a server on loopback, as
/// far as the browser knows. What gives it away is the `Host` field: the browser writes the page's name there.
public enum HostPolicy: Hashable, Sendable {
  /// Any.
  case any
  /// Those that mean this machine whatever a name server says, and these names and addresses.
  case loopback(and: Set<String>)

  /// The policy of a server.
  ///
  /// - Parameters:
  ///   - bindHost: the address that it listens at. What other machines can reach is not narrowed down, unless `allowed`
  ///     says so.
  ///   - allowed: host names and addresses without a port, as `isHost` has them; `*`: any.
  ///   - publicHost: the host of the address at which clients see the server.
  public init(bindHost: String, allowed: [String], publicHost: String? = nil) {
    let bindHost = bindHost.contains(":") && bindHost.first != "[" ? "[\(bindHost)]" : bindHost
    let isLocal = Authority(bindHost)?.isLoopback ?? false
    self =
      allowed.contains("*") || allowed.isEmpty && !isLocal
      ? .any : .loopback(and: Set((allowed + [publicHost].compactMap { $0 }).compactMap { Authority($0)?.host }))
  }

  /// Whether `text` is a host name or an address without a port.
  static func isHost(_ text: String) -> Bool { Authority(text).map { $0.port == nil && text.last != ":" } ?? false }

  func admits(_ authority: Authority) -> Bool {
    switch self {
    case .any: true
    case .loopback(let others): authority.isLoopback || others.contains(authority.host)
    }
  }
}
