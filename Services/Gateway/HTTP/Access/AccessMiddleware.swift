import GatewayAPI
import GatewayPipelines
import HTTPTypes
import Hummingbird

/// Asks for an API key, if the gateway has keys at all, on every route that is not explicitly open.
///
/// The decision is made on the route that the router has resolved, not on the text of the request's path: whatever
/// spelling leads the router to a route, the route's own rule holds. What leads to no route is refused as well.
struct AccessMiddleware: RouterMiddleware {
  /// The routes that need no key, as they are registered: the page, and what probes and scrapers read.
  static let openRoutes = Set(PageRoutes.paths).union(["/healthz", "/readyz", "/metrics", "/openapi.yaml"])

  let keyring: Keyring?
  /// The page is there, with a slash behind it.
  var basePath = ""

  func handle(
    _ request: Request, context: GatewayContext, next: (Request, GatewayContext) async throws -> Response
  ) async throws -> Response {
    // Browsers send preflights without a key, and learn the methods of a route from them, no more.
    guard let keyring, !isOpen(context.endpointPath), context.preflight == nil else {
      return try await next(request, context)
    }
    var context = context
    let authorization = request.headers[.authorization]
    let signer = authorization == nil ? try ResultAddress.signer(of: request, context, keyring) : nil
    context.caller =
      try signer ?? keyring.caller(authorization: authorization, allowsBasic: WebUIError.isAnswer(to: request))
    return try await next(request, context)
  }

  /// Whether a route is open. `nil`: the router has found none.
  private func isOpen(_ route: String?) -> Bool {
    route.map { Self.openRoutes.contains($0) || $0 == basePath } ?? false
  }
}

extension Caller {
  /// Refuses images that the tenant may not ask for.
  func check(_ images: [ImageSpec]) throws(APIError) {
    guard let image = images.first else { return }
    let pixels = image.size.widthPx * image.size.heightPx
    if let limit = limits.maxPixels, pixels > limit {
      throw APIError(
        .permissionDenied, "the image has \(pixels) pixels, the limit of the tenant \(tenant) is \(limit)",
        param: "size")
    }
    if let limit = limits.maxSteps, image.steps > limit {
      throw APIError(
        .permissionDenied, "steps is \(image.steps), the limit of the tenant \(tenant) is \(limit)", param: "steps")
    }
  }
}
