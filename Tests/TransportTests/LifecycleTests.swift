import Foundation
import TestSupport
import Testing
import Transport
import Wire

@Suite("Peers come, lag and go", .serialized, .timeLimit(.minutes(5)))
struct LifecycleTests {
  @Test("a dealer finds a router that comes back, whatever was sent in between is refused or lost, nothing hangs")
  func routerRestart() async throws {
    let first = try await makeRouter()
    let endpoint = try #require(await first.endpoints.first)
    let dealer = try await makeDealer(endpoint)
    for round in 0..<3 {
      let router = round == 0 ? first : try await makeRouter([endpoint])
      try await waitUntilConnected(dealer)
      try await dealer.send(Envelope(body: .cancel(reason: "round \(round)")))
      let inbound = try await nextMessage(router)
      #expect(inbound.envelope.body == .cancel(reason: "round \(round)"))
      await router.close()
      guard case .disconnected = try await next(dealer.events) else {
        Issue.record("the dealer did not notice")
        return
      }
      // The news may be here a moment before the queue is gone.
      while try await trySend(Envelope(body: .accepted), by: dealer) { try await Task.sleep(for: .milliseconds(1)) }
    }
    await dealer.close()
  }

  @Test("a dealer that connects anew is a new peer, and the router reports that the old one is gone")
  func reconnecting() async throws {
    let router = try await makeRouter()
    let dealer = try await makeDealer(try #require(await router.endpoints.first))
    var peers: [PeerID] = []
    for round in 0..<3 {
      try await waitUntilConnected(dealer)
      try await dealer.send(Envelope(body: .cancel(reason: "\(round)")))
      peers.append(try await nextMessage(router).peer)
      await dealer.reconnect()
      guard case .disconnected = try await next(dealer.events) else {
        Issue.record("round \(round): the dealer does not say that it let go")
        return
      }
      guard case .disconnected(let lost) = try await next(router.events) else {
        Issue.record("round \(round): the router did not report it")
        return
      }
      #expect(lost == peers.last)
    }
    #expect(Set(peers).count == 3)
    await dealer.close()
    await router.close()
  }

  @Test("a router tells which peer is gone, also when the next one gets the old one's file descriptor")
  func dealerRestart() async throws {
    let router = try await makeRouter()
    let endpoint = try #require(await router.endpoints.first)
    var peers: [PeerID] = []
    for round in 0..<20 {
      let dealer = try await makeDealer(endpoint)
      try await waitUntilConnected(dealer)
      try await dealer.send(Envelope(body: .cancel(reason: "\(round)")))
      let inbound = try await nextMessage(router)
      peers.append(inbound.peer)
      await dealer.close()
      guard case .disconnected(let lost) = try await next(router.events) else {
        Issue.record("round \(round): no news")
        return
      }
      #expect(lost == inbound.peer)
    }
    #expect(Set(peers).count == 20)
    await router.close()
  }

  @Test("peers that come and go at once are all reported, once")
  func churn() async throws {
    let router = try await makeRouter()
    let endpoint = try #require(await router.endpoints.first)
    let count = 60
    let reported = Task {
      var seen: Set<PeerID> = []
      var lost: Set<PeerID> = []
      while lost.count < count {
        switch try await next(router.events) {
        case .message(let inbound): #expect(seen.insert(inbound.peer).inserted)
        case .disconnected(let peer):
          #expect(seen.contains(peer))
          #expect(lost.insert(peer).inserted)
        case .malformed(_, let malformed): Issue.record("\(malformed)")
        }
      }
    }
    try await withThrowingTaskGroup(of: Void.self) { group in
      for lane in 0..<6 {
        group.addTask {
          for round in 0..<count / 6 {
            let dealer = try await makeDealer(endpoint)
            try await waitUntilConnected(dealer)
            try await dealer.send(Envelope(body: .cancel(reason: "\(lane) \(round)")))
            await dealer.close()
          }
        }
      }
      try await group.waitForAll()
    }
    try await reported.value
    await router.close()
  }

  @Test("a consumer that lags holds the sender up; nothing is lost and memory stays bounded")
  func slowConsumer() async throws {
    var options = quickOptions
    options.inboundCapacityMessages = 8
    options.inboundCapacityBytes = 8 << 20
    options.receiveHighWaterMarkMessages = 4
    options.sendHighWaterMarkMessages = 4
    let router = try await makeRouter(options: options)
    let dealer = try await makeDealer(try #require(await router.endpoints.first), options: options)
    try await waitUntilConnected(dealer)
    let message = envelope(bytes: 1 << 20)
    var sent = 0
    var refusals = 0
    // What has been taken in gets its time to move on.
    while refusals < 100 {
      if try await trySend(message, by: dealer) {
        sent += 1
        refusals = 0
      } else {
        refusals += 1
        try await Task.sleep(for: .milliseconds(10))
      }
      try #require(sent < 200, "the sender is never held up")
    }
    // Its own queue, the reader's, the consumer's, and what the kernel keeps of a connection (up to some 10 MiB).
    #expect(sent <= 4 + 4 + 8 + 24)
    for number in 1...UInt64(sent) { #expect(try await nextMessage(router).envelope.messageID == number) }
    // It flows again.
    try await dealer.send(message)
    #expect(try await nextMessage(router).envelope.tensors == message.tensors)
    await dealer.close()
    await router.close()
  }

  @Test("a consumer that is always a little late gets everything, though nothing else wakes the socket")
  func consumerAtTheLimit() async throws {
    var options = quickOptions
    options.inboundCapacityMessages = 1
    let router = try await makeRouter(options: options)
    let dealer = try await makeDealer(try #require(await router.endpoints.first), options: options)
    try await waitUntilConnected(dealer)
    let count = 20_000
    let sender = Task {
      for _ in 0..<count {
        while try await !trySend(Envelope(body: .accepted), by: dealer) { try await Task.sleep(for: .milliseconds(1)) }
      }
    }
    for number in 1...UInt64(count) { #expect(try await nextMessage(router).envelope.messageID == number) }
    try await sender.value
    await dealer.close()
    await router.close()
  }

  @Test("closing while others send and receive ends them all")
  func closeWhileSending() async throws {
    for _ in 0..<10 {
      let router = try await makeRouter()
      let dealer = try await makeDealer(try #require(await router.endpoints.first))
      try await waitUntilConnected(dealer)
      let senders = (0..<4).map { index in
        Task { () async throws -> TransportError in
          while true {
            do {
              if try await !trySend(envelope(bytes: 50_000, seed: UInt64(index)), by: dealer) {
                try await Task.sleep(for: .milliseconds(1))
              }
            } catch let error as TransportError {
              return error
            }
          }
        }
      }
      _ = try await nextMessage(router)
      let received = Counter()
      let receiver = Task {
        for await _ in router.events { received.increment() }
      }
      try await until("messages pass") { received.value >= 20 }
      await dealer.close()
      for sender in senders { #expect(try await sender.value == .closed) }
      await router.close()
      await receiver.value
    }
  }

  @Test("sockets that are not closed, and sockets that cannot be opened, leave nothing behind")
  func descriptors() async throws {
    let list = try TemporaryDirectory()
    let keys = try CurveKeyPair.generate()
    func cycle() async throws {
      let security = RouterSecurity.curve(keys, allowList: try CurveAllowList(directory: list.path))
      let router = try await makeRouter(security: security)
      let endpoint = try #require(await router.endpoints.first)
      await #expect(throws: TransportError.addressInUse(endpoint: endpoint)) { _ = try await makeRouter([endpoint]) }
      _ = try await makeDealer(endpoint)
      await router.close()
    }
    try await cycle()
    let before = openDescriptors()
    for _ in 0..<30 { try await cycle() }
    // Threads end after the last user let go.
    // 30 cycles open some 1,000; other tests of this process may hold a few.
    try await until("descriptors are closed") { openDescriptors() <= before + 60 }
  }

  private func openDescriptors() -> Int {
    (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? 0
  }

  @Test("waiting for events ends with the task that waits")
  func cancellation() async throws {
    let router = try await makeRouter()
    // Cancelled before it waits, while it begins to, and after.
    for yields in 0..<100 {
      let waiter = Task {
        var iterator = router.events.makeAsyncIterator()
        guard case .none = await iterator.next() else { return false }
        return true
      }
      for _ in 0..<yields { await Task.yield() }
      waiter.cancel()
      #expect(await waiter.value)
    }
    await router.close()
    var iterator = router.events.makeAsyncIterator()
    guard case .none = await iterator.next() else {
      Issue.record("there are events after the socket is closed")
      return
    }
  }
}
