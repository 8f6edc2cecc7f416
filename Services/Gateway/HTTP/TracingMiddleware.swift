import HTTPTypes
import Hummingbird
import Observability
import Tracing

/// A span for each request, below that of the client if it names one, with OpenTelemetry's names for HTTP. It lasts
/// until the response's last byte is sent. Probes have none.
struct TracingMiddleware: RouterMiddleware {
  /// nil: there are no spans.
  let tracer: (any Tracer)?

  func handle(
    _ request: Request, context: GatewayContext, next: (Request, GatewayContext) async throws -> Response
  ) async throws -> Response {
    guard let tracer, !["/healthz", "/readyz", "/metrics"].contains(request.uri.path) else {
      return try await next(request, context)
    }
    let cause = ServiceContext.tracing(request.headers[.traceparent].flatMap { TraceContext(traceparent: $0) })
    // The route is not known yet; what a client makes up as a path must not become a name.
    let span = tracer.startSpan(request.method.rawValue, context: cause, ofKind: .server, at: TraceInstant.now)
    var response: Response
    do {
      response = try await ServiceContext.$current.withValue(span.context) { try await next(request, context) }
    } catch {
      span.recordError(error)
      span.setStatus(SpanStatus(code: .error))
      span.end(at: TraceInstant.now)
      throw error
    }
    describe(span, request, response, context)
    let ending = SpanEnding(span)
    // A body of known length is there already; one that is made while it is sent may take as long as the image.
    guard response.body.contentLength == nil else { return response }
    let body = response.body
    response.body = ResponseBody { writer in
      try await body.write(writer)
      ending.end()
    }
    return response
  }

  private func describe(_ span: any Span, _ request: Request, _ response: Response, _ context: GatewayContext) {
    guard span.isRecording else { return }
    if let route = context.endpointPath { span.operationName = "\(request.method.rawValue) \(route)" }
    let status = Int(response.status.code)
    span.updateAttributes {
      $0["http.request.method"] = request.method.rawValue
      $0["http.route"] = context.endpointPath
      $0["http.response.status_code"] = status
      $0["url.path"] = String(request.uri.path.prefix(200))
      $0["url.scheme"] = "http"
      $0["user_agent.original"] = request.headers[.userAgent].map { String($0.prefix(200)) }
      $0["qwenimage.request.id"] = response.headers[.requestID]
      if status >= 500 { $0["error.type"] = "\(status)" }
    }
    if status >= 500 { span.setStatus(SpanStatus(code: .error)) }
  }
}

/// Ends a span once, at the latest when no one holds it any more: a body is dropped when the client has gone.
private final class SpanEnding: Sendable {
  private let span: any Span

  init(_ span: any Span) { self.span = span }

  func end() { span.end(at: TraceInstant.now) }

  deinit { end() }
}
