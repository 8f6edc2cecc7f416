import Foundation
import TestSupport
import Testing
import Transport
import Wire

@Suite("Who gets in", .serialized, .timeLimit(.minutes(5)))
struct SecurityTests {
  /// A gateway with an allow-list of one worker.
  struct Site {
    let directory: TemporaryDirectory
    let server: CurveKeyPair
    let worker: CurveKeyPair
    let router: RouterSocket
    let endpoint: String
    /// Of the router and its list.
    let time = ManualTime()
    let log = LogRecorder()

    init(options: SocketOptions = quickOptions) async throws {
      directory = try TemporaryDirectory()
      server = try CurveKeyPair.generate()
      worker = try CurveKeyPair.generate()
      try worker.publicKey.write(to: directory.path + "/denoiser-1.public")
      let allowList = try CurveAllowList(directory: directory.path, time: time)
      router = try await makeRouter(
        security: .curve(server, allowList: allowList), options: options, time: time, log: log)
      endpoint = try #require(await router.endpoints.first)
    }

    /// Whom the next message is from after a peer with `security` has connected and sent one; nil: it is refused.
    func sender(_ security: DealerSecurity) async throws -> String? {
      let dealer = try await makeDealer(endpoint, security: security)
      defer { Task { await dealer.close() } }
      let isIn = try await first(dealer.events) { event in
        switch event {
        case .connected: true
        case .refused: false
        default: nil
        }
      }
      guard isIn else { return nil }
      try await dealer.send(Envelope(body: .accepted))
      return try await nextMessage(router).authenticatedName
    }

    /// Whether the listed worker gets in, and nothing of another peer has come before its message.
    func servesItsWorker() async throws -> Bool {
      try await sender(.curve(worker, server: server.publicKey)) == "denoiser-1"
    }

    /// Waits until the router logs `message`.
    func logs(_ message: String) async throws {
      try await until("“\(message)” is logged") { log.records.contains { $0.message == message } }
    }
  }

  @Test("a listed worker gets in and is known by name; 16 MiB pass unharmed")
  func listed() async throws {
    let site = try await Site()
    let dealer = try await makeDealer(site.endpoint, security: .curve(site.worker, server: site.server.publicKey))
    try await waitUntilConnected(dealer)
    let sent = envelope(bytes: 16 << 20)
    try await dealer.send(sent)
    let inbound = try await nextMessage(site.router)
    #expect(inbound.authenticatedName == "denoiser-1" && inbound.envelope.tensors == sent.tensors)
    try await site.router.send(inbound.envelope, to: inbound.peer)
    #expect(try await nextMessage(dealer).tensors == sent.tensors)
    await dealer.close()
    await site.router.close()
  }

  @Test("a worker whose key is not listed is refused with the reason")
  func unlisted() async throws {
    let site = try await Site()
    let dealer = try await makeDealer(site.endpoint, security: .curve(try .generate(), server: site.server.publicKey))
    guard case .refused(let reason) = try await next(dealer.events) else {
      Issue.record("not refused")
      return
    }
    #expect(reason.contains("400"))
    await dealer.close()
    #expect(try await site.servesItsWorker())
    await site.router.close()
  }

  @Test("a worker that expects another server does not talk to this one")
  func wrongServer() async throws {
    let site = try await Site()
    let dealer = try await makeDealer(
      site.endpoint, security: .curve(site.worker, server: try CurveKeyPair.generate().publicKey))
    try await site.logs("refused a connection")
    #expect(await !wasConnected(dealer))
    #expect(try await site.servesItsWorker())
    await site.router.close()
  }

  @Test("a worker without keys is refused, and a worker with keys does not talk to a server without")
  func plaintextPeer() async throws {
    let site = try await Site()
    let naked = try await makeDealer(site.endpoint)
    try await site.logs("refused a connection")
    #expect(await !wasConnected(naked))
    #expect(try await site.servesItsWorker())
    await site.router.close()

    let log = LogRecorder()
    let open = try await makeRouter(log: log)
    let dealer = try await makeDealer(
      try #require(await open.endpoints.first), security: .curve(site.worker, server: site.server.publicKey))
    try await until("the router refuses it") { log.records.contains { $0.message == "refused a connection" } }
    #expect(await !wasConnected(dealer))
    await open.close()
  }

  @Test("keys are added and revoked while the gateway runs, also for connections that stand")
  func rotation() async throws {
    let site = try await Site()
    let newcomer = try CurveKeyPair.generate()
    let security = DealerSecurity.curve(newcomer, server: site.server.publicKey)
    #expect(try await site.sender(security) == nil)
    try newcomer.publicKey.write(to: site.directory.path + "/newcomer.public")
    site.time.advance(by: .seconds(1))
    #expect(try await site.sender(security) == "newcomer")

    let standing = try await makeDealer(site.endpoint, security: security)
    try await waitUntilConnected(standing)
    try FileManager.default.removeItem(atPath: site.directory.path + "/newcomer.public")
    site.time.advance(by: .seconds(1))
    try await standing.send(Envelope(body: .accepted))
    try await site.logs("dropped a message of a client whose key has been revoked")
    #expect(try await site.servesItsWorker())
    #expect(try await site.sender(security) == nil)
    await standing.close()
    await site.router.close()
  }

  @Test("a worker that is refused tries again after a pause, and gets in once its key is listed")
  func retry() async throws {
    let site = try await Site()
    let newcomer = try CurveKeyPair.generate()
    let time = ManualTime()
    let dealer = try await makeDealer(
      site.endpoint, security: .curve(newcomer, server: site.server.publicKey), time: time)
    let pause = Duration.milliseconds(quickOptions.maxReconnectIntervalMs)
    for attempt in 1...2 {
      guard case .refused = try await next(dealer.events) else {
        Issue.record("attempt \(attempt) is not refused")
        return
      }
      try await time.untilAsleep(for: pause)
      if attempt == 2 {
        try newcomer.publicKey.write(to: site.directory.path + "/newcomer.public")
        site.time.advance(by: .seconds(1))
      }
      time.advance(by: pause)
    }
    try await waitUntilConnected(dealer)
    await dealer.close()
    await site.router.close()
  }

  @Test("a peer that opens a connection and says nothing is dropped")
  func silentPeer() async throws {
    var options = quickOptions
    options.handshakeTimeoutMs = 200
    let site = try await Site(options: options)
    let (host, port) = try #require(
      site.endpoint.wholeMatch(of: /tcp:\/\/([0-9.]+):([0-9]+)/).map { ($0.1, UInt16($0.2) ?? 0) })
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = inet_addr(String(host))
    let connected = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    #expect(connected == 0)
    var limit = timeval(tv_sec: 60, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    var bytes = [UInt8](repeating: 0, count: 1024)
    var count = 1
    while count > 0 { count = recv(descriptor, &bytes, bytes.count, 0) }
    #expect(count == 0 || errno == ECONNRESET, "the server closes the connection")
    #expect(try await site.servesItsWorker())
    await site.router.close()
  }

  @Test("plaintext does not leave the machine unless that is allowed")
  func plaintextEndpoints() async throws {
    for endpoint in ["tcp://*:0", "tcp://0.0.0.0:5999", "tcp://192.0.2.1:5999", "tcp://127.0.0.1.example.com:5999"]
    where endpoint != "tcp://*:0" {
      await #expect(throws: TransportError.plaintextRefused(endpoint: endpoint)) {
        _ = try await makeRouter([endpoint])
      }
      await #expect(throws: TransportError.plaintextRefused(endpoint: endpoint)) { _ = try await makeDealer(endpoint) }
    }
    let allowed = try await makeRouter(["tcp://0.0.0.0:*"], security: .plaintext(allowRemote: true))
    await allowed.close()
    let dealer = try await makeDealer("tcp://gateway.invalid:5555", security: .plaintext(allowRemote: true))
    await dealer.close()
  }

  @Test("endpoints that make no sense are refused with the reason")
  func badEndpoints() async throws {
    let long = "ipc:///" + String(repeating: "x", count: 108)
    for endpoint in [
      "", "127.0.0.1:5555", "udp://127.0.0.1:1", "tcp://", "tcp://127.0.0.1", "tcp://:5", "tcp://h:0", "tcp://h:65536",
      "tcp://a b:1", long,
    ] {
      await #expect {
        _ = try await makeRouter([endpoint])
      } throws: { error in
        if case TransportError.invalidEndpoint(endpoint, _) = error { true } else { false }
      }
    }
    await #expect(throws: TransportError.self) { _ = try await makeRouter([]) }
  }
}

@Suite("Key files")
struct KeyFileTests {
  @Test("what is written is read again, with the right permissions, and nothing is overwritten")
  func roundTrip() throws {
    let directory = try TemporaryDirectory()
    let keys = try CurveKeyPair.generate()
    let path = directory.path + "/gateway.secret"
    try keys.write(to: path)
    try keys.publicKey.write(to: directory.path + "/gateway.public")
    #expect(try CurveKeyPair(contentsOf: path).publicKey == keys.publicKey)
    #expect(try CurvePublicKey(contentsOf: directory.path + "/gateway.public") == keys.publicKey)
    #expect(try CurvePublicKey(contentsOf: path) == keys.publicKey)
    let mode = try #require(FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int)
    #expect(mode == 0o600)
    #expect(throws: TransportError.self) { try keys.write(to: path) }
    #expect(try CurveKeyPair.generate().publicKey != keys.publicKey)
  }

  @Test("a secret that others may read, a broken file, a missing one: refused with the path")
  func refused() throws {
    let directory = try TemporaryDirectory()
    let path = directory.path + "/k"
    func attempt(_ text: String, mode: Int = 0o600) throws -> TransportError? {
      try? FileManager.default.removeItem(atPath: path)
      try text.write(toFile: path, atomically: false, encoding: .utf8)
      try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
      do throws(TransportError) {
        _ = try CurveKeyPair(contentsOf: path)
        return nil
      } catch {
        #expect(error.description.contains(path))
        return error
      }
    }
    let keys = try CurveKeyPair.generate()
    try keys.write(to: directory.path + "/good")
    let good = try String(contentsOfFile: directory.path + "/good", encoding: .utf8)
    #expect(try attempt(good) == nil)
    #expect(try attempt(good, mode: 0o640) != nil)
    #expect(try attempt(good, mode: 0o604) != nil)
    #expect(try attempt("public \(keys.publicKey)\n") != nil)
    #expect(try attempt("secret short\n") != nil)
    #expect(try attempt("secret \(String(repeating: "~", count: 40))\n") != nil)
    #expect(try attempt("secret a b\n") != nil)
    #expect(
      try attempt(good.replacingOccurrences(of: keys.publicKey.z85, with: try CurveKeyPair.generate().publicKey.z85))
        != nil)
    #expect(try attempt(String(repeating: "# comment\n", count: 1000)) != nil)
    #expect(throws: TransportError.self) { try CurveKeyPair(contentsOf: directory.path + "/missing") }
    #expect(throws: TransportError.self) { try CurveAllowList(directory: directory.path + "/missing") }
  }

  @Test("a secret key never shows")
  func secrecy() throws {
    let directory = try TemporaryDirectory()
    let keys = try CurveKeyPair.generate()
    try keys.write(to: directory.path + "/k")
    let secret = try #require(
      String(contentsOfFile: directory.path + "/k", encoding: .utf8).split(separator: "\n").last?.split(separator: " ")
        .last)
    var dumped = ""
    dump(keys, to: &dumped)
    for text in [
      "\(keys)", String(reflecting: keys), dumped,
      "\(RouterSecurity.curve(keys, allowList: try CurveAllowList(directory: directory.path)))",
    ] {
      #expect(!text.contains(secret))
    }
  }

  @Test("an allow-list skips files that hold no key and says which")
  func allowList() throws {
    let directory = try TemporaryDirectory()
    let keys = try CurveKeyPair.generate()
    try keys.publicKey.write(to: directory.path + "/a.public")
    try "nonsense".write(toFile: directory.path + "/b.public", atomically: true, encoding: .utf8)
    try "ignored".write(toFile: directory.path + "/README", atomically: true, encoding: .utf8)
    let list = try CurveAllowList(directory: directory.path)
    #expect(list.name(of: keys.publicKey) == "a")
    #expect(list.name(of: try CurveKeyPair.generate().publicKey) == nil)
    #expect(list.problems.count == 1 && list.problems[0].description.contains("b.public"))
  }

  @Test("an allow-list looks once a second, sooner for an unknown key, and reads all anew once a minute")
  func allowListTimes() throws {
    let directory = try TemporaryDirectory()
    let (old, new, late) = (try CurveKeyPair.generate(), try CurveKeyPair.generate(), try CurveKeyPair.generate())
    let file = directory.path + "/a.public"
    try old.publicKey.write(to: file)
    // Changed long ago: its time tells whether something has changed since.
    let past = Date(timeIntervalSince1970: 1_600_000_000)
    try FileManager.default.setAttributes([.modificationDate: past], ofItemAtPath: directory.path)
    let time = ManualTime()
    let list = try CurveAllowList(directory: directory.path, time: time)

    // In place, which leaves no trace in the directory.
    try "public \(new.publicKey.z85)\n".write(toFile: file, atomically: false, encoding: .utf8)
    time.advance(by: .seconds(59))
    #expect(list.name(of: old.publicKey) == "a" && list.name(of: new.publicKey) == nil)
    time.advance(by: .seconds(1))
    #expect(list.name(of: old.publicKey) == nil && list.name(of: new.publicKey) == "a")

    try late.publicKey.write(to: directory.path + "/late.public")
    #expect(list.name(of: late.publicKey) == nil)
    time.advance(by: .milliseconds(100))
    #expect(list.name(of: late.publicKey) == "late")
    try FileManager.default.removeItem(atPath: directory.path + "/late.public")
    time.advance(by: .milliseconds(999))
    #expect(list.name(of: late.publicKey) == "late")
    time.advance(by: .milliseconds(1))
    #expect(list.name(of: late.publicKey) == nil)
  }
}
