import Foundation
import Gateway
import GatewayDispatch
import HTTPTesting
import Hummingbird
import NIOCore
import Testing

@Suite("Expect: 100-continue", .timeLimit(.minutes(2)))
struct ExpectationTests {
  /// A request whose body is held back.
  static func head(
    _ path: String, length: Int, contentType: String = "application/json", expect: String = "100-continue",
    host: String = "127.0.0.1",
    version: String = "1.1"
  ) -> String {
    "POST \(path) HTTP/\(version)\r\nhost: \(host)\r\ncontent-type: \(contentType)\r\ncontent-length: \(length)\r\n"
      + "expect: \(expect)\r\n\r\n"
  }

  @Test(arguments: ["100-continue", "100-Continue"]) func theBodyIsAskedFor(expect: String) async throws {
    try await ConnectionTests.serve(stepTime: .milliseconds(1)) { _, _, port in
      try await RawClient.connect(port) { inbound, outbound in
        // Twice, on one connection.
        for _ in 0..<2 {
          let body = #"{"prompt":"a cat","seed":1}"#
          try await outbound.write(ByteBuffer(string: Self.head("/v1/jobs", length: body.utf8.count, expect: expect)))
          let interim = try await RawClient.read(&inbound) { $0.hasSuffix("\r\n\r\n") }
          #expect(interim == "HTTP/1.1 100 Continue\r\n\r\n")
          try await outbound.write(ByteBuffer(string: body))
          let answer = try await RawClient.read(&inbound) { $0.hasSuffix("}") }
          #expect(answer.hasPrefix("HTTP/1.1 202 "), "\(answer)")
        }
      }
    }
  }

  @Test func aBodyThatCameByItselfIsTaken() async throws {
    try await ConnectionTests.serve(stepTime: .milliseconds(1)) { _, _, port in
      let body = #"{"prompt":"a cat","seed":1}"#
      let answer = try await RawClient.exchange(
        port, Self.head("/v1/images/generations", length: body.utf8.count) + body)
      #expect(answer.contains("HTTP/1.1 200 ") && answer.contains("b64_json"))
    }
  }

  /// The client waits: without an answer both would.
  @Test func whatIsRefusedAnywayIsRefusedWithoutItsBody() async throws {
    let keys = AccessTests.Keys()
    _ = try keys.add("acme")
    let keyring = try Keyring(path: keys.path, logger: Toy.logger)
    try await ToyCluster.run { cluster in
      for (keyring, head, status) in [
        (nil, Self.head("/v1/jobs", length: 1 << 30), 413),
        (nil, Self.head("/v1/jobs", length: 9, contentType: "text/plain"), 415),
        (nil, Self.head("/nothing", length: 9), 404), (nil, Self.head("/v1/models", length: 9), 405),
        (nil, Self.head("/v1/jobs", length: 9, host: "a.example"), 421),
        (keyring, Self.head("/v1/jobs", length: 9), 401),
        (nil, Self.head("/v1/jobs", length: 9, expect: "200-ok"), 417),
        (nil, Self.head("/v1/jobs", length: 9, expect: "100-continue, x"), 417),
        (nil, Self.head("/v1/jobs", length: 9, expect: ""), 417),
      ] as [(Keyring?, String, Int)] {
        try await cluster.app(keyring: keyring).test(.live) { client in
          let answer = try await RawClient.exchange(try #require(client.port), head)
          #expect(answer.hasPrefix("HTTP/1.1 \(status) "), "\(head) is answered with \(answer)")
          #expect(answer.lowercased().contains("\r\nconnection: close\r\n"))
        }
      }
    }
  }

  /// An unread body must not be read without end; a short one is dropped, and the connection is kept.
  @Test func onlyShortUnreadBodiesAreDropped() async throws {
    try await ConnectionTests.serve { _, _, port in
      let short =
        "PUT /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 4000\r\n\r\n"
        + String(repeating: "x", count: 4000)
      let next = "GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
      let both = try await RawClient.exchange(port, short + next)
      #expect(both.hasPrefix("HTTP/1.1 405 ") && both.contains("HTTP/1.1 200 "))
      for head in ["content-length: 70000000", "transfer-encoding: chunked"] {
        let answer = try await RawClient.exchange(port, "GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\(head)\r\n\r\n")
        #expect(
          answer.hasPrefix("HTTP/1.1 200 ") && answer.lowercased().contains("\r\nconnection: close\r\n"), "\(answer)")
      }
    }
  }
}

@Suite("Versions of HTTP", .timeLimit(.minutes(2)))
struct VersionTests {
  static func post(_ body: String, _ headers: String = "") -> String {
    "POST /v1/images/generations HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: \(body.utf8.count)\r\n"
      + "\(headers)\r\n\(body)"
  }

  /// RFC 9112, section 6.1: no transfer encoding to a client that does not know it; the connection's end is the
  /// stream's.
  @Test(arguments: ["", "connection: keep-alive\r\n", "expect: 100-continue\r\n", "host: x\r\n"])
  func streamsToHTTP1_0EndWithTheConnection(headers: String) async throws {
    try await ConnectionTests.serve(stepTime: .milliseconds(5)) { _, _, port in
      let answer = try await RawClient.exchange(
        port, Self.post(#"{"prompt":"a cat","seed":1,"steps":3,"stream":true}"#, headers))
      let parts = answer.components(separatedBy: "\r\n\r\n")
      let head = try #require(parts.first).lowercased()
      #expect(
        head.hasPrefix("http/1.0 200 ") && !head.contains("transfer-encoding")
          && head.contains("\r\nconnection: close"), "\(head)")
      #expect(parts.count == 2)
      let events = try APITests.events(parts[1])
      #expect(events.last?.name == "image_generation.completed")
    }
  }

  @Test func answersToHTTP1_0HaveALengthAndEndTheConnection() async throws {
    try await ConnectionTests.serve(stepTime: .milliseconds(1)) { cluster, _, port in
      let image = try await RawClient.exchange(
        port, Self.post(#"{"prompt":"a cat","seed":1}"#, "connection: keep-alive\r\n"))
      #expect(image.hasPrefix("HTTP/1.0 200 ") && image.contains("b64_json"))
      for (target, status) in [
        ("/healthz", 200), ("/", 200), ("/v1/jobs", 200), ("/nothing", 404), ("/v1/jobs/x/events", 404),
      ] {
        let answer = try await RawClient.exchange(port, "GET \(target) HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
          .lowercased()
        #expect(answer.hasPrefix("http/1.0 \(status) "), "\(target): \(answer.prefix(80))")
        #expect(
          answer.contains("\r\ncontent-length: ") && answer.contains("\r\nconnection: close\r\n")
            && !answer.contains("transfer-encoding"))
      }
      #expect(await cluster.dispatcher.openImageCount == 0)
    }
  }

  /// In any case of letters, and among other options.
  @Test(arguments: ["close", "Close", "close, TE", "TE, close"]) func aClientThatEndsItsConnectionIsObeyed(
    option: String
  ) async throws {
    try await ConnectionTests.serve { _, _, port in
      let answer = try await RawClient.exchange(
        port, "GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: \(option)\r\n\r\n")
      #expect(answer.hasPrefix("HTTP/1.1 200 ") && answer.lowercased().contains("\r\nconnection: close\r\n"))
    }
  }

  @Test func answersToHEADHaveNoBody() async throws {
    try await ConnectionTests.serve { _, _, port in
      let accepted = try await RawClient.exchange(
        port, RawClient.post(#"{"prompt":"p"}"#, path: "/v1/jobs", headers: "connection: close\r\n"))
      let location = try #require(accepted.split(separator: "\r\n").first { $0.lowercased().hasPrefix("location: ") })
      let job = location.dropFirst("location: ".count)
      for target in [
        "/healthz", "/", "/v1/models", "/v1/jobs", "/nothing", "/openapi.yaml", "\(job)", "\(job)/events",
        "\(job)/result",
      ] {
        let answer = try await RawClient.exchange(
          port, "HEAD \(target) HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        #expect(
          answer.hasSuffix("\r\n\r\n") && answer.components(separatedBy: "\r\n\r\n").count == 2,
          "\(target): \(answer.suffix(100))")
      }
    }
  }
}
