import HTTPTypes
import Hummingbird
import NIOCore

/// The addresses of this server as a client sees them, by way of whatever proxy.
struct Links: Hashable, Sendable {
  /// Scheme, host and port: "http://127.0.0.1:8080".
  var origin = ""
  /// The path below which the client sees the server, such as "/images"; empty: none.
  var prefix = ""

  /// A path of the API as a reference on the same server: "/images/v1/jobs".
  func path(_ path: String) -> String { prefix + path }

  /// The whole address of a path of the API.
  func url(_ path: String) -> String { origin + prefix + path }
}

extension Links {
  static func job(_ id: String) -> String { "/v1/jobs/\(id)" }
}

/// A path below which a server is shown: segments of letters, digits, '-', '.', '_' and '~', each after a slash.
package struct PathPrefix: Hashable, Sendable {
  private static let maxBytes = 200

  /// Without a slash at its end; empty: none.
  package let text: String

  /// None.
  package init() { text = "" }

  /// - Returns: nil when `text` is no such path. A slash at its end does not matter.
  package init?(_ text: String) {
    let path = text.last == "/" ? text.dropLast() : Substring(text)
    guard path.utf8.count <= Self.maxBytes, path.isEmpty || path.first == "/" else { return nil }
    for segment in path.dropFirst().split(separator: "/", omittingEmptySubsequences: false) where !path.isEmpty {
      guard !segment.isEmpty, segment != ".", segment != "..",
        segment.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || "-._~".contains($0)) })
      else { return nil }
    }
    self.text = String(path)
  }
}

/// An address at which a proxy shows the server: a scheme, a host, perhaps a port and a path.
package struct PublicURL: Hashable, Sendable {
  let origin: String
  let host: String
  let prefix: PathPrefix

  /// - Returns: nil when `text` is no such address with http or https.
  package init?(_ text: String) {
    let lowercase = text.lowercased()
    guard let scheme = ["http", "https"].first(where: { lowercase.hasPrefix("\($0)://") }) else { return nil }
    let rest = text.dropFirst(scheme.count + 3)
    let end = rest.firstIndex(of: "/") ?? rest.endIndex
    guard let authority = Authority(rest[..<end]), let prefix = PathPrefix(String(rest[end...])) else { return nil }
    origin = "\(scheme)://\(authority)"
    host = authority.host
    self.prefix = prefix
  }
}

/// Finds out under which addresses a client sees the server.
struct LinksMiddleware: RouterMiddleware {
  let settings: HTTPSettings

  func handle(
    _ request: Request, context: GatewayContext, next: (Request, GatewayContext) async throws -> Response
  ) async throws -> Response {
    var context = context
    context.links = links(for: request, context)
    return try await next(request, context)
  }

  private func links(for request: Request, _ context: GatewayContext) -> Links {
    if let url = settings.publicURL { return Links(origin: url.origin, prefix: url.prefix.text) }
    // What proxies write can be written by clients as well, if no proxy stands before them.
    let forwarded = { (name: HTTPField.Name) in settings.trustsForwarded ? Self.first(of: request.headers[name]) : nil }
    let scheme = forwarded(.forwardedProto).flatMap {
      ["http", "https"].contains($0.lowercased()) ? $0.lowercased() : nil
    }
    let authority =
      forwarded(.forwardedHost).flatMap { Authority($0) } ?? request.head.authority.flatMap { Authority($0) }
    let prefix = forwarded(.forwardedPrefix).flatMap { PathPrefix($0) } ?? settings.basePath
    return Links(
      origin: "\(scheme ?? "http")://\(authority?.description ?? Self.localAddress(context.channel))",
      prefix: prefix.text)
  }

  /// The first of several values is what the proxy next to the client wrote.
  private static func first(of field: String?) -> String? {
    field?.split(separator: ",").first.map { $0.filter { $0 != " " && $0 != "\t" } }
  }

  private static func localAddress(_ channel: any Channel) -> String {
    guard let address = channel.localAddress, let ip = address.ipAddress else { return "localhost" }
    return (ip.contains(":") ? "[\(ip)]" : ip) + (address.port.map { ":\($0)" } ?? "")
  }
}

extension HTTPField.Name {
  static let forwardedProto = Self("x-forwarded-proto")!
  static let forwardedHost = Self("x-forwarded-host")!
  static let forwardedPrefix = Self("x-forwarded-prefix")!
}
