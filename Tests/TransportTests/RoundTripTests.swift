import Foundation
import TestSupport
import Testing
import Transport
import Wire

@Suite("Messages between routers and dealers", .serialized, .timeLimit(.minutes(5)))
struct MessagingTests {
  @Test(
    "tensors of 1 KiB to 64 MiB there and back over tcp", arguments: [1 << 10, 100_003, 1 << 20, 16 << 20, 64 << 20])
  func sizes(byteCount: Int) async throws {
    let router = try await makeRouter()
    let dealer = try await makeDealer(try #require(await router.endpoints.first))
    try await waitUntilConnected(dealer)
    let sent = envelope(bytes: byteCount)
    let number = try await dealer.send(sent)
    let inbound = try await nextMessage(router)
    #expect(
      inbound.envelope.messageID == number && inbound.envelope.tensors == sent.tensors
        && inbound.envelope.task == sent.task)
    #expect(inbound.authenticatedName == nil)

    var reply = inbound.envelope
    reply.messageID = 0
    reply.inReplyTo = number
    try await router.send(reply, to: inbound.peer)
    let answer = try await nextMessage(dealer)
    #expect(answer.inReplyTo == number && answer.tensors == sent.tensors)
    await dealer.close()
    await router.close()
  }

  @Test("ipc and inproc carry the same")
  func otherTransports() async throws {
    let directory = try TemporaryDirectory()
    let context = try TransportContext()
    for endpoint in ["ipc://\(directory.path)/gateway.sock", "inproc://gateway"] {
      let router = try await makeRouter([endpoint], context: context)
      let dealer = try await makeDealer(endpoint, context: context)
      try await waitUntilConnected(dealer)
      try await dealer.send(envelope(bytes: 300_000))
      let inbound = try await nextMessage(router)
      try await router.send(inbound.envelope, to: inbound.peer)
      #expect(try await nextMessage(dealer).tensors == envelope(bytes: 300_000).tensors)
      await dealer.close()
      await router.close()
    }
  }

  @Test("received tensors lie at addresses that any element may have")
  func alignment() async throws {
    let router = try await makeRouter()
    let dealer = try await makeDealer(try #require(await router.endpoints.first))
    try await waitUntilConnected(dealer)
    for byteCount in [0, 1, 8, 30, 33, 34, 100, 1000, 5000, 8191, 8192, 8193, 20_000, 1_000_000] {
      try await dealer.send(envelope(bytes: byteCount))
      let tensor = try #require(try await nextMessage(router).envelope.tensors.first)
      #expect(tensor.bytes.withUnsafeBytes { Int(bitPattern: $0.baseAddress) % 16 } == 0, "\(byteCount) bytes")
    }
    await dealer.close()
    await router.close()
  }

  @Test("one router serves 48 peers, over two endpoints, and mixes nothing up")
  func manyPeers() async throws {
    let directory = try TemporaryDirectory()
    let router = try await makeRouter([privateLoopback(), "ipc://\(directory.path)/gateway.sock"])
    let endpoints = await router.endpoints
    let server = Task {
      for await event in router.events {
        guard case .message(let inbound) = event else { continue }
        try await router.send(inbound.envelope, to: inbound.peer)
      }
    }
    try await withThrowingTaskGroup(of: Void.self) { group in
      for index in 0..<48 {
        group.addTask {
          let dealer = try await makeDealer(endpoints[index % 2])
          try await waitUntilConnected(dealer)
          for round in 0..<5 {
            let sent = envelope(bytes: 10_000 + round, seed: UInt64(index * 100 + round))
            try await dealer.send(sent)
            let answer = try await nextMessage(dealer)
            #expect(answer.tensors == sent.tensors && answer.messageID == UInt64(round + 1))
          }
          await dealer.close()
        }
      }
      try await group.waitForAll()
    }
    await router.close()
    try await server.value
  }

  @Test("messages of one peer stay in order, its last ones come before the news that it is gone")
  func order() async throws {
    let router = try await makeRouter()
    let dealer = try await makeDealer(try #require(await router.endpoints.first))
    try await waitUntilConnected(dealer)
    for step in 1...200 {
      while try await !trySend(Envelope(body: .cancel(reason: "\(step)")), by: dealer) {
        try await Task.sleep(for: .milliseconds(2))
      }
    }
    await dealer.close()
    var peer: PeerID?
    for step in 1...200 {
      guard case .message(let inbound) = try await next(router.events) else {
        Issue.record("the peer is gone before message \(step)")
        return
      }
      #expect(inbound.envelope.body == .cancel(reason: "\(step)"))
      peer = inbound.peer
    }
    guard case .disconnected(let lost) = try await next(router.events) else {
      Issue.record("it was not reported that the peer is gone")
      return
    }
    #expect(lost == peer)
    // libzmq reports the end of a connection before the socket lets go of it: until then messages are taken, and lost.
    try await until("the peer is unreachable") {
      do throws(TransportError) {
        try await router.send(Envelope(body: .accepted), to: lost)
        return false
      } catch {
        #expect(error == .peerUnreachable(lost))
        return true
      }
    }
    await router.close()
  }

  @Test("messages that break the rules are reported with what could be read of them, and the peer stays")
  func malformed() async throws {
    var options = quickOptions
    options.limits.maxTensorBytes = 1 << 20
    options.limits.maxMessageBytes = 2 << 20
    let router = try await makeRouter(options: options)
    let peer = RawDealer(try #require(await router.endpoints.first))
    var good = Envelope(messageID: 9, task: TaskReference(jobID: "j", taskID: "t", attempt: 1), body: .accepted)
    let frame0 = try WireCodec.encode(good)[0].withUnsafeBytes { Array($0) }
    let mebibyte = [UInt8](repeating: 1, count: 1 << 20)

    peer.send([[0xFF, 0xFF]])
    peer.send([frame0, [1, 2, 3]])
    peer.send([frame0, mebibyte, mebibyte, mebibyte])
    peer.send([frame0] + Array(repeating: [], count: 100))
    peer.send([[UInt8](repeating: 0, count: 300_000)])
    peer.send([[]])
    // The empty body, field 20, under a number that is not known yet.
    peer.send([Array(frame0.dropLast(3)) + [0x9A, 0x06, 0x00]])
    peer.sendUnsealed([frame0])
    var flipped = frame0
    flipped[frame0.count - 1] ^= 1
    let seal = try #require(WireCodec.sealed([FrameBuffer(copying: frame0)]).last).withUnsafeBytes(Array.init)
    peer.sendUnsealed([flipped, seal])
    peer.send([frame0])

    // Of tensors, the envelope and the seal.
    let maxFrames = WireLimits().maxFrames + 1
    let expected: [(WireError, UInt64)] = [
      (.malformed(field: "envelope", reason: "ends inside a number"), 0),
      (.frameCount(expected: 1, found: 2), 9),
      (.tooLarge(field: "message", bytes: frame0.count + (2 << 20), limit: 2 << 20), 9),
      (.tooMany(field: "message: frames", count: maxFrames + 1, limit: maxFrames), 9),
      (.tooLarge(field: "envelope", bytes: 300_000, limit: 262_144), 0),
      (.unsupportedVersion(found: 0, supported: 1), 0),
      (.unknownBody(number: 99), 9),
      (.brokenSeal(reason: "the last of 1 frames is no seal"), 9),
    ]
    for (error, messageID) in expected {
      guard case .malformed(_, let malformed) = try await next(router.events) else {
        Issue.record("expected \(error)")
        return
      }
      #expect(malformed.error == error)
      #expect(malformed.header.messageID == messageID)
      #expect(malformed.header.task == (messageID == 9 ? good.task : nil))
    }
    guard case .malformed(_, let malformed) = try await next(router.events), case .brokenSeal = malformed.error else {
      Issue.record("a flipped bit was not noticed")
      return
    }
    #expect(malformed.error.status.code == .dataLoss)
    good.tensors = []
    #expect(try await nextMessage(router).envelope == good)
    await router.close()
  }

  @Test("a peer that sends nonsense fills no disk: one record a second, which says how many were left out")
  func rateLimitedLog() async throws {
    let time = ManualTime()
    let log = LogRecorder()
    let router = try await makeRouter(time: time, log: log)
    let peer = RawDealer(try #require(await router.endpoints.first))
    func sendNonsense(_ count: Int) async throws {
      for _ in 0..<count {
        peer.send([[0xFF, 0xFF]])
        guard case .malformed = try await next(router.events) else { throw NoEvent() }
      }
    }
    try await sendNonsense(3)
    time.advance(by: .milliseconds(999))
    try await sendNonsense(1)
    #expect(log.records.map { $0.metadata["suppressed"] } == [nil])
    time.advance(by: .milliseconds(1))
    try await sendNonsense(2)
    #expect(log.records.map { $0.metadata["suppressed"] } == [nil, "3"])
    await router.close()
  }

  @Test("a frame beyond the limit ends the connection before it is read")
  func oversize() async throws {
    var options = quickOptions
    options.limits.maxTensorBytes = 1 << 20
    let router = try await makeRouter(options: options)
    let dealer = try await makeDealer(try #require(await router.endpoints.first))
    try await waitUntilConnected(dealer)
    try await dealer.send(envelope(bytes: (1 << 20) + 1))
    guard case .disconnected = try await next(dealer.events) else {
      Issue.record("the connection stands")
      return
    }
    try await waitUntilConnected(dealer)
    try await dealer.send(envelope(bytes: 1 << 20))
    #expect(try await nextMessage(router).envelope.tensors[0].bytes.count == 1 << 20)
    await dealer.close()
    await router.close()
  }

  @Test("what cannot be sent is refused at once")
  func unsendable() async throws {
    let router = try await makeRouter()
    let endpoint = try #require(await router.endpoints.first)
    let stranger = PeerID(bytes: [0, 1, 2, 3, 4])
    await #expect(throws: TransportError.peerUnreachable(stranger)) {
      try await router.send(Envelope(body: .accepted), to: stranger)
    }
    await #expect(throws: TransportError.unsendable(.missing(field: "encode_request.model_id"))) {
      try await router.send(Envelope(body: .encodeRequest(EncodeRequest(modelID: "", prompt: ""))), to: stranger)
    }
    await router.close()
    let dealer = try await makeDealer(endpoint)
    await #expect(throws: TransportError.wouldBlock) { try await dealer.send(Envelope(body: .accepted)) }
    await dealer.close()
    await #expect(throws: TransportError.closed) { try await dealer.send(Envelope(body: .accepted)) }
    await #expect(throws: TransportError.closed) { try await router.send(Envelope(body: .accepted), to: stranger) }
  }
}
