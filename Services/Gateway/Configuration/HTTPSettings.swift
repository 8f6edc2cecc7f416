/// For whom HTTP is served.
public struct HTTPSettings: Hashable, Sendable {
  /// The hosts that requests may be for.
  public var hosts = HostPolicy.loopback(and: [])

  /// The defaults of a server on loopback.
  public init() {}
}
