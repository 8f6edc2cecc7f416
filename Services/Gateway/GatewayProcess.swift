import Hummingbird
import Logging
import NIOCore
import NIOPosix
import Observability
import Scheduling
import ServiceLifecycle
import Transport

/// A gateway from start to end.
public enum GatewayProcess {
  /// Serves until SIGTERM or SIGINT; then takes no more jobs, lets running ones end within the grace time, and returns.
  ///
  /// - Parameters:
  ///   - configuration: where and how.
  ///   - metrics: what `/metrics` shows.
  ///   - logger: where it is told.
  ///   - onRunning: called when requests are served, with the port.
  public static func run(
    _ configuration: GatewayConfiguration, metrics: PrometheusRegistry, logger: Logger,
    onRunning: @escaping @Sendable (Int) async -> Void = { _ in }
  ) async throws {
    var transport = RouterConfiguration(endpoints: configuration.endpoints, security: try configuration.routerSecurity())
    transport.logger = logger
    let router = try await RouterSocket(transport)
    let dispatcher = Dispatcher(configuration: configuration.dispatcher, router: router, logger: logger)
    let server = GatewayServer.make(
      dispatcher: dispatcher, address: .hostname(configuration.host, port: configuration.port), limits: configuration.http,
      metrics: metrics, logger: logger
    ) { channel in
      let port = channel.localAddress?.port ?? configuration.port
      let endpoints = await router.endpoints
      logger.info("serving", metadata: ["http": "\(configuration.host):\(port)", "workers": "\(endpoints.joined(separator: " "))"])
      await onRunning(port)
    }
    let drain = Drain(dispatcher: dispatcher, grace: configuration.shutdownGrace, logger: logger)
    // Shut down from the last to the first: no more jobs, no more requests, no more workers.
    let services: [any Service] = [dispatcher, server, drain]
    var group = ServiceGroupConfiguration(services: services, gracefulShutdownSignals: [.sigterm, .sigint], logger: logger)
    // The last resort, should something hang.
    group.maximumGracefulShutdownDuration = configuration.shutdownGrace + .seconds(15)
    try await ServiceGroup(configuration: group).run()
  }

  /// Whether a gateway with this configuration answers `GET /healthz` on this machine.
  public static func isHealthy(_ configuration: GatewayConfiguration) async -> Bool {
    let host = ["0.0.0.0", "::", ""].contains(configuration.host) ? "127.0.0.1" : configuration.host
    let request = ByteBuffer(string: "GET /healthz HTTP/1.1\r\nhost: \(host)\r\nconnection: close\r\n\r\n")
    do {
      let channel = try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup).connectTimeout(.seconds(3))
        .connect(host: host, port: configuration.port) { channel in
          channel.eventLoop.makeCompletedFuture {
            try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
          }
        }
      let timeout = channel.channel.eventLoop.scheduleTask(in: .seconds(3)) { channel.channel.close(promise: nil) }
      defer { timeout.cancel() }
      return try await channel.executeThenClose { inbound, outbound in
        try await outbound.write(request)
        for try await buffer in inbound { return String(buffer: buffer).hasPrefix("HTTP/1.1 200") }
        return false
      }
    } catch {
      return false
    }
  }
}

/// Ends the jobs before the server ends: waits for them within the grace time, then cancels them.
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
    let reason = Failure(.unavailable, "the gateway is shutting down")
    await dispatcher.close(because: reason)
    let deadline = ContinuousClock.now + grace
    var jobs = await dispatcher.jobCount
    if jobs > 0 { logger.info("waiting for jobs to end", metadata: ["jobs": "\(jobs)", "grace": "\(grace)"]) }
    while jobs > 0, ContinuousClock.now < deadline {
      try await Task.sleep(for: .milliseconds(100))
      jobs = await dispatcher.jobCount
    }
    if jobs > 0 { logger.warning("cancelling jobs that have not ended", metadata: ["jobs": "\(jobs)"]) }
    await dispatcher.cancelAll(reason: reason)
  }
}
