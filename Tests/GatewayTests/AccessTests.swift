import AccessKeys
import Foundation
import Gateway
import GatewayDispatch
import HTTPTesting
import HTTPTypes
import Hummingbird
import NIOCore
import StrictJSON
import Synchronization
import Testing

@Suite("Who may ask", .timeLimit(.minutes(2)))
struct AccessTests {
  /// A file of keys, and those keys.
  final class Keys: Sendable {
    let path = NSTemporaryDirectory() + "keys-\(UInt64.random(in: 0 ... .max))"
    private let entries = Mutex<[AccessEntry]>([])

    func add(_ tenant: String, _ change: (inout AccessLimits) -> Void = { _ in }) throws -> AccessKey {
      var limits = AccessLimits()
      change(&limits)
      let key = AccessKey.generate()
      entries.withLock { $0.append(AccessEntry(key, tenant: tenant, limits: limits)) }
      try write()
      return key
    }

    func removeFirst() throws {
      entries.withLock { _ = $0.removeFirst() }
      try write()
    }

    func write(_ more: String = "") throws {
      let lines = entries.withLock { $0.map(\.line) }
      try Data((lines.joined(separator: "\n") + "\n" + more).utf8).write(to: URL(filePath: path), options: .atomic)
    }
  }

  static func headers(_ key: AccessKey) -> HTTPFields {
    [.authorization: "Bearer \(key.text)", .contentType: "application/json"]
  }

  @Test func onlyKeysOfTheFileAreLetIn() async throws {
    let keys = Keys()
    let key = try keys.add("acme")
    let keyring = try Keyring(path: keys.path, logger: Toy.logger, refresh: .milliseconds(10))
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app(keyring: keyring).test(.live) { client in
        #expect(
          try await client.generate(#"{"prompt":"p","seed":1}"#, headers: Self.headers(key)).image()
            == Toy.expected(prompt: "p", seed: 1)
        )
        for header in [
          nil, "", "Bearer", "Bearer \(AccessKey.generate().text)", "Basic \(key.text)", key.text,
          "Bearer \(key.text)0",
        ] {
          var headers = JobsTests.json
          headers[.authorization] = header
          for uri in ["/v1/models", "/v1/jobs", "/v1/workers"] {
            let response = try await client.execute(uri: uri, method: .get, headers: headers)
            #expect(response.status == .unauthorized, "\(header ?? "nil") \(uri)")
            #expect(try response.error?["code"]?.text == "invalid_api_key")
            #expect(response.headers[.wwwAuthenticate] == "Bearer")
          }
          #expect(try await client.generate(#"{"prompt":"p"}"#, headers: headers).status == .unauthorized)
        }
        for uri in ["/healthz", "/readyz", "/metrics", "/openapi.yaml"] {
          #expect(try await client.execute(uri: uri, method: .get).status == .ok, "probes need no key: \(uri)")
        }
      }
    }
  }

  @Test func keysComeAndGoWithoutARestart() async throws {
    let keys = Keys()
    let first = try keys.add("acme")
    let keyring = try Keyring(path: keys.path, logger: Toy.logger, refresh: .zero)
    let second = try keys.add("acme")
    try await ToyCluster.run { cluster in
      try await cluster.app(keyring: keyring).test(.live) { client in
        func status(_ key: AccessKey) async throws -> Int {
          try await client.execute(uri: "/v1/jobs", method: .get, headers: Self.headers(key)).status.code
        }
        #expect(try await status(second) == 200)
        try keys.removeFirst()
        #expect(try await status(first) == 401)
        #expect(try await status(second) == 200)
        // A file that is wrong changes nothing.
        try keys.write("nonsense\n")
        #expect(try await status(second) == 200)
        try FileManager.default.removeItem(atPath: keys.path)
        #expect(try await status(second) == 200)
        try keys.removeFirst()
        #expect(try await status(second) == 401)
      }
    }
  }

  @Test func tenantsDoNotSeeEachOther() async throws {
    let keys = Keys()
    let (acme, zeta, acmeToo) = (try keys.add("acme"), try keys.add("zeta"), try keys.add("acme"))
    let keyring = try Keyring(path: keys.path, logger: Toy.logger)
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app(keyring: keyring).test(.live) { client in
        let id = try #require(try await client.submit(#"{"prompt":"p"}"#, Self.headers(acme)).json["id"]?.text)
        for uri in ["/v1/jobs/\(id)", "/v1/jobs/\(id)/events", "/v1/jobs/\(id)/result", "/v1/jobs?after=\(id)"] {
          #expect(
            try await client.execute(uri: uri, method: .get, headers: Self.headers(zeta)).status == .notFound, "\(uri)")
        }
        #expect(
          try await client.execute(uri: "/v1/jobs/\(id)", method: .delete, headers: Self.headers(zeta)).status
            == .notFound)
        let list = try await client.execute(uri: "/v1/jobs", method: .get, headers: Self.headers(zeta))
        #expect(try list.json["data"]?.elements?.isEmpty == true)
        // Keys of one tenant are the same tenant.
        #expect(
          try await client.execute(uri: "/v1/jobs/\(id)", method: .get, headers: Self.headers(acmeToo)).status == .ok)
        // The same idempotency key of another tenant is another key.
        let ids = try await [acme, zeta].asyncMap { key in
          var headers = Self.headers(key)
          headers[HTTPField.Name("idempotency-key")!] = "k"
          return try await client.submit(#"{"prompt":"p"}"#, headers).json["id"]?.text
        }
        #expect(Set(ids).count == 2)
      }
    }
  }

  /// Of other gateways of the journal; each tenant's minute is its own.
  @Test func requestsElsewhereCount() async throws {
    let keys = Keys()
    let slow = try keys.add("slow") { $0.requestsPerMinute = 6 }
    let other = try keys.add("other") { $0.requestsPerMinute = 6 }
    let keyring = try Keyring(path: keys.path, logger: Toy.logger)
    keyring.noteSpentElsewhere(["slow": 5, "unknown": 5])
    try await ToyCluster.run { cluster in
      try await cluster.app(keyring: keyring).test(.live) { client in
        var codes: [Int] = []
        for key in [slow, slow, other, other] {
          codes.append(try await client.execute(uri: "/v1/jobs", method: .get, headers: Self.headers(key)).status.code)
        }
        #expect(codes == [200, 429, 200, 200])
      }
    }
    #expect(keyring.spent == ["slow": 1, "other": 2])
  }

  @Test func limitsOfTenantsHold() async throws {
    let keys = Keys()
    let small = try keys.add("small") { ($0.maxPixels, $0.maxSteps, $0.maxJobs) = (64 * 64, 5, 1) }
    let slow = try keys.add("slow") { $0.requestsPerMinute = 3 }
    let keyring = try Keyring(path: keys.path, logger: Toy.logger)
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll(stepTime: .milliseconds(50))
      keyring.follow { tenants in Task { await cluster.dispatcher.setTenants(tenants) } }
      try await cluster.app(keyring: keyring).test(.live) { client in
        for (body, param) in [(#"{"prompt":"p","size":"128x64"}"#, "size"), (#"{"prompt":"p","steps":6}"#, "steps")] {
          let response = try await client.submit(body, Self.headers(small))
          #expect(response.status == .forbidden)
          #expect(try response.error?["code"]?.text == "permission_denied")
          #expect(try response.error?["param"]?.text == param)
        }
        try await wait("the limit of jobs holds") {
          let first = try await client.submit(#"{"prompt":"p","steps":5}"#, Self.headers(small))
          let second = try await client.submit(#"{"prompt":"p","steps":5}"#, Self.headers(small))
          return first.status == .accepted && second.status == .tooManyRequests
        }
        var codes: [Int] = []
        for _ in 0..<4 {
          codes.append(try await client.execute(uri: "/v1/jobs", method: .get, headers: Self.headers(slow)).status.code)
        }
        #expect(codes == [200, 200, 200, 429])
        let refused = try await client.execute(uri: "/v1/jobs", method: .get, headers: Self.headers(slow))
        #expect(try refused.error?["code"]?.text == "rate_limit_exceeded")
        #expect(try #require(refused.headers[.retryAfter].flatMap { Int($0) }) <= 20)
      }
    }
  }

  /// Neither a key nor an idempotency key is ever written to the log or the metrics.
  @Test func noSecretReachesTheLog() async throws {
    let keys = Keys()
    let key = try keys.add("acme")
    let stranger = AccessKey.generate()
    let ended = try await GatewayProgram.serving([
      "--http-port=0", "--cluster-endpoints", ToyCluster.freshEndpoint, "--http-api-keys-file", keys.path,
      "--log-level", "trace",
    ]) { _, port in
      for text in [key.text, stranger.text] {
        let answer = try await RawClient.exchange(
          port,
          "GET /v1/jobs?x=1 HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer \(text)\r\nconnection: close\r\n\r\n")
        #expect(answer.hasPrefix(text == key.text ? "HTTP/1.1 400" : "HTTP/1.1 401"))
        #expect(!answer.contains(text.suffix(64)))
      }
    }
    #expect(ended.output.contains("/v1/jobs"))
    for text in [key.text, stranger.text] { #expect(!ended.output.contains(text.suffix(64))) }
  }

  @Test func aWrongFileKeepsTheGatewayFromStarting() async throws {
    let keys = Keys()
    try keys.write("id=1\n")
    let result = try await GatewayProgram.run([
      "--http-port=0", "--cluster-endpoints", ToyCluster.freshEndpoint, "--http-api-keys-file", keys.path,
    ])
    #expect(result.status == .exited(1))
    #expect(result.output.contains("line 2: id must have 12 hexadecimal digits"), "\(result.output)")
  }
}

extension Sequence {
  fileprivate func asyncMap<Result>(_ transform: (Element) async throws -> Result) async throws -> [Result] {
    var results: [Result] = []
    for element in self { results.append(try await transform(element)) }
    return results
  }
}
