import GatewayDispatch
import HTTPTypes
import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import Observability
import Tracing

/// The HTTP server of a gateway.
public enum GatewayServer {
  /// Makes the server; `main` and the tests run the same one.
  ///
  /// - Parameters:
  ///   - dispatcher: who does the work.
  ///   - keyring: the API keys that are accepted; nil: requests need none.
  ///   - address: where to listen.
  ///   - limits: what one client may use up.
  ///   - settings: for whom it serves.
  ///   - metrics: what `/metrics` shows.
  ///   - logger: where requests are noted.
  ///   - onServerRunning: called when it listens, with the listening channel.
  public static func make(
    dispatcher: Dispatcher, keyring: Keyring? = nil, address: BindAddress, limits: HTTPLimits,
    settings: HTTPSettings = HTTPSettings(),
    metrics: PrometheusRegistry, logger: Logger,
    onServerRunning: @escaping @Sendable (any Channel) async -> Void = { _ in }
  ) -> some ApplicationProtocol {
    let decoder = HTTP1Channel.Configuration.DecoderConfiguration(
      maxHeaderFieldSize: limits.maxHeaderBytes, maxHeaderListSize: limits.maxHeaderBytes,
      maxHeaderFieldCount: limits.maxHeaderFields)
    let counter = ConnectionCounter(limit: limits.maxConnectionsPerAddress)
    let channel = HTTP1Channel.Configuration(
      additionalChannelHandlers: [
        ConnectionGuard(counter: counter, limits: limits), ParserErrorHandler(), PresenceHandler(),
      ],
      idleTimeout: TimeAmount(limits.idleTimeout), httpDecoderConfiguration: decoder)
    return Application(
      router: router(dispatcher: dispatcher, keyring: keyring, limits: limits, settings: settings, metrics: metrics),
      server: HTTPServerBuilder {
        GatewayChannel(http1: HTTP1Channel(responder: $0, configuration: channel), basePath: settings.basePath)
      },
      configuration: ApplicationConfiguration(
        address: address, serverName: "qwen-image-gateway",
        availableConnectionsDelegate: MaximumAvailableConnections(limits.maxConnections, logger: logger)),
      onServerRunning: onServerRunning, logger: logger)
  }

  /// Every method and path that is served, paths as the router has them: `/v1/jobs/{id}`.
  package static func routes(dispatcher: Dispatcher) -> [(method: HTTPRequest.Method, path: String)] {
    router(
      dispatcher: dispatcher, keyring: nil, limits: HTTPLimits(), settings: HTTPSettings(),
      metrics: PrometheusRegistry()
    ).routes
      .map { ($0.method, $0.path.description) }
  }

  private static func router(
    dispatcher: Dispatcher, keyring: Keyring?, limits: HTTPLimits, settings: HTTPSettings, metrics: PrometheusRegistry
  ) -> Router<GatewayContext> {
    GatewayMetrics.describe(in: metrics)
    GatewayMetrics.noteVersion()
    let submission = Submission(
      dispatcher: dispatcher, limits: limits, aliases: settings.aliases, webhooks: settings.webhooks)
    let webUI = WebUIRoutes(dispatcher: dispatcher, submission: submission, origins: settings.origins)
    let addRoutes = { (router: Router<GatewayContext>) in
      ImagesRoutes(submission: submission).add(to: router)
      JobsRoutes(dispatcher: dispatcher, submission: submission).add(to: router)
      let bulk = BulkRoutes(dispatcher: dispatcher, submission: submission, keyring: keyring)
      bulk.add(to: router)
      TemplatesRoutes(bulk: bulk).add(to: router)
      webUI.add(to: router)
      ModelsRoutes(dispatcher: dispatcher, aliases: settings.aliases).add(to: router)
      WorkersRoutes(dispatcher: dispatcher).add(to: router)
      HealthRoutes(dispatcher: dispatcher).add(to: router)
      MetricsRoutes(registry: metrics).add(to: router)
      OpenAPIRoutes().add(to: router)
      PageRoutes(basePath: settings.basePath.text).add(to: router)
    }
    // Middleware acts on routes that are added after it, and one of them has to know all routes.
    let bare = Router(context: GatewayContext.self)
    addRoutes(bare)
    let router = Router(context: GatewayContext.self)
    router.add(middleware: TracingMiddleware(tracer: InstrumentationSystem.activeTracer))
    router.add(middleware: CrossOriginMiddleware(policy: settings.origins))
    router.add(middleware: LinksMiddleware(settings: settings))
    router.add(middleware: ErrorMiddleware(hints: RouteHints(bare.routes.map { $0.path.description })))
    router.add(middleware: RequestHeadMiddleware(hosts: settings.hosts))
    router.add(middleware: AccessMiddleware(keyring: keyring, basePath: settings.basePath.text))
    addRoutes(router)
    return router
  }
}
