import Foundation
import Gateway
import HTTPTesting
import HTTPTypes
import Hummingbird
import NIOCore
import StrictJSON
import Testing

/// The CORS protocol, as browsers speak it.
@Suite("Web pages of other origins", .timeLimit(.minutes(2)))
struct CrossOriginTests {
  static let page = "http://localhost:3000"

  static func settings(_ origins: [String]) -> HTTPSettings {
    var settings = HTTPSettings()
    settings.origins = OriginPolicy(allowed: origins)
    return settings
  }

  static func preflight(_ method: String, _ headers: String? = "content-type,authorization", origin: String = page)
    -> HTTPFields
  {
    var fields: HTTPFields = [.origin: origin, .accessControlRequestMethod: method]
    fields[.accessControlRequestHeaders] = headers
    return fields
  }

  static func hasNone(_ response: TestResponse) -> Bool {
    !response.headers.contains { $0.name.canonicalName.hasPrefix("access-control-") }
  }

  @Test func aPreflightOfAnAllowedPageIsAnsweredWithWhatTheRouteTakes() async throws {
    let keys = AccessTests.Keys()
    _ = try keys.add("acme")
    let keyring = try Keyring(path: keys.path, logger: Toy.logger)
    try await ToyCluster.run { cluster in
      // Browsers send preflights without a key.
      for keyring in [nil, keyring] {
        let settings = Self.settings(["https://a.example", Self.page])
        try await cluster.app(keyring: keyring, settings: settings).test(.live) { client in
          for (uri, methods) in [
            ("/v1/images/generations", "POST"), ("/v1/jobs", "POST, GET, HEAD"),
            ("/v1/jobs/job-1", "GET, DELETE, HEAD"),
            ("/v1/jobs/job-1/events", "GET, HEAD"), ("/v1/models", "GET, HEAD"),
            ("/nothing", "GET, HEAD, POST, DELETE"),
          ] {
            let response = try await client.execute(uri: uri, method: .options, headers: Self.preflight("POST"))
            #expect(response.status == .noContent, "\(uri)")
            #expect(response.headers[.accessControlAllowOrigin] == Self.page)
            #expect(response.headers[.accessControlAllowMethods] == methods)
            #expect(response.headers[.accessControlAllowHeaders] == "content-type, authorization")
            #expect(response.headers[.accessControlMaxAge] == "600")
            #expect(response.headers[.accessControlAllowCredentials] == "true")
            #expect(response.headers[.vary] == "origin, access-control-request-method, access-control-request-headers")
            #expect(response.headers[HTTPField.Name("access-control-allow-private-network")!] == nil)
            #expect(response.body.readableBytes == 0)
          }
        }
      }
    }
  }

  /// Client libraries add header fields of their own; nonsense is not repeated.
  @Test func thePagesOwnHeaderFieldsAreAllowed() async throws {
    try await ToyCluster.run { cluster in
      try await cluster.app(settings: Self.settings([Self.page])).test(.live) { client in
        let own = "accept, authorization, content-type, idempotency-key, last-event-id, prefer, traceparent, x-detach"
        for (asked, answered) in [
          ("content-type, X-Stainless-OS , x-stainless-arch", "content-type, x-stainless-os, x-stainless-arch"),
          (nil, own), ("", own),
          ("a(b)", own), (String(repeating: "x,", count: 65) + "y", own),
        ] as [(String?, String)] {
          let response = try await client.execute(
            uri: "/v1/jobs", method: .options, headers: Self.preflight("POST", asked))
          #expect(response.headers[.accessControlAllowHeaders] == answered, "\(asked ?? "none")")
        }
        var fields = Self.preflight("GET")
        fields[HTTPField.Name("access-control-request-private-network")!] = "true"
        let response = try await client.execute(uri: "/v1/jobs", method: .options, headers: fields)
        #expect(response.headers[HTTPField.Name("access-control-allow-private-network")!] == "true")
      }
    }
  }

  @Test func answersToAllowedPagesCanBeRead() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app(settings: Self.settings([Self.page])).test(.live) { client in
        var headers = JobsTests.json
        headers[.origin] = Self.page
        let image = try await client.generate(#"{"prompt":"p","seed":1}"#, headers: headers)
        let stream = try await client.generate(#"{"prompt":"p","seed":1,"stream":true}"#, headers: headers)
        let wrong = try await client.generate(#"{"prompt":""}"#, headers: headers)
        let nothing = try await client.execute(uri: "/nothing", method: .get, headers: headers)
        #expect([image, stream, wrong, nothing].map(\.status.code) == [200, 200, 400, 404])
        for response in [image, stream, wrong, nothing] {
          #expect(response.headers[.accessControlAllowOrigin] == Self.page)
          #expect(response.headers[.accessControlAllowCredentials] == "true")
          #expect(
            response.headers[.accessControlExposeHeaders]
              == "idempotent-replayed, location, retry-after, x-request-id, x-should-retry")
          #expect(response.headers[.vary] == "origin")
          #expect(response.headers[HTTPField.Name("x-request-id")!] != nil)
        }
        let job = try #require(image.headers[.location])
        let result = try await client.execute(uri: "\(job)/result", method: .get, headers: [.origin: Self.page])
        #expect(result.headers[.vary] == "accept, origin")
        // Caches have to know that it depends, also of answers to others.
        for origin in [
          nil, "https://evil.example", "http://localhost:3001", "https://localhost:3000",
          "http://localhost:3000.evil.example", "null",
        ] {
          var headers: HTTPFields = [:]
          headers[.origin] = origin
          let other = try await client.execute(uri: "/v1/models", method: .get, headers: headers)
          #expect(other.status == .ok && Self.hasNone(other) && other.headers[.vary] == "origin", "\(origin ?? "none")")
        }
      }
    }
  }

  @Test func allOriginsAreAllowedWithoutCredentials() async throws {
    try await ToyCluster.run { cluster in
      try await cluster.app(settings: Self.settings(["*"])).test(.live) { client in
        for origin in [Self.page, "null", "https://evil.example"] {
          let preflight = try await client.execute(
            uri: "/v1/jobs", method: .options, headers: Self.preflight("GET", origin: origin))
          let answer = try await client.execute(uri: "/v1/jobs", method: .get, headers: [.origin: origin])
          #expect(preflight.status == .noContent && answer.status == .ok)
          for response in [preflight, answer] {
            #expect(response.headers[.accessControlAllowOrigin] == "*")
            #expect(response.headers[.accessControlAllowCredentials] == nil)
          }
          #expect(answer.headers[.vary] == nil)
        }
      }
    }
  }

  @Test(arguments: [[], ["https://a.example"]]) func otherPagesAreRefusedAndTheErrorSaysHowToAllowThem(
    allowed: [String]
  ) async throws {
    try await ToyCluster.run { cluster in
      try await cluster.app(settings: Self.settings(allowed)).test(.live) { client in
        let response = try await client.execute(
          uri: "/v1/images/generations", method: .options, headers: Self.preflight("POST"))
        #expect(response.status == .forbidden && Self.hasNone(response))
        #expect(try response.error?["code"]?.text == "origin_not_allowed")
        #expect(try response.error?["message"]?.text?.contains("--http-allowed-origins \(Self.page)") == true)
        // Nothing is said of origins to those who have none, and nothing at all where none is allowed.
        let answer = try await client.execute(uri: "/v1/models", method: .get, headers: [.origin: Self.page])
        #expect(answer.status == .ok && Self.hasNone(answer))
        #expect(answer.headers[.vary] == (allowed.isEmpty ? nil : "origin"))
        // What is no preflight is a request like any other.
        let plain = try await client.execute(uri: "/v1/models", method: .options, headers: [.origin: Self.page])
        #expect(plain.status == .methodNotAllowed)
      }
    }
  }

  /// A preflight opens no route: neither for itself nor for a request that pretends to be one.
  @Test func preflightsDoNotReplaceAKey() async throws {
    let keys = AccessTests.Keys()
    _ = try keys.add("acme")
    let keyring = try Keyring(path: keys.path, logger: Toy.logger)
    try await ToyCluster.run { cluster in
      try await cluster.app(keyring: keyring, settings: Self.settings([Self.page])).test(.live) { client in
        for method in [HTTPRequest.Method.get, .post, .delete, .head, .put] {
          let response = try await client.execute(uri: "/v1/jobs", method: method, headers: Self.preflight("POST"))
          #expect(response.status == .unauthorized, "\(method)")
        }
        #expect(
          try await client.execute(uri: "/v1/jobs", method: .options, headers: [.origin: Self.page]).status
            == .unauthorized)
        #expect(try await client.execute(uri: "/v1/jobs", method: .options).status == .unauthorized)
        // A page can read that its key is wrong.
        let refused = try await client.execute(uri: "/v1/jobs", method: .get, headers: [.origin: Self.page])
        #expect(refused.status == .unauthorized && refused.headers[.accessControlAllowOrigin] == Self.page)
      }
    }
  }

  @Test func originsAreComparedAsBrowsersWriteThem() {
    #expect(
      OriginPolicy(allowed: ["HTTPS://A.Example:443", "http://b.example:80", "http://[::1]:3000"])
        == .only(["https://a.example", "http://b.example", "http://[::1]:3000"]))
    #expect(
      OriginPolicy(allowed: ["http://a.example:443", "app://localhost"])
        == .only(["http://a.example:443", "app://localhost"]))
    #expect(OriginPolicy(allowed: ["http://a.example", "*"]) == .any)
    #expect(OriginPolicy(allowed: []) == .only([]))
  }
}
