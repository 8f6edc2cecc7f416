import HTTPTypes
import Hummingbird
import NIOCore
import Observability

/// `GET /metrics`, in Prometheus' text format.
struct MetricsRoutes: Sendable {
  let registry: PrometheusRegistry

  func add(to router: Router<GatewayContext>) {
    router.serve(
      "/metrics",
      [
        (
          .get,
          { _, _ in
            Response(
              status: .ok, headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8"],
              body: ResponseBody(byteBuffer: ByteBuffer(string: registry.exposition())))
          }
        )
      ])
  }
}
