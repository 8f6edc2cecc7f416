import Foundation
import Gateway
import HTTPTesting
import HTTPTypes
import Hummingbird
import NIOCore
import StrictJSON
import Testing

@Suite("Addresses behind a proxy", .timeLimit(.minutes(2)))
struct AddressTests {
  static func settings(
    basePath: String = "", publicURL: String? = nil, trustsForwarded: Bool = false, hosts: HostPolicy = .any
  ) throws -> HTTPSettings {
    var settings = HTTPSettings()
    settings.basePath = try #require(PathPrefix(basePath))
    settings.publicURL = publicURL.flatMap { PublicURL($0) }
    settings.trustsForwarded = trustsForwarded
    settings.hosts = hosts
    return settings
  }

  @Test(arguments: ["", "/", "/qi", "/qi/", "/a/b-c._~1"]) func pathsAreRead(text: String) throws {
    #expect(try #require(PathPrefix(text)).text == (text.last == "/" ? String(text.dropLast()) : text))
  }

  @Test(arguments: [
    "qi", "//", "/qi//", "//qi", "/a//b", "/.", "/..", "/a/../b", "/a b", "/a%20", "/a?b", "/a#b", "/ä", "/a\u{0}",
    "/:id", "/**", "/" + String(repeating: "a", count: 200),
  ])
  func whatIsNoPathIsNotTakenForOne(text: String) { #expect(PathPrefix(text) == nil) }

  @Test(arguments: [
    "", "a.example", "ftp://a.example", "http://", "http:///x", "https://a b", "https://u@a.example",
    "https://a.example/x?y", "https://a.example//",
  ])
  func whatIsNoAddressIsNotTakenForOne(text: String) { #expect(PublicURL(text) == nil) }

  /// Job, results and events name the same address as the `location` does.
  private static func addresses(_ client: some TestClientProtocol, _ base: String = "", _ headers: HTTPFields = [:])
    async throws -> [String]
  {
    let accepted = try await client.execute(
      uri: "\(base)/v1/jobs", method: .post, headers: headers + JobsTests.json,
      body: ByteBuffer(string: #"{"prompt":"p","seed":1}"#))
    let location = try #require(accepted.headers[.location])
    let id = try #require(try accepted.json["id"]?.text)
    #expect(location.hasSuffix("/v1/jobs/\(id)"))
    let end = try await client.waitForEnd(id)
    #expect(end["status"]?.text == "succeeded")
    let job = try await client.execute(uri: "\(base)/v1/jobs/\(id)", method: .get, headers: headers)
    let listed = try await client.execute(uri: "\(base)/v1/jobs", method: .get, headers: headers)
    let result = try #require(try job.json["images"]?[0]?["result"]?.text)
    #expect(try listed.json["data"]?[0]?["images"]?[0]?["result"]?.text == result)
    let events = try await client.execute(uri: "\(base)/v1/jobs/\(id)/events", method: .get, headers: headers)
    let event = String(buffer: events.body).components(separatedBy: "\n").first {
      $0.contains("image_completed") && $0.hasPrefix("data: ")
    }
    let image = try JSON(Array(try #require(event).dropFirst("data: ".count).utf8))["image"]
    return [location, result, image?["result"]?.text ?? ""].map { $0.replacingOccurrences(of: id, with: "ID") }
  }

  private static func location(_ client: some TestClientProtocol, _ headers: HTTPFields = [:]) async throws -> String {
    try await addresses(client, "", headers)[0]
  }

  /// A proxy that passes its path on.
  @Test func aBasePathIsServedAndNamed() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app(settings: try Self.settings(basePath: "/qi")).test(.live) { client in
        for base in ["/qi", ""] {
          #expect(
            try await Self.addresses(client, base) == ["/qi/v1/jobs/ID"]
              + Array(repeating: "/qi/v1/jobs/ID/result?index=0", count: 2))
          for path in ["/", "/page.js", "/healthz", "/readyz", "/metrics", "/openapi.yaml", "/v1/models"] {
            #expect(try await client.execute(uri: base + path, method: .get).status == .ok, "\(base + path)")
          }
        }
        let image = try await client.execute(
          uri: "/qi/v1/images/generations", method: .post, headers: JobsTests.json,
          body: ByteBuffer(string: #"{"prompt":"p","seed":1}"#))
        #expect(image.headers[.location]?.hasPrefix("/qi/v1/jobs/job-") == true)
        #expect(try image.image() == Toy.expected(prompt: "p", seed: 1))
        // The client follows the redirection of a path without its slash.
        let bare = try await client.execute(uri: "/qi", method: .get)
        #expect(bare.status == .ok && bare.headers[.contentType] == "text/html; charset=utf-8")
        for path in ["/qi/qi/v1/models", "/qix/v1/models", "/q/v1/models", "/QI/v1/models"] {
          #expect(try await client.execute(uri: path, method: .get).status == .notFound, "\(path)")
        }
      }
    }
  }

  /// The keys' routes are the same below the path.
  @Test func aBasePathDoesNotLeadPastTheKeys() async throws {
    let keys = AccessTests.Keys()
    _ = try keys.add("acme")
    let keyring = try Keyring(path: keys.path, logger: Toy.logger)
    try await ToyCluster.run { cluster in
      try await cluster.app(keyring: keyring, settings: try Self.settings(basePath: "/qi")).test(.live) { client in
        let port = try #require(client.port)
        var targets: [String] = []
        for path in ["/v1/jobs", "/v1/models/toy/model", "/v1/workers"] {
          targets += RouteAccessTests.spellings(of: path).flatMap {
            ["/qi\($0)", "/qi/\($0)", "//qi\($0)", "/qi/qi\($0)", "/%71i\($0)"]
          }
          targets += RouteAccessTests.spellings(of: "/qi\(path)")
        }
        let statuses = try await RawClient.statuses(port, targets.map { RouteAccessTests.request("GET", $0) })
        for (target, status) in zip(targets, statuses) {
          // A target that goes up again from an open route, or ends the path before the route begins, is a target of
          // the open one.
          #expect([400, 401, 404].contains(status), "\(target.debugDescription) is answered with \(status)")
        }
        let open = ["/qi", "/qi/", "/qi/page.js", "/qi/healthz", "/healthz"]
        #expect(
          try await RawClient.statuses(port, open.map { RouteAccessTests.request("GET", $0) }) == [
            307, 200, 200, 200, 200,
          ])
        let redirected = try await RawClient.exchange(port, "GET /qi HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        #expect(redirected.lowercased().contains("\r\nlocation: /qi/\r\n"), "\(redirected)")
      }
    }
  }

  /// A proxy that strips its path says so, and is believed when the operator says so.
  @Test func forwardedFieldsAreTakenFromATrustedProxyOnly() async throws {
    let forwarded: HTTPFields = [
      HTTPField.Name("x-forwarded-proto")!: "https", HTTPField.Name("x-forwarded-host")!: "a.example:8443, b.example",
      HTTPField.Name("x-forwarded-prefix")!: "/qi/",
    ]
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      let trusting = try Self.settings(trustsForwarded: true)
      try await cluster.app(settings: trusting).test(.live) { client in
        let seen = try await Self.location(client, forwarded)
        #expect(seen == "/qi/v1/jobs/ID")
        for prefix in ["", "qi", "//evil.example", "/a/../b", "/a\\b", "https://evil.example"] {
          var odd: HTTPFields = [:]
          if !prefix.isEmpty { odd[HTTPField.Name("x-forwarded-prefix")!] = prefix }
          let seen = try await Self.location(client, odd)
          #expect(seen == "/v1/jobs/ID", "\(prefix)")
        }
      }
      let silent = try Self.settings()
      try await cluster.app(settings: silent).test(.live) { client in
        let seen = try await Self.location(client, forwarded)
        #expect(seen == "/v1/jobs/ID")
      }
      let named = try Self.settings(publicURL: "https://A.example/x/y/", trustsForwarded: true)
      try await cluster.app(settings: named).test(.live) { client in
        let seen = try await Self.addresses(client, "", forwarded)
        #expect(seen[1] == "/x/y/v1/jobs/ID/result?index=0")
      }
    }
  }

  /// Clients whose base address lacks /v1, or has it twice, learn the right one.
  @Test func aWrongBaseAddressIsNamed() async throws {
    try await ToyCluster.run { cluster in
      for (settings, base) in [
        (try Self.settings(), "http://127.0.0.1:"), (try Self.settings(basePath: "/qi"), "http://127.0.0.1:"),
        (try Self.settings(publicURL: "https://a.example/x"), "https://a.example/x/v1,"),
      ] {
        try await cluster.app(settings: settings).test(.live) { client in
          let prefix = settings.publicURL == nil ? settings.basePath.text : "/x"
          for (method, path, meant) in [
            (HTTPRequest.Method.post, "/images/generations", "/v1/images/generations"),
            (.post, "/v1/v1/images/generations", "/v1/images/generations"), (.post, "/v1/v1/v1/jobs", "/v1/jobs"),
            (.post, "/api/v1/images/generations", "/v1/images/generations"), (.get, "/models", "/v1/models"),
            (.post, "/openai/deployments/dall-e-3/images/generations?api-version=1", "/v1/images/generations"),
            (.get, "/models/toy/model", "/v1/models/toy/model"),
            (.get, "/v1/v1/jobs/job-1/result?index=0", "/v1/jobs/job-1/result"),
          ] {
            let response = try await client.execute(
              uri: path, method: method, headers: JobsTests.json, body: ByteBuffer(string: "{}"))
            #expect(response.status == .notFound)
            let message = try #require(try response.error?["message"]?.text)
            #expect(message.contains(": the base address of the API is \(base)"), "\(message)")
            #expect(
              message.hasSuffix(
                "\(settings.publicURL == nil ? prefix + "/v1" : "https://a.example/x/v1"), and the path of this "
                  + "request \(prefix)\(meant)"
              ), "\(message)")
          }
          for path in [
            "/nothing", "/v1/images/upscales", "/v1/chat/completions", "/v1", "/v1/jobs/a/b",
            "/" + String(repeating: "a/", count: 500) + "v1/jobs",
          ] {
            let message = try #require(try await client.get(path).json["error"]?["message"]?.text)
            #expect(message.hasSuffix("; \(prefix)/openapi.yaml describes what there is"), "\(message)")
          }
        }
      }
    }
  }

  /// What the page asks for stays below the path at which it is shown.
  @Test func thePageHasRelativeAddressesOnly() async throws {
    try await ToyCluster.run { cluster in
      try await cluster.app().test(.live) { client in
        for uri in RouteAccessTests.pagePaths {
          let text = String(buffer: try await client.execute(uri: uri, method: .get).body)
          for absolute in ["\"/", "`/", "'/", "url(/", "=/"] {
            let found = text.components(separatedBy: "\n").filter { $0.contains(absolute) }
            #expect(found.isEmpty, "\(uri) has an absolute address: \(found)")
          }
          #expect(uri != "/page.js" || text.contains("\"v1/jobs\""))
          #expect(uri != "/jobs.js" || text.contains("`v1/jobs/"))
        }
      }
    }
  }
}

extension HTTPFields {
  fileprivate static func + (first: HTTPFields, second: HTTPFields) -> HTTPFields {
    var all = first
    for field in second { all.append(field) }
    return all
  }
}
