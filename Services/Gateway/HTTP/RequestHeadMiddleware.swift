import GatewayAPI
import HTTPTypes
import Hummingbird

/// Refuses requests whose head is malformed, requests for other hosts, and expectations that cannot be met.
struct RequestHeadMiddleware: RouterMiddleware {
  let hosts: HostPolicy

  func handle(
    _ request: Request, context: GatewayContext, next: (Request, GatewayContext) async throws -> Response
  ) async throws -> Response {
    if let problem = request.headers[.requestProblem] { throw APIError(.malformedRequest, problem) }
    try checkHost(of: request)
    if let expectation = request.headers[.expect], expectation.lowercased() != "100-continue" {
      throw APIError(
        .expectationFailed, "the only expectation that can be met is 100-continue, not \"\(expectation.prefix(80))\"")
    }
    return try await next(request, context)
  }

  /// Requests of HTTP/1.0 are for any host: no browser sends them, and they need not have the field.
  private func checkHost(of request: Request) throws(APIError) {
    guard request.headers[.requestVersion] != "1.0", let authority = request.head.authority.flatMap({ Authority($0) }),
      !hosts.admits(authority)
    else { return }
    throw APIError(
      .hostNotAllowed,
      "the request is for the host \"\(authority.host)\", which is not this server's; if it is, its operator can allow "
        + "it: --http-allowed-hosts \(authority.host)")
  }
}
