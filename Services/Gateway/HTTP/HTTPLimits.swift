import GatewayPipelines

/// What one client may use up.
public struct HTTPLimits: Hashable, Sendable {
  /// Connections at a time; more wait to be accepted.
  public var maxConnections = 1024
  /// Of them, connections of one address; more are closed.
  public var maxConnectionsPerAddress = 512
  /// The largest request body, with its images.
  public var maxBodyBytes = 64 << 20
  /// All bodies together that are being read, or whose images are being decoded; never less than ``maxBodyBytes``.
  /// About three times as much memory is needed for them.
  public var maxBodiesBytes = 256 << 20
  /// What images in requests may be.
  public var images = ImageIntake()
  /// All header fields of one request together.
  public var maxHeaderBytes = 16 << 10
  /// Header fields of one request.
  public var maxHeaderFields = 100
  /// A body that takes longer to arrive is refused.
  public var bodyTimeout = Duration.seconds(30)
  /// A connection on which no request begins, or whose request's header is not complete, for this long is closed.
  public var idleTimeout = Duration.seconds(60)
  /// A connection on which an answer is not read for this long is closed.
  public var writeTimeout = Duration.seconds(60)
  /// An event stream says this often that it is alive.
  public var keepAliveInterval = Duration.seconds(15)

  /// The defaults.
  public init() {}
}
