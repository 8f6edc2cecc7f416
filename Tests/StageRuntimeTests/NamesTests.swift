import ClusterCore
import Foundation
import StageRuntime
import Synchronization
import TestSupport
import Testing
import Transport
import Wire

/// Names whose addresses the test decides. The only name that plaintext may be sent to is `localhost`.
private final class FakeNames: NameResolver {
  private let state = Mutex((addresses: [String](), asked: 0))

  var asked: Int { state.withLock { $0.asked } }

  func set(_ addresses: [String]) { state.withLock { $0.addresses = addresses } }

  func addresses(of name: String) async throws(NameResolutionError) -> [String] {
    let addresses = state.withLock { state in
      state.asked += 1
      return state.addresses
    }
    guard !addresses.isEmpty else { throw NameResolutionError(name: name, reason: "unknown") }
    return addresses
  }
}

/// Gateways at several addresses of this machine, with one port.
private struct Replicas {
  private static func address() -> String {
    "127.\(Int.random(in: 1...254)).\(Int.random(in: 1...254)).\(Int.random(in: 1...254))"
  }

  let addresses: [String]
  let gateways: [ScriptedGateway]
  let port: Substring

  init(_ count: Int) async throws {
    addresses = (0..<count).map { _ in Self.address() }
    var gateways = [try await ScriptedGateway(at: "tcp://\(addresses[0]):*")]
    port = gateways[0].endpoint.split(separator: ":").last!
    for address in addresses.dropFirst() {
      gateways.append(try await ScriptedGateway(at: "tcp://\(address):\(port)"))
    }
    self.gateways = gateways
  }

  func configuration(_ names: FakeNames) -> WorkerConfiguration {
    var configuration = quickConfiguration(["tcp://localhost:\(port)"])
    configuration.resolver = names
    configuration.resolveIntervalMs = 1000
    return configuration
  }

  /// The endpoints of some of them, in order.
  func endpoints(_ numbers: [Int]) -> [String] { numbers.map { gateways[$0].endpoint }.sorted() }

  func close() async { for gateway in gateways { await gateway.close() } }
}

#if os(Linux)
  @Suite("Gateways that are found by name", .serialized, .timeLimit(.minutes(5)))
  struct NamesTests {
    @Test("a name is one link per address; links come and go with the addresses, without losing a session or a task")
    func comeAndGo() async throws {
      let replicas = try await Replicas(3), names = FakeNames(), time = ManualTime(), release = Counter()
      names.set(Array(replicas.addresses[0...1]))
      try await withWorker(FakeStage.waiting(for: release), replicas.configuration(names), time: time) { worker, _ in
        let (peer, _) = try await replicas.gateways[0].admitWorker()
        _ = try await replicas.gateways[1].admitWorker()
        names.set(Array(replicas.addresses[1...2]))
        try await time.pass(101)
        let (last, _) = try await replicas.gateways[2].admitWorker()
        #expect(await worker.linkEndpoints.count == 3, "a link with a session stays")
        try await replicas.gateways[0].start(Envelope(task: task("a"), body: denoise(steps: 2)), on: peer)
        await replicas.gateways[0].close()
        try await until("the gateway is lost") { await worker.registeredLinks == 2 }
        try await time.pass(1)
        #expect(await worker.linkEndpoints.count == 3, "a link with a task stays")
        release.increment()
        try await until("the answer waits") { await worker.unsentAnswers == 1 }
        // Another gateway takes the answer, and the link is of no use any more.
        try await replicas.gateways[2].send(Envelope(body: .claim([task("a")])), to: last)
        #expect(try await replicas.gateways[2].admitWorker().registration.running == [task("a")])
        #expect(
          try await replicas.gateways[2].conversation(task("a")).last?.body
            == .denoiseResponse(DenoiseResponse(steps: 2)))
        try await time.pass(1)
        #expect(await worker.linkEndpoints == replicas.endpoints([1, 2]))
      }
      await replicas.close()
    }

    @Test("a name that is not resolved is asked for again, less and less often; links stay as they are meanwhile")
    func unresolved() async throws {
      let replicas = try await Replicas(1), names = FakeNames(), time = ManualTime()
      var configuration = replicas.configuration(names)
      configuration.resolveIntervalMs = 4000
      try await withWorker(FakeStage.denoiser(), configuration, time: time) { worker, _ in
        try await until("the name is asked for") { names.asked == 1 }
        try await time.pass(101)
        try await until("the name is asked for again") { names.asked == 2 }
        #expect(await worker.linkEndpoints.isEmpty)
        names.set(replicas.addresses)
        try await time.pass(401)
        let (peer, _) = try await replicas.gateways[0].admitWorker()
        names.set([])
        try await time.pass(401)
        try await replicas.gateways[0].settle(peer)
        #expect(await worker.linkEndpoints == replicas.endpoints([0]))
      }
      await replicas.close()
    }

    @Test("a gateway that is lost is looked for at once")
    func lost() async throws {
      let replicas = try await Replicas(2), names = FakeNames(), time = ManualTime()
      names.set([replicas.addresses[0]])
      var configuration = replicas.configuration(names)
      configuration.resolveIntervalMs = 3_600_000
      try await withWorker(FakeStage.denoiser(), configuration, time: time) { worker, _ in
        _ = try await replicas.gateways[0].admitWorker()
        try await time.pass(100)
        names.set(replicas.addresses)
        await replicas.gateways[0].close()
        try await until("the gateway is lost") { await worker.registeredLinks == 0 }
        try await time.pass(1)
        _ = try await replicas.gateways[1].admitWorker()
        #expect(names.asked == 2)
      }
      await replicas.close()
    }

    @Test("the only gateway of a name has moved: its tasks go with it")
    func moved() async throws {
      let replicas = try await Replicas(2), names = FakeNames(), time = ManualTime(), release = Counter()
      names.set([replicas.addresses[0]])
      try await withWorker(FakeStage.waiting(for: release), replicas.configuration(names), time: time) { worker, _ in
        let (peer, _) = try await replicas.gateways[0].admitWorker()
        try await replicas.gateways[0].start(Envelope(task: task("a"), body: denoise(steps: 2)), on: peer)
        await replicas.gateways[0].close()
        try await until("the gateway is lost") { await worker.registeredLinks == 0 }
        names.set([replicas.addresses[1]])
        try await time.pass(101)
        #expect(try await replicas.gateways[1].admitWorker().registration.running == [task("a")])
        #expect(await worker.linkEndpoints == replicas.endpoints([1]))
        release.increment()
        #expect(
          try await replicas.gateways[1].conversation(task("a")).last?.body
            == .denoiseResponse(DenoiseResponse(steps: 2)))
      }
      await replicas.close()
    }

    @Test("more addresses than links that are possible: the worker serves as many as it can")
    func limit() async throws {
      let replicas = try await Replicas(1), names = FakeNames(), time = ManualTime()
      let others = (1...40).map { "127.0.1.\($0)" }
      names.set(replicas.addresses + others)
      try await withWorker(FakeStage.denoiser(), replicas.configuration(names), time: time) { worker, _ in
        let (peer, _) = try await replicas.gateways[0].admitWorker()
        #expect(await worker.linkEndpoints.count == WorkerConfiguration.maxLinks)
        names.set(replicas.addresses)
        try await time.pass(101)
        #expect(await worker.linkEndpoints == replicas.endpoints([0]))
        try await replicas.gateways[0].settle(peer)
      }
      await replicas.close()
    }

    @Test("the system's resolver finds a gateway on this machine")
    func system() async throws {
      let gateway = try await ScriptedGateway(at: "tcp://127.0.0.1:*")
      let port = try #require(gateway.endpoint.split(separator: ":").last)
      try await withWorker(FakeStage.denoiser(), quickConfiguration(["tcp://localhost:\(port)"])) { _, _ in
        let (peer, _) = try await gateway.admitWorker()
        try await gateway.send(Envelope(task: task("a"), body: denoise(steps: 2)), to: peer)
        #expect(try await gateway.conversation(task("a")).last?.body == .denoiseResponse(DenoiseResponse(steps: 2)))
      }
      await gateway.close()
    }
  }
#endif

@Suite struct GatewayNamesTests {
  private let name = "tcp://gateways:5555"

  private func names(_ texts: [String]) throws -> GatewayNames {
    GatewayNames(try texts.map { text throws(TransportError) in try GatewayEndpoint(text) }, every: .seconds(10))
  }

  @Test("addresses are places, names are asked for until they are known, and no place comes twice")
  func endpoints() throws {
    var names = try names(["tcp://10.0.0.1:5555", name, "ipc:///run/gateway.sock"])
    #expect(names.endpoints == ["tcp://10.0.0.1:5555", "ipc:///run/gateway.sock"])
    #expect(names.due(now: .zero).map(\.name) == ["gateways"])
    #expect(names.due(now: .seconds(100)).isEmpty, "the resolver has not answered yet")
    let change = names.note(["10.0.0.1", "10.0.0.2", "fd00::1"], of: 1, now: .seconds(100))
    #expect(change?.added == ["tcp://10.0.0.1:5555", "tcp://10.0.0.2:5555", "tcp://[fd00::1]:5555"])
    #expect(
      names.endpoints == [
        "tcp://10.0.0.1:5555", "tcp://10.0.0.2:5555", "tcp://[fd00::1]:5555", "ipc:///run/gateway.sock",
      ])
  }

  @Test("names are looked at in intervals, after failures in growing ones, and after a loss soon but not more often")
  func times() throws {
    var names = try names([name])
    func isDue(_ seconds: Double) -> Bool { !names.due(now: .seconds(seconds)).isEmpty }
    for (asked, next) in [(0.0, 1.0), (1, 3), (3, 7), (7, 15), (15, 25), (25, 35)] {
      #expect(isDue(asked))
      #expect(names.note(nil, of: 0, now: .seconds(asked)) == nil)
      #expect(!isDue(next - 0.001))
    }
    #expect(isDue(35))
    #expect(names.note(["10.0.0.1"], of: 0, now: .seconds(35)) != nil)
    #expect(!isDue(44.999) && isDue(45))
    #expect(names.note(["10.0.0.1"], of: 0, now: .seconds(45)) == nil)
    names.askSoon(now: .seconds(45.5))
    #expect(!isDue(45.999) && isDue(46))
    #expect(names.note([], of: 0, now: .seconds(46)) == nil, "no addresses: not believed")
    #expect(names.endpoints == ["tcp://10.0.0.1:5555"])
  }

  @Test("one address after one other is a move")
  func moves() throws {
    var names = try names([name])
    func note(_ addresses: String...) -> GatewayNames.Change? { names.note(addresses, of: 0, now: .zero) }
    #expect(note("10.0.0.1")?.isMove == false)
    #expect(note("10.0.0.2")?.isMove == true)
    #expect(note("10.0.0.2", "10.0.0.3")?.isMove == false)
    let change = note("10.0.0.3")
    #expect(change?.isMove == false && change?.removed == ["tcp://10.0.0.2:5555"] && change?.added == [])
  }
}
