import Foundation

/// Finds out which addresses a host name has.
public protocol NameResolver: Sendable {
  /// The addresses of `name`, in digits, without port and brackets, each once and in a fixed order.
  ///
  /// - Throws: `NameResolutionError`, also when the name has none.
  func addresses(of name: String) async throws(NameResolutionError) -> [String]
}

/// Why a name's addresses are not known.
public struct NameResolutionError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The name.
  public var name: String
  /// What the resolver says.
  public var reason: String
  /// Both.
  public var description: String { "\(name): \(reason)" }

  /// See the properties.
  public init(name: String, reason: String) {
    self.name = name
    self.reason = reason
  }
}

/// The system's resolver: `/etc/hosts`, DNS, whatever the system is set to.
///
/// A name's IPv4 addresses (A) are taken if it has any, else its IPv6 addresses (AAAA): where there are both, they are
/// two ways to the same machines.
public struct SystemNameResolver: NameResolver {
  /// The system's resolver.
  public init() {}

  /// Asks on a thread of its own: the system's resolver blocks, for half a minute when no server answers.
  public func addresses(of name: String) async throws(NameResolutionError) -> [String] {
    let result: Result<[String], NameResolutionError> = await withCheckedContinuation { continuation in
      let thread = Thread { continuation.resume(returning: Self.look(up: name)) }
      thread.name = "resolver"
      thread.stackSize = 1 << 19
      thread.start()
    }
    return try result.get()
  }

  private static func look(up name: String) -> Result<[String], NameResolutionError> {
    var hints = addrinfo()
    hints.ai_family = AF_UNSPEC
    #if canImport(Glibc)
      hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    #else
      hints.ai_socktype = SOCK_STREAM
    #endif
    var list: UnsafeMutablePointer<addrinfo>?
    let code = getaddrinfo(name, nil, &hints, &list)
    guard code == 0 else {
      return .failure(NameResolutionError(name: name, reason: String(cString: gai_strerror(code))))
    }
    defer { freeaddrinfo(list) }
    var found: [Int32: Set<String>] = [:]
    var entry = list
    while let info = entry?.pointee {
      if let text = text(of: info) { found[info.ai_family, default: []].insert(text) }
      entry = info.ai_next
    }
    guard let addresses = found[AF_INET] ?? found[AF_INET6] else {
      return .failure(NameResolutionError(name: name, reason: "it has no address"))
    }
    return .success(addresses.sorted())
  }

  private static func text(of info: addrinfo) -> String? {
    // An IPv6 address with the name of its interface.
    var host = [CChar](repeating: 0, count: 128)
    guard
      getnameinfo(info.ai_addr, info.ai_addrlen, &host, socklen_t(host.count), nil, 0, NI_NUMERICHOST) == 0
    else { return nil }
    return String(decoding: host.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}
