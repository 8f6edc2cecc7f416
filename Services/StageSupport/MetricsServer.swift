import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import Observability

/// Serves `GET /metrics` of a stage, in Prometheus' text format or as OpenMetrics; everything else is 404. It knows no
/// secrets and takes no input.
enum MetricsServer {
  /// Open connections; more wait until one is closed.
  private static let maxConnections = 16

  /// The server, as a service.
  ///
  /// - Parameters:
  ///   - registry: what is shown.
  ///   - address: where to listen.
  static func make(_ registry: PrometheusRegistry, address: MetricsAddress, logger: Logger) -> some ApplicationProtocol
  {
    let router = Router()
    router.get("/metrics") { request, _ in
      let format = ExpositionFormat(accept: request.headers[.accept])
      return Response(
        status: .ok, headers: [.contentType: format.mediaType],
        body: ResponseBody(byteBuffer: ByteBuffer(string: registry.exposition(format))))
    }
    return Application(
      router: router, server: .http1(configuration: .init(idleTimeout: .seconds(30))),
      configuration: ApplicationConfiguration(
        address: .hostname(address.host, port: address.port), serverName: "qwen-image-stage",
        availableConnectionsDelegate: MaximumAvailableConnections(maxConnections, logger: logger)),
      logger: logger)
  }
}

/// Where metrics are served: `HOST:PORT`, with an IPv6 host in brackets.
struct MetricsAddress: Hashable, Sendable {
  var host: String
  var port: Int

  /// Reads `HOST:PORT`; nil when it is something else.
  init?(_ text: String) {
    guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
      (1...65_535).contains(port)
    else {
      return nil
    }
    var host = text[..<colon]
    if host.hasPrefix("["), host.hasSuffix("]") {
      host = host.dropFirst().dropLast()
    } else if host.contains(":") {
      return nil
    }
    guard !host.isEmpty else { return nil }
    self.host = String(host)
    self.port = port
  }
}
