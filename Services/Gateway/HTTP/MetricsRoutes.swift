import HTTPTypes
import Hummingbird
import NIOCore
import Observability

/// `GET /metrics`, in Prometheus' text format, or as OpenMetrics for those that accept it.
struct MetricsRoutes: Sendable {
  let registry: PrometheusRegistry

  func add(to router: Router<GatewayContext>) {
    router.serve(
      "/metrics",
      [
        (
          .get,
          { request, _ in
            let format = ExpositionFormat(accept: request.headers[.accept])
            return Response(
              status: .ok, headers: [.contentType: format.mediaType],
              body: ResponseBody(byteBuffer: ByteBuffer(string: registry.exposition(format))))
          }
        )
      ])
  }
}
