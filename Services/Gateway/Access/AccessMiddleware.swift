import HTTPTypes
import Hummingbird

/// Lets requests to `/v1/` through for those who show a key, if the gateway has keys at all.
struct AccessMiddleware: RouterMiddleware {
  let keyring: Keyring?

  func handle(
    _ request: Request, context: GatewayContext, next: (Request, GatewayContext) async throws -> Response
  ) async throws -> Response {
    guard let keyring, request.uri.path.hasPrefix("/v1/") else { return try await next(request, context) }
    var context = context
    context.caller = try keyring.caller(authorization: request.headers[.authorization])
    return try await next(request, context)
  }
}

extension Caller {
  /// Refuses pictures that the tenant may not ask for.
  func check(_ images: [ImageJob]) throws(APIError) {
    guard let image = images.first else { return }
    let pixels = image.size.widthPx * image.size.heightPx
    if let limit = limits.maxPixels, pixels > limit {
      throw APIError(.permissionDenied, "the picture has \(pixels) pixels, the limit of the tenant \(tenant) is \(limit)", param: "size")
    }
    if let limit = limits.maxSteps, image.steps > limit {
      throw APIError(.permissionDenied, "steps is \(image.steps), the limit of the tenant \(tenant) is \(limit)", param: "steps")
    }
  }
}
