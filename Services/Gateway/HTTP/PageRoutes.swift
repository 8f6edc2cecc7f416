import HTTPTypes
import Hummingbird
import NIOCore

/// `GET /`: a page for people, made of the files in `Page/`. It uses nothing but the public API, by relative addresses.
struct PageRoutes: Sendable {
  /// Where a proxy shows the page, without a slash at its end; empty: at `/`.
  let basePath: String

  func add(to router: Router<GatewayContext>) {
    // Without the slash at its end, the page's relative addresses would lead beside it.
    if !basePath.isEmpty {
      let redirect = Response(status: .temporaryRedirect, headers: [.location: basePath + "/"])
      router.serve(RouterPath(basePath), [(.get, { _, _ in redirect })])
    }
    serve("/", "text/html; charset=utf-8", PackageResources.index_html, router)
    serve("/page.css", "text/css; charset=utf-8", PackageResources.page_css, router)
    serve("/page.js", "text/javascript; charset=utf-8", PackageResources.page_js, router)
  }

  private func serve(_ path: RouterPath, _ mediaType: String, _ bytes: [UInt8], _ router: Router<GatewayContext>) {
    var headers = Self.headers
    headers[.contentType] = mediaType
    let response = Response(status: .ok, headers: headers, body: ResponseBody(byteBuffer: ByteBuffer(bytes: bytes)))
    router.serve(path, [(.get, { _, _ in response })])
  }

  /// The page loads from this server alone, and no other site may frame it, as a protection against clickjacking.
  private static let headers: HTTPFields = [
    .contentSecurityPolicy:
      "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
      + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    .xContentTypeOptions: "nosniff", HTTPField.Name("referrer-policy")!: "no-referrer", .cacheControl: "no-cache",
  ]
}
