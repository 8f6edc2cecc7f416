/// For whom HTTP is served, and under which addresses.
public struct HTTPSettings: Hashable, Sendable {
  /// The hosts that requests may be for.
  public var hosts = HostPolicy.loopback(and: [])
  /// The web pages that may use the API from a browser, besides the gateway's own.
  public var origins = OriginPolicy.only([])
  /// The path below which requests come from a proxy that does not strip it.
  package var basePath = PathPrefix()
  /// The address at which clients see the server; nil: the one that their requests name.
  package var publicURL: PublicURL?
  /// Whether the server stands behind a proxy whose `X-Forwarded-` fields say what clients see.
  public var trustsForwarded = false
  /// Which addresses webhooks may have.
  public var webhooks = WebhookRules()
  /// Further names of models.
  public var aliases = ModelAliases()

  /// The defaults of a server on loopback.
  public init() {}
}
