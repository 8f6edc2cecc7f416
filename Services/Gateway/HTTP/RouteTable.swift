import HTTPTypes
import Hummingbird

typealias Handler = @Sendable (Request, GatewayContext) async throws -> Response

extension Router where Context == GatewayContext {
  /// Serves `path` with one handler for each method; other methods are answered with 405 and the list of those that there are.
  func serve(_ path: RouterPath, _ handlers: [(method: HTTPRequest.Method, handler: Handler)]) {
    let allowed = handlers.map(\.method) + (handlers.contains { $0.method == .get } ? [.head] : [])
    for (method, handler) in handlers {
      on(path, method: method, use: handler)
      if method == .get { on(path, method: .head, use: handler) }
    }
    for method in [HTTPRequest.Method.get, .head, .post, .put, .delete, .patch, .options, .trace] where !allowed.contains(method) {
      on(path, method: method) { request, _ -> Response in
        var error = APIError(.methodNotAllowed, "\(request.uri.path.prefix(200)) takes \(allowed.map(\.rawValue).joined(separator: ", "))")
        error.allowedMethods = allowed
        throw error
      }
    }
  }
}
