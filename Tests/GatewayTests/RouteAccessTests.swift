import AccessKeys
import Foundation
import Gateway
import HTTPTesting
import HTTPTypes
import Hummingbird
import NIOCore
import Testing

/// Whatever spelling of a path the router serves, it serves it under the rule of the route it leads to.
@Suite("API keys on every route", .timeLimit(.minutes(5)))
struct RouteAccessTests {
  /// Written down here as well, so that a new route is not open by mistake.
  static let openPaths = Set(pagePaths).union(["/healthz", "/readyz", "/metrics", "/openapi.yaml"])

  /// The page's files.
  static let pagePaths =
    ["/", "/page.css", "/editor.css", "/views.css"]
    + [
      "page", "api", "compare", "composer", "dom", "errors", "extend", "form", "gallery", "grid", "gridtable", "i18n",
      "images", "jobs", "mask", "metadata", "models", "pair", "parameters", "picks", "pipelines", "presets", "raster",
      "restore", "results", "sampling", "settings", "shortcuts", "store", "strings", "thumbnails", "viewer", "views",
      "workers",
    ].map { "/\($0).js" }

  /// Other spellings of `path`, some of which routers, proxies and file systems take for the same.
  static func spellings(of path: String) -> [String] {
    var all: [String] = [path]
    let segments = path.split(separator: "/").map(String.init)
    for index in segments.indices {
      let (before, segment) = (Array(segments[..<index]), segments[index])
      let after = Array(segments[(index + 1)...])
      func with(_ middle: String) -> String { "/" + (before + [middle] + after).joined(separator: "/") }
      let first = segment.utf8.first.map { String($0, radix: 16) } ?? "41"
      // Doubled slashes, dots, encodings of a letter, of all letters and of an encoding, letters in the other case.
      all += [
        with("/\(segment)"), with("//\(segment)"), with("./\(segment)"), with("x/../\(segment)"),
        with("%2e/\(segment)"),
        with("%2E%2E/\(segment)"), with("..;/\(segment)"), with("%\(first)\(segment.dropFirst())"),
        with("%\(first.uppercased())\(segment.dropFirst())"),
        with(segment.utf8.map { "%" + String($0, radix: 16) }.joined()), with("%25\(first)\(segment.dropFirst())"),
        with(segment.uppercased()), with(segment.capitalized), with("\(segment);x=1"), with("\(segment)%00"),
        with("\(segment)%20"),
        with("\(segment)."), with("%c0%af\(segment)"),
      ]
    }
    let rest = segments.joined(separator: "/")
    for slash in ["%2f", "%2F", "%252f", "\\", "%5c", "//", "/./", "/%2e/", "%00/", "／"] {
      all += ["/" + segments.joined(separator: slash), slash + rest]
    }
    all += [
      "/", "//", "/.", "/..", "/../", "/%2e", "/%2e%2e/", "?", "?x=1", "?/healthz", "#", "#/healthz", "%23", "%3f",
      "%3fx", "/%00",
    ]
    .map { path + $0 }
    // Behind an open route, and in front of one.
    for open in ["/healthz", "/page.js", "/."] {
      all += [
        "\(open)/..\(path)", "\(open)/..%2f\(rest)", "\(open)/%2e%2e\(path)", "\(open)/../..\(path)", "\(open);\(path)",
        "\(path)/..\(open)",
        "\(path)/../..\(open)/x",
      ]
    }
    let hosts = ["127.0.0.1", "localhost:1", "other.example", "user@127.0.0.1", ""]
    for host in hosts {
      all += [
        "http://\(host)\(path)", "HTTP://\(host)/\(path)", "https://\(host)\(path)", "//\(host)\(path)",
        "///\(host)\(path)",
      ]
    }
    all += [
      "ftp://127.0.0.1\(path)", "http:\(path)", "http:/\(path)", "http:///\(path)", rest, "*", "*\(path)",
      "\(path)\u{0}", "\u{0}\(path)",
    ]
    return all
  }

  static func request(_ method: String, _ target: String, _ headers: String = "") -> String {
    let length =
      ["POST", "PUT", "PATCH"].contains(method) ? "content-type: application/json\r\ncontent-length: 2\r\n" : ""
    let close = method == "HEAD" ? "connection: close\r\n" : ""
    return "\(method) \(target) HTTP/1.1\r\nhost: 127.0.0.1\r\n\(length)\(close)\(headers)\r\n"
      + (length.isEmpty ? "" : "{}")
  }

  @Test func noSpellingOfAProtectedRouteIsAnsweredWithoutAKey() async throws {
    let keys = AccessTests.Keys()
    let key = try keys.add("acme")
    let keyring = try Keyring(path: keys.path, logger: Toy.logger)
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      let routes = GatewayServer.routes(dispatcher: cluster.dispatcher)
      let protected = routes.filter { !Self.openPaths.contains($0.path) }
      #expect(Set(protected.map(\.path)).count >= 8 && Set(routes.map(\.path)).count - Self.openPaths.count >= 8)
      // Requests for other hosts are to come as far as the keys.
      var settings = HTTPSettings()
      settings.hosts = .any
      try await cluster.app(keyring: keyring, settings: settings).test(.live) { client in
        let port = try #require(client.port)
        for (method, route) in protected {
          let path = route.replacingOccurrences(of: "{id}", with: "job-1").replacingOccurrences(
            of: "**", with: "toy/model")
          let targets = Self.spellings(of: path) + [route]
          // Names that proxies and frameworks take another path or method from.
          let tricks = "x-original-url: /healthz\r\nx-rewrite-url: /healthz\r\nx-http-method-override: OPTIONS\r\n"
          let requests =
            targets.map { Self.request(method.rawValue, $0) } + [Self.request(method.rawValue, path, tricks)]
          let statuses = try await RawClient.statuses(port, requests)
          #expect(statuses.count == requests.count)
          for (request, status) in zip(requests, statuses) {
            #expect([400, 401, 404].contains(status), "\(request.debugDescription) is answered with \(status)")
          }
          #expect(statuses.first == 401, "\(method) \(path)")
        }
        // With a key the same spellings lead somewhere: what was refused above was refused for want of a key.
        let header = "authorization: Bearer \(key.text)\r\n"
        let served = [
          "/v1/models", "//v1/models", "/v1//models/", "///v1/jobs", "/v1/models/toy/model", "//v1//models//toy/model",
        ]
        #expect(
          try await RawClient.statuses(port, served.map { Self.request("GET", $0, header) }) == served.map { _ in 200 })
        // Open routes are open, and what is no route is not.
        let open = Self.openPaths.sorted()
        #expect(try await RawClient.statuses(port, open.map { Self.request("GET", $0) }) == open.map { _ in 200 })
        for path in ["/nothing", "/v1", "/v1/", "/v2/models", "/healthz/x", "/favicon.ico"] {
          #expect(try await RawClient.statuses(port, [Self.request("GET", path)]) == [401], "\(path)")
        }
      }
    }
  }
}
