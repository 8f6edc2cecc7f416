import GatewayAPI
import HTTPTypes
import Hummingbird

typealias Handler = @Sendable (Request, GatewayContext) async throws -> Response

extension Router where Context == GatewayContext {
  /// Serves `path` with one handler for each method; other methods are answered with 405 and the list of those that
  /// there are.
  func serve(_ path: RouterPath, _ handlers: [(method: HTTPRequest.Method, handler: Handler)]) {
    let allowed = handlers.map(\.method) + (handlers.contains { $0.method == .get } ? [.head] : [])
    for (method, handler) in handlers {
      on(path, method: method, use: handler)
      if method == .get { on(path, method: .head, use: handler) }
    }
    for method in [HTTPRequest.Method.get, .head, .post, .put, .delete, .patch, .options, .trace, .query]
    where !allowed.contains(method) {
      on(path, method: method) { request, context -> Response in
        if method == .options, let preflight = context.preflight { return try Self.answer(preflight, allowed) }
        var error = APIError(
          .methodNotAllowed, "\(request.uri.path.prefix(200)) takes \(allowed.map(\.rawValue).joined(separator: ", "))")
        error.allowedMethods = allowed
        throw error
      }
    }
  }

  /// Says which methods there are, to a browser that asks for a page of an allowed origin.
  private static func answer(_ preflight: CrossOriginMiddleware.Preflight, _ methods: [HTTPRequest.Method])
    throws(APIError) -> Response
  {
    switch preflight {
    case .allowed:
      return Response(status: .noContent, headers: [.allow: methods.map(\.rawValue).joined(separator: ", ")])
    case .refused(let origin):
      throw APIError(
        .originNotAllowed,
        "web pages of \(origin.prefix(200)) may not use this API; its operator can allow them: --http-allowed-origins "
          + "\(origin.prefix(200))"
      )
    }
  }
}

extension HTTPRequest.Method {
  /// A GET with a body, which clients may try.
  fileprivate static let query = Self("QUERY")!
}
