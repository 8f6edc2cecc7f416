import AccessKeys
import ClusterCore
import Foundation
import GatewayDispatch
import HTTPClient
import Hummingbird
import Journal
import Logging
import Observability
import PostgreSQLJournal
import Scheduling
import ServiceLifecycle
import TraceExport
import Transport
import UnixSignals

/// A gateway from start to end.
public enum GatewayProcess {
  /// Serves until SIGTERM or SIGINT; then takes no more jobs, lets running ones end within the grace time, and returns.
  /// With a journal that other gateways share, it hands them over instead.
  ///
  /// - Parameters:
  ///   - configuration: where and how.
  ///   - metrics: what `/metrics` shows.
  ///   - logger: receives what happens, such as the addresses that it serves at.
  ///   - onRunning: called when requests are served, with the port.
  /// - Throws: `JournalError.fenced` when another gateway has taken the jobs over; a new start continues.
  public static func run(
    _ configuration: GatewayConfiguration, metrics: PrometheusRegistry, logger: Logger,
    onRunning: @escaping @Sendable (Int) async -> Void = { _ in }
  ) async throws {
    let provenance = try configuration.provenance.checked()
    let spans = configuration.tracing.bootstrap(service: "gateway", logger: logger)
    let enhancer = try configuration.enhancement.enhancer(logger: logger)
    var transport = RouterConfiguration(
      endpoints: configuration.endpoints, security: try configuration.routerSecurity())
    transport.logger = logger
    let router = try await RouterSocket(transport)
    let journal = try configuration.openJournal(logger: logger)
    defer { journal.close() }
    for warning in (journal as? PostgreSQLJournalStore)?.warnings ?? [] { logger.warning("\(warning)") }
    if !journal.isDurable { logger.warning("there is no journal: jobs and results are lost when this process ends") }
    let dispatcher = try await Dispatcher(
      configuration: configuration.dispatcher, provenance: provenance,
      reviewer: configuration.filter.filter(logger: logger), enhancer: enhancer, journal: journal, router: router,
      logger: logger)
    provenance.log(to: logger)
    let keyring = try configuration.readKeys(logger: logger)
    keyring?.follow { tenants in Task { await dispatcher.setTenants(tenants) } }
    if let keyring { await dispatcher.share(keyring) }
    // From here on, and to the end: without it SIGHUP would end the process.
    let hangups = await UnixSignalsSequence(trapping: .sighup)
    defer { withExtendedLifetime(hangups) {} }
    let server = GatewayServer.make(
      dispatcher: dispatcher, keyring: keyring, address: .hostname(configuration.host, port: configuration.port),
      limits: configuration.http, settings: configuration.server, metrics: metrics, logger: logger
    ) { channel in
      let port = channel.localAddress?.port ?? configuration.port
      let endpoints = await router.endpoints
      logger.info(
        "serving",
        metadata: [
          "http": "\(configuration.host):\(port)", "workers": "\(endpoints.joined(separator: " "))",
          "journal": "\(journal.location)",
          "keys": "\(keyring == nil ? "none: every client may connect" : configuration.apiKeysFile)",
        ])
      await onRunning(port)
    }
    let http = HTTPService(server: server, host: configuration.host, port: configuration.port)
    let drain = Drain(dispatcher: dispatcher, grace: configuration.shutdownGrace, logger: logger)
    let sender = WebhookSender(
      dispatcher: dispatcher, configuration: configuration.webhooks, settings: configuration.server, logger: logger)
    // Shut down from the last to the first: no more jobs, no more requests, no more notifications, no more workers.
    let services: [any Service] =
      (spans.map { [$0] } ?? []) + [dispatcher, sender, http, drain, KeyReload(hangups: hangups, keyring: keyring)]
    var group = ServiceGroupConfiguration(
      services: services, gracefulShutdownSignals: [.sigterm, .sigint], logger: logger)
    // The last resort, should something hang.
    group.maximumGracefulShutdownDuration = configuration.shutdownGrace + .seconds(15)
    try await ServiceGroup(configuration: group).run()
  }

  /// Whether a gateway with this configuration answers `GET /healthz` on this machine.
  public static func isHealthy(_ configuration: GatewayConfiguration) async -> Bool {
    let isEveryAddress = ["0.0.0.0", "::", ""].contains(configuration.host)
    let host = isEveryAddress ? "127.0.0.1" : configuration.host
    let client = HTTPClient(userAgent: "gateway", connectTimeout: .seconds(3), maxRedirections: 0)
    defer { client.shutDown() }
    let address = "\(host.contains(":") ? "[\(host)]" : host):\(configuration.port)"
    var request = HTTPClient.Request("http://\(address)/healthz", timeout: .seconds(3))
    request.headers = [("host", "localhost")]
    return (try? await client.execute(request).status) == 200
  }
}

/// Reads the API's keys again at every SIGHUP.
private struct KeyReload: Service {
  let hangups: UnixSignalsSequence
  let keyring: Keyring?

  func run() async {
    for await _ in hangups.cancelOnGracefulShutdown() { keyring?.reload() }
  }
}

/// Ends the jobs that a client waits for before the server ends: waits for them within the grace time, then cancels
/// them. The next run resumes the others. Where other gateways share the journal, all jobs are theirs at once, and the
/// clients that wait on a connection of this one get what the new owners make, within the grace time.
package struct Drain: Service {
  private let dispatcher: Dispatcher
  private let grace: Duration
  private let logger: Logger

  package init(dispatcher: Dispatcher, grace: Duration, logger: Logger) {
    self.dispatcher = dispatcher
    self.grace = grace
    self.logger = logger
  }

  package func run() async throws {
    try await gracefulShutdown()
    let reason = Status(.unavailable, "the gateway is shutting down")
    await dispatcher.close(because: reason)
    if await dispatcher.handOver() { return await serveHandedOver() }
    let images = await dispatcher.attachedImageCount
    if images > 0 {
      logger.info("waiting for images to finish", metadata: ["images": "\(images)", "grace": "\(grace)"])
    }
    await dispatcher.waitUntilDetached(atMost: grace)
    let left = await dispatcher.attachedImageCount
    if left > 0 { logger.warning("cancelling images that have not finished", metadata: ["images": "\(left)"]) }
    await dispatcher.cancelAttachedJobs(reason: reason)
  }

  private func serveHandedOver() async {
    let images = await dispatcher.attachedRemoteImageCount
    if images > 0 {
      logger.info(
        "waiting for images of other gateways that clients wait for here",
        metadata: ["images": "\(images)", "grace": "\(grace)"])
    }
    await dispatcher.waitUntilUnwatched(atMost: grace)
  }
}
