import HTTPTypes
import Hummingbird

/// Lets web pages of allowed origins use the API: the CORS protocol of the Fetch standard.
///
/// It stands outside of everything else, so that pages can read errors as well. Hummingbird's own middleware answers
/// every OPTIONS request by itself, whatever the route takes, and names the exposed headers in answers to preflights
/// only, where browsers do not look for them.
struct CrossOriginMiddleware: RouterMiddleware {
  /// A request that a browser sends before a page's own, without the page's key, to learn whether that one is allowed.
  enum Preflight: Sendable {
    case allowed
    case refused(origin: String)
  }

  /// What pages may read of an answer beside its body and what the standard lets them read anyway.
  static let exposedHeaders = "idempotent-replayed, location, retry-after, x-request-id, x-should-retry"
  /// How long browsers may remember the answer to a preflight.
  static let maxAgeSeconds = 600
  /// A preflight that asks for more header names than this is given the names that the API has.
  private static let maxHeaderNames = 64
  private static let ownHeaders =
    "accept, authorization, content-type, idempotency-key, last-event-id, prefer, traceparent, x-detach"

  let policy: OriginPolicy

  func handle(
    _ request: Request, context: GatewayContext, next: (Request, GatewayContext) async throws -> Response
  ) async throws -> Response {
    guard let origin = request.headers[.origin] else { return vary(try await next(request, context)) }
    let answer = policy.answer(to: origin)
    guard request.method == .options, request.headers[.accessControlRequestMethod] != nil else {
      var response = vary(try await next(request, context))
      if let answer {
        allow(answer, &response)
        response.headers[.accessControlExposeHeaders] = Self.exposedHeaders
      }
      return response
    }
    var context = context
    context.preflight = answer == nil ? .refused(origin: origin) : .allowed
    var response = try await next(request, context)
    guard let answer, response.status == .noContent || response.status == .notFound else { return vary(response) }
    let methods = response.headers[.allow] ?? "GET, HEAD, POST, DELETE"
    // No route, no preflight: but the page is to read that from the answer to its own request.
    response = Response(status: .noContent, headers: [.requestID: context.id, .accessControlAllowMethods: methods])
    allow(answer, &response)
    response.headers[.accessControlAllowHeaders] = Self.headerNames(request)
    response.headers[.accessControlMaxAge] = "\(Self.maxAgeSeconds)"
    if request.headers[.requestPrivateNetwork] == "true" { response.headers[.allowPrivateNetwork] = "true" }
    response.headers[.vary] = "origin, access-control-request-method, access-control-request-headers"
    return response
  }

  /// Pages of origins that are allowed by name may send what the browser keeps for this server, for a proxy before it;
  /// those of any may not.
  private func allow(_ answer: String, _ response: inout Response) {
    response.headers[.accessControlAllowOrigin] = answer
    if answer != "*" { response.headers[.accessControlAllowCredentials] = "true" }
  }

  private func vary(_ response: Response) -> Response {
    guard policy.dependsOnOrigin else { return response }
    var response = response
    response.headers[.vary] = (response.headers[.vary].map { $0 + ", " } ?? "") + "origin"
    return response
  }

  /// The names that the page wants to send. What the API does not know does nothing: client libraries add fields of
  /// their own.
  private static func headerNames(_ request: Request) -> String {
    guard let field = request.headers[.accessControlRequestHeaders] else { return ownHeaders }
    let names = field.lowercased().split(separator: ",").map { $0.filter { $0 != " " && $0 != "\t" } }
    guard (1...maxHeaderNames).contains(names.count), names.allSatisfy({ HTTPField.Name($0) != nil }) else {
      return ownHeaders
    }
    return names.joined(separator: ", ")
  }
}

extension HTTPField.Name {
  static let requestPrivateNetwork = Self("access-control-request-private-network")!
  static let allowPrivateNetwork = Self("access-control-allow-private-network")!
}
