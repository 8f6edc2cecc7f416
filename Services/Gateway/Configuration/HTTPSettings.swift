/// For whom HTTP is served.
public struct HTTPSettings: Hashable, Sendable {
  /// The hosts that requests may be for.
  public var hosts = HostPolicy.loopback(and: [])
  /// The web pages that may use the API from a browser, besides the gateway's own.
  public var origins = OriginPolicy.only([])

  /// The defaults of a server on loopback.
  public init() {}
}
