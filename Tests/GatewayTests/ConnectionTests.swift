import ClusterCore
import Foundation
import Gateway
import GatewayDispatch
import HTTPTesting
import Hummingbird
import NIOCore
import Scheduling
import TestSupport
import Testing
import Wire

@Suite("Connections that misbehave", .timeLimit(.minutes(2)))
struct ConnectionTests {
  /// Runs `body` with the port of a server whose cluster has a slow denoiser.
  static func serve(
    _ limits: HTTPLimits = HTTPLimits(), stepTime: Duration = .milliseconds(50), time: any TimeSource = SystemTime(),
    _ body: @Sendable @escaping (ToyCluster, ToyWorker, Int) async throws -> Void
  ) async throws {
    try await ToyCluster.run { cluster in
      let workers = try await cluster.joinAll(stepTime: stepTime, time: time)
      try await cluster.app(limits).test(.live) { client in
        try await body(cluster, workers.denoiser, #require(client.port))
      }
    }
  }

  @Test(arguments: [false, true]) func aClientThatLeavesCancelsItsJobs(isStreamed: Bool) async throws {
    let time = ManualTime(), stepTime = Duration.milliseconds(50)
    try await Self.serve(stepTime: stepTime, time: time) { cluster, denoiser, port in
      try await RawClient.connect(port) { inbound, outbound in
        try await outbound.write(
          ByteBuffer(string: RawClient.post(#"{"prompt":"a cat","n":3,"steps":50,"stream":\#(isStreamed)}"#)))
        try await time.advance(by: stepTime, times: 3)
        #expect(await cluster.dispatcher.openImageCount == 3)
        if isStreamed {
          let head = try await RawClient.read(&inbound) { $0.contains("image_generation.progress") }
          #expect(head.hasPrefix("HTTP/1.1 200"))
        }
      }
      try await wait("the jobs are gone") { await cluster.dispatcher.openImageCount == 0 }
      try await wait("the denoiser gets the cancellation") { await !denoiser.log.cancelled.isEmpty }
      #expect(await denoiser.log.steps == 3)
      // And serves the next.
      async let next = cluster.image("a dog", seed: 3)
      try await time.advance(by: stepTime, times: 4)
      #expect(try await next == Toy.expected(prompt: "a dog", seed: 3))
      #expect(await denoiser.log.tasks.count == 2, "the other jobs of the request never reached the denoiser")
    }
  }

  @Test func aClientThatLeavesWhileItsJobWaitsFreesItsPlace() async throws {
    try await Self.serve { cluster, denoiser, port in
      let running = Task { try await cluster.image("long", seed: 1, steps: 30) }
      try await wait("the denoiser is busy") { await denoiser.log.steps > 0 }
      try await RawClient.connect(port) { _, outbound in
        try await outbound.write(ByteBuffer(string: RawClient.post(#"{"prompt":"a cat"}"#)))
        try await wait("both are there") { await cluster.dispatcher.openImageCount == 2 }
      }
      try await wait("one is gone") { await cluster.dispatcher.openImageCount == 1 }
      #expect(try await running.value == Toy.expected(prompt: "long", seed: 1, steps: 30))
      #expect(await denoiser.log.tasks.count == 1)
    }
  }

  @Test func theHealthProbeAsksTheServer() async throws {
    try await Self.serve(HTTPLimits()) { _, _, port in
      var configuration = GatewayConfiguration()
      configuration.port = port
      for host in ["127.0.0.1", "0.0.0.0", "localhost"] {
        configuration.host = host
        #expect(await GatewayProcess.isHealthy(configuration), "\(host)")
      }
    }
  }

  @Test func aSlowBodyIsRefused() async throws {
    var limits = HTTPLimits()
    limits.bodyTimeout = .milliseconds(300)
    try await Self.serve(limits) { _, _, port in
      let answer = try await RawClient.exchange(
        port,
        "POST /v1/images/generations HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: "
          + "100\r\n\r\n{\"prompt\""
      )
      #expect(answer.hasPrefix("HTTP/1.1 408"))
      #expect(answer.contains(#""code":"request_timeout""#))
    }
  }

  /// Sooner than without the setting, which would take a minute.
  @Test(.timeLimit(.minutes(1))) func aSlowHeaderIsCutOff() async throws {
    var limits = HTTPLimits()
    // A busy machine may take a while from the connection to the first byte.
    limits.idleTimeout = .seconds(2)
    try await Self.serve(limits) { _, _, port in
      try await RawClient.connect(port) { inbound, outbound in
        try await outbound.write(ByteBuffer(string: "POST /v1/images/generations HTTP/1.1\r\nhost"))
        #expect(try await RawClient.read(&inbound) { _ in false } == "")
      }
    }
  }

  /// Every byte comes in time, the header never ends.
  @Test(.timeLimit(.minutes(1))) func aHeaderThatTricklesIsCutOff() async throws {
    var limits = HTTPLimits()
    limits.idleTimeout = .milliseconds(500)
    try await Self.serve(limits) { _, _, port in
      try await RawClient.connect(port) { inbound, outbound in
        let trickle = Task {
          for byte in "GET /healthz HTTP/1.1\r\nx-long: " + String(repeating: "x", count: 1000) {
            try await outbound.write(ByteBuffer(string: String(byte)))
            try await Task.sleep(for: .milliseconds(50))
          }
        }
        defer { trickle.cancel() }
        let answer = try? await RawClient.read(&inbound) { _ in false }
        #expect(answer ?? "" == "")
      }
    }
  }

  /// A connected socket that is read only when a test says so.
  private static func socket(_ port: Int) throws -> Int32 {
    let descriptor = Foundation.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var timeout = timeval(tv_sec: 10, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = in_port_t(port).bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    let status = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    try #require(status == 0)
    return descriptor
  }

  private static func health(_ descriptor: Int32) -> String {
    let request = Array("GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".utf8)
    guard send(descriptor, request, request.count, Int32(MSG_NOSIGNAL)) == request.count else { return "" }
    var answer = [UInt8](repeating: 0, count: 4096)
    let count = recv(descriptor, &answer, answer.count, 0)
    return String(decoding: answer.prefix(max(0, count)), as: UTF8.self)
  }

  @Test func oneAddressCannotTakeAllConnections() async throws {
    var limits = HTTPLimits()
    limits.maxConnectionsPerAddress = 3
    try await Self.serve(limits) { _, _, port in
      let connections = try (0..<3).map { _ in try Self.socket(port) }
      for connection in connections { #expect(Self.health(connection).hasPrefix("HTTP/1.1 200")) }
      let surplus = try Self.socket(port)
      #expect(Self.health(surplus) == "")
      for connection in connections + [surplus] { close(connection) }
      try await wait("new connections are accepted again") {
        let connection = try Self.socket(port)
        defer { close(connection) }
        return Self.health(connection).hasPrefix("HTTP/1.1 200")
      }
    }
  }

  /// A client that asks again and again and never reads.
  @Test func anAnswerThatIsNotReadEndsItsConnection() async throws {
    var limits = HTTPLimits()
    limits.writeTimeout = .milliseconds(500)
    try await Self.serve(limits) { _, _, port in
      let descriptor = try Self.socket(port)
      defer { close(descriptor) }
      let requests = Array(String(repeating: "GET /openapi.yaml HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", count: 50).utf8)
      try await wait("the connection is closed") {
        send(descriptor, requests, requests.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT)) < 0 && errno != EAGAIN
      }
    }
  }

  @Test func aLargeBodyIsRefusedHoweverItComes() async throws {
    var limits = HTTPLimits()
    limits.maxBodyBytes = 2000
    try await Self.serve(limits) { _, _, port in
      let announced = try await RawClient.exchange(
        port,
        "POST /v1/images/generations HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: "
          + "999999999999\r\n\r\n{"
      )
      #expect(announced.hasPrefix("HTTP/1.1 413"))
      #expect(announced.contains("the limit is 2000"))
      let chunk = "400\r\n\(String(repeating: " ", count: 0x400))\r\n"
      let chunked = try await RawClient.exchange(
        port,
        "POST /v1/images/generations HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
          + "transfer-encoding: chunked\r\n\r\n\(chunk)\(chunk)\(chunk)"
      )
      #expect(chunked.hasPrefix("HTTP/1.1 413"))
      #expect(chunked.contains(#""code":"body_too_large""#))
    }
  }

  @Test func largeHeadersAreRefused() async throws {
    try await Self.serve { _, _, port in
      let answer = try await RawClient.exchange(
        port, "GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nx-long: \(String(repeating: "x", count: 40_000))\r\n\r\n")
      #expect(answer.hasPrefix("HTTP/1.1 431"))
      #expect(answer.contains(#""code":"headers_too_large""#))
      let many = (0..<200).map { "x-\($0): 1\r\n" }.joined()
      #expect(
        try await RawClient.exchange(port, "GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\(many)\r\n").hasPrefix(
          "HTTP/1.1 431"))
    }
  }

  @Test func whatIsNotHTTPIsRefused() async throws {
    try await Self.serve { _, _, port in
      for text in ["\u{0}\u{1}\u{2}\r\n\r\n", "GET /healthz HTTP/9.9\r\n\r\n", "GET\r\n\r\n"] {
        let answer = try await RawClient.exchange(port, text)
        #expect(answer.hasPrefix("HTTP/1.1 400"), "\(text)")
        #expect(answer.contains(#""code":"malformed_request""#), "\(answer)")
      }
    }
  }

  @Test func aSilentStreamSaysThatItIsAlive() async throws {
    var limits = HTTPLimits()
    limits.keepAliveInterval = .milliseconds(50)
    let time = ManualTime(), stepTime = Duration.milliseconds(400)
    try await Self.serve(limits, stepTime: stepTime, time: time) { _, _, port in
      try await RawClient.connect(port) { inbound, outbound in
        try await outbound.write(ByteBuffer(string: RawClient.post(#"{"prompt":"a cat","steps":2,"stream":true}"#)))
        let silence = try await RawClient.read(&inbound) { $0.components(separatedBy: ": still here").count > 4 }
        #expect(silence.hasPrefix("HTTP/1.1 200 ") && !silence.contains("image_generation.completed"))
        try await time.advance(by: stepTime, times: 2)
        let rest = try await RawClient.read(&inbound) { $0.contains("image_generation.completed") }
        #expect(rest.contains("event: image_generation.completed"))
      }
    }
  }

  /// The rest of the connection is no HTTP, but the answer that is being made arrives whole.
  @Test func nonsenseBehindARequestDoesNotSpoilItsAnswer() async throws {
    try await Self.serve { _, _, port in
      let answer = try await RawClient.exchange(
        port, RawClient.post(#"{"prompt":"a cat","seed":1}"#) + "\u{0}\u{1}\r\n\r\n")
      #expect(answer.hasPrefix("HTTP/1.1 "))
      #expect(answer.components(separatedBy: "HTTP/1.1 ").count == 2)
    }
  }

  @Test func twoRequestsOnOneConnectionAreAnsweredInOrder() async throws {
    try await Self.serve { _, _, port in
      try await RawClient.connect(port) { inbound, outbound in
        try await outbound.write(
          ByteBuffer(string: RawClient.post("{}") + "GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"))
        let answer = try await RawClient.read(&inbound) { $0.contains("toy/model") }
        #expect(answer.hasPrefix("HTTP/1.1 400"))
        #expect(answer.contains("HTTP/1.1 200"))
      }
    }
  }
}
