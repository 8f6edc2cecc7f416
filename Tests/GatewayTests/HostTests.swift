import Foundation
import Gateway
import HTTPTesting
import Hummingbird
import NIOCore
import Testing

@Suite("Hosts that requests are for", .timeLimit(.minutes(2)))
struct HostTests {
  @Test(
    arguments: [
      ("localhost", "localhost", nil), ("LocalHost:8080", "localhost", 8080), ("localhost.", "localhost", nil),
      ("127.0.0.1:1", "127.0.0.1", 1), ("[::1]:65535", "[::1]", 65535), ("[::1]", "[::1]", nil),
      ("a_b.example-1.org:", "a_b.example-1.org", nil),
    ] as [(String, String, Int?)])
  func hostsAndPortsAreRead(text: String, host: String, port: Int?) throws {
    let authority = try #require(Authority(text))
    #expect(authority.host == host && authority.port == port)
  }

  @Test(arguments: [
    "", ":80", "a b", "a,b", "user@localhost", "localhost/x", "localhost?x", "localhost#x", "a\\b", "%6cocalhost",
    "localhost:65536",
    "localhost:-1", "localhost:8o", "localhost:80:80", "::1", "[::1", "[::1]x", "[localhost]", "[fe80::1%25eth0]",
    "a..b", ".a", ".",
    "löcalhost", "localhost\u{0}", "\"localhost\"", "http://localhost", String(repeating: "a", count: 256),
  ])
  func whatIsNoHostIsNotTakenForOne(text: String) { #expect(Authority(text) == nil) }

  @Test(arguments: [
    ("localhost", true), ("127.0.0.1", true), ("127.255.255.254", true), ("[::1]", true), ("[0:0:0:0:0:0:0:1]", true),
    ("[::ffff:127.0.0.1]", true), ("128.0.0.1", false), ("0.0.0.0", false), ("[::]", false), ("[::2]", false),
    ("[::ffff:10.0.0.1]", false),
    ("localhost.example", false), ("127.0.0.1.example", false), ("xlocalhost", false), ("0127.0.0.1", false),
    ("2130706433", false),
  ])
  func loopbackIsRecognised(text: String, isLoopback: Bool) throws {
    #expect(try #require(Authority(text)).isLoopback == isLoopback)
  }

  @Test func theListenersAddressDecidesWhatIsAllowed() {
    for bindHost in ["127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"] {
      #expect(HostPolicy(bindHost: bindHost, allowed: []) == .loopback(and: []))
      #expect(HostPolicy(bindHost: bindHost, allowed: ["*"]) == .any)
    }
    for bindHost in ["0.0.0.0", "::", "", "192.0.2.1", "box.example"] {
      #expect(HostPolicy(bindHost: bindHost, allowed: []) == .any)
      #expect(
        HostPolicy(bindHost: bindHost, allowed: ["Box.Example.", "192.0.2.1"])
          == .loopback(and: ["box.example", "192.0.2.1"]))
    }
  }

  private static func status(
    _ port: Int, _ target: String, _ hosts: [String], version: String = "1.1", _ more: String = ""
  ) async throws
    -> Int
  {
    let fields = hosts.map { "Host: \($0)\r\n" }.joined()
    return try await RawClient.statuses(
      port, ["GET \(target) HTTP/\(version)\r\n\(fields)\(more)connection: close\r\n\r\n"])[0]
  }

  /// A page whose name is made to mean 127.0.0.1 gets nothing, whatever it asks for.
  @Test func aServerOnLoopbackIsForLoopbackAlone() async throws {
    try await ToyCluster.run { cluster in
      try await cluster.app().test(.live) { client in
        let port = try #require(client.port)
        for host in [
          "localhost", "localhost:\(port)", "127.0.0.1:\(port)", "127.0.0.1", "127.9.9.9:1", "[::1]:\(port)",
          "LOCALHOST.",
        ] {
          #expect(try await Self.status(port, "/v1/jobs", [host]) == 200, "\(host)")
        }
        for host in [
          "rebind.attacker.example", "rebind.attacker.example:\(port)", "x", "0.0.0.0", "192.0.2.1",
          "localhost.attacker.example",
        ] {
          for target in ["/v1/jobs", "/", "/metrics", "/healthz", "/nothing", "http://\(host)/v1/jobs"] {
            #expect(try await Self.status(port, target, [host]) == 421, "\(host) \(target)")
          }
          // Not by a field of the gateway's own, nor by another name of the host.
          let tricks = "x-gateway-request-version: 1.0\r\nx-forwarded-host: localhost\r\nforwarded: host=localhost\r\n"
          #expect(try await Self.status(port, "/v1/jobs", [host], tricks) == 421, "\(host)")
        }
        // An absolute target goes before the field.
        #expect(try await Self.status(port, "http://attacker.example/v1/jobs", ["localhost"]) == 421)
        #expect(try await Self.status(port, "http://localhost/v1/jobs", ["attacker.example"]) == 200)
        #expect(try await Self.status(port, "HTTP://127.0.0.1:1?x", ["localhost"]) == 200)
        for hosts in [
          [], ["localhost", "localhost"], ["localhost", "x"], [""], ["localhost, x"], ["user@localhost"],
          ["local host"],
        ] {
          #expect(try await Self.status(port, "/v1/jobs", hosts) == 400, "\(hosts)")
        }
        for target in ["ftp://localhost/v1/jobs", "http://user@localhost/v1/jobs", "http:///v1/jobs", "http://"] {
          #expect(try await Self.status(port, target, ["localhost"]) == 400, "\(target)")
        }
        // HTTP/1.0 does without, and no browser speaks it.
        #expect(try await Self.status(port, "/v1/jobs", [], version: "1.0") == 200)
        #expect(try await Self.status(port, "/v1/jobs", ["x"], version: "1.0") == 200)
        let refused = try await RawClient.exchange(
          port, "GET /v1/jobs HTTP/1.1\r\nHost: a.example\r\nconnection: close\r\n\r\n")
        #expect(
          refused.contains(#""code":"host_not_allowed""#) && refused.contains("--http-allowed-hosts a.example"),
          "\(refused)")
      }
    }
  }

  @Test func allowedHostsAreServed() async throws {
    var settings = HTTPSettings()
    for (hosts, expected) in [
      (HostPolicy(bindHost: "127.0.0.1", allowed: ["box.example"]), 421),
      (HostPolicy(bindHost: "0.0.0.0", allowed: ["box.example"]), 421),
      (HostPolicy(bindHost: "0.0.0.0", allowed: []), 200), (HostPolicy(bindHost: "127.0.0.1", allowed: ["*"]), 200),
    ] {
      settings.hosts = hosts
      try await ToyCluster.run { cluster in
        try await cluster.app(settings: settings).test(.live) { client in
          let port = try #require(client.port)
          #expect(try await Self.status(port, "/v1/jobs", ["box.example:81"]) == 200)
          #expect(try await Self.status(port, "/v1/jobs", ["localhost"]) == 200)
          #expect(try await Self.status(port, "/v1/jobs", ["other.example"]) == expected)
          #expect(try await Self.status(port, "/v1/jobs", []) == 400)
        }
      }
    }
  }
}
