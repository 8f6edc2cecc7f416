import GatewayAPI
import HTTPTypes
import Hummingbird
import Logging
import Metrics
import NIOCore

/// Gives every answer its request's id, turns every error into the API's JSON, and notes the request in log and
/// metrics.
struct ErrorMiddleware: RouterMiddleware {
  let hints: RouteHints

  func handle(
    _ request: Request, context: GatewayContext, next: (Request, GatewayContext) async throws -> Response
  ) async throws -> Response {
    let start = ContinuousClock.now
    var response: Response
    do {
      response = try await next(request, context)
    } catch {
      let apiError = apiError(error, request, context)
      response = try WebUIError.isAnswer(to: request) ? .webUIError(apiError) : .error(apiError)
      if Self.endsConnection(apiError.code) { Self.closeSoon(&response, context.channel) }
    }
    if context.intake.leavesBody(of: request) { Self.closeSoon(&response, context.channel) }
    response.headers[.requestID] = context.id
    Self.note(request, response, ContinuousClock.now - start, context)
    if request.method == .head {
      response = response.createHeadResponse()
      // Of an event stream, which has none: chunks must not be announced, or they would have an end.
      if response.headers[.contentLength] == nil { response.headers[.contentLength] = "0" }
    }
    return response
  }

  private func apiError(_ error: any Error, _ request: Request, _ context: GatewayContext) -> APIError {
    switch error {
    case let error as APIError: return error
    case let error as HTTPError where error.status == .notFound: return noRoute(request, context)
    case is CancellationError: return APIError(.cancelled, "the client has gone")
    default:
      context.logger.error("a request failed unexpectedly", metadata: ["error": "\(error)"])
      return APIError(.internalError, "the gateway failed unexpectedly; its log has request \(context.id)")
    }
  }

  private func noRoute(_ request: Request, _ context: GatewayContext) -> APIError {
    let message = "there is no \(request.method.rawValue) \(request.uri.path.prefix(200))"
    guard let path = hints.meant(by: request.uri.path) else {
      return APIError(.routeNotFound, "\(message); \(context.links.path("/openapi.yaml")) describes what there is")
    }
    return APIError(
      .routeNotFound,
      "\(message): the base address of the API is \(context.links.url("/v1")), and the path of this request "
        + "\(context.links.path(path))"
    )
  }

  /// Whether what follows on the connection is of no use: the rest of a body, or what cannot be trusted to be a
  /// request.
  private static func endsConnection(_ code: APIError.Code) -> Bool {
    switch code {
    case .bodyTooLarge, .requestTimeout, .malformedRequest: true
    default: false
    }
  }

  /// The rest of a refused body would be read without end; the client gets some time to read the answer.
  private static func closeSoon(_ response: inout Response, _ channel: any Channel) {
    guard response.headers[.connection] != "close" else { return }
    response.headers[.connection] = "close"
    channel.eventLoop.scheduleTask(in: .seconds(2)) { channel.close(promise: nil) }
  }

  private static func note(_ request: Request, _ response: Response, _ duration: Duration, _ context: GatewayContext) {
    let seconds = duration / .seconds(1)
    // Of path and method only what the router knows, lest clients make up names of metrics.
    let endpoint = context.endpointPath ?? "unknown"
    let method = context.endpointPath == nil ? "unknown" : request.method.rawValue
    let dimensions = [("method", method), ("endpoint", endpoint), ("status", "\(response.status.code)")]
    Counter(label: "qwenimage_http_requests_total", dimensions: dimensions).increment()
    Metrics.Timer(label: "qwenimage_http_request_seconds", dimensions: [("endpoint", endpoint)]).recordNanoseconds(
      Int64(seconds * 1e9))
    let isProbe = ["/healthz", "/readyz", "/metrics"].contains(endpoint)
    context.logger.log(
      level: isProbe ? .debug : .info, "request",
      metadata: [
        "method": "\(request.method.rawValue)", "path": "\(request.uri.path.prefix(200))",
        "status": "\(response.status.code)",
        "seconds": "\((seconds * 1000).rounded() / 1000)",
      ])
  }
}
