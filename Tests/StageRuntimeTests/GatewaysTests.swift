import ClusterCore
import Foundation
import StageRuntime
import TestSupport
import Testing
import Transport
import Wire

/// Releases tasks one by one, by their jobs' names.
private struct Gate {
  let counters: [String: Counter]

  init(_ jobs: String...) { counters = Dictionary(uniqueKeysWithValues: jobs.map { ($0, Counter()) }) }

  func open(_ job: String) { counters[job]?.increment() }

  /// Reports its first step of two, then waits for the gate; the result has the job's name.
  var stage: FakeStage {
    FakeStage { [counters] task, context in
      context.progress(.progress(Progress(completedSteps: 1, steps: 2, stepSeconds: 0.5)))
      while counters[task.reference.jobID]?.value == 0 {
        try context.checkCancelled()
        usleep(1000)
      }
      return StageOutput(
        .denoiseResponse(DenoiseResponse(steps: 2)), tensors: [.latents(Array(task.reference.jobID.utf8))])
    }
  }
}

extension ScriptedGateway {
  /// Lets a worker in that is to report by itself only what it must.
  fileprivate func admitQuietWorker() async throws -> PeerID {
    try await admitWorker(heartbeatIntervalMs: 3_000_000, leaseMs: 4_000_000).peer
  }

  /// Starts a task and waits for its first step.
  fileprivate func startAndStep(_ job: String, on peer: PeerID) async throws {
    try await start(Envelope(task: task(job), body: denoise(steps: 2)), on: peer)
    guard case .progress = try await nextMessage().envelope.body else { throw Unexpected("no progress") }
  }

  /// What a message is answered with.
  fileprivate func refusal(of envelope: Envelope, at peer: PeerID) async throws -> Status {
    let number = try await send(envelope, to: peer)
    let answer = try await nextMessage().envelope
    guard case .failed(let status) = answer.body, answer.inReplyTo == number else {
      throw Unexpected("not refused, but \(answer.body)")
    }
    return status
  }
}

@Suite("A worker of several gateways", .serialized, .timeLimit(.minutes(5)))
struct GatewaysTests {
  /// The clock stands still: nothing but what happens makes the worker speak.
  @Test("its credits are never exceeded, and gateways learn at once when another one uses or frees them")
  func credits() async throws {
    let gateways = [try await ScriptedGateway(), try await ScriptedGateway(), try await ScriptedGateway()]
    let (time, gate) = (ManualTime(), Gate("a", "b"))
    var configuration = quickConfiguration(gateways.map(\.endpoint))
    configuration.credits = 2
    try await withWorker(gate.stage, configuration, time: time) { _, _ in
      var peers: [PeerID] = []
      for gateway in gateways { peers.append(try await gateway.admitQuietWorker()) }
      func news(_ index: Int) async throws -> Int {
        let heartbeat = try await gateways[index].nextHeartbeat()
        #expect(heartbeat.running.isEmpty, "it names the tasks of this gateway only")
        return heartbeat.freeCredits
      }
      try await gateways[0].startAndStep("a", on: peers[0])
      #expect(try await news(1) == 1)
      #expect(try await news(2) == 1)
      try await gateways[1].startAndStep("b", on: peers[1])
      let busy = try await gateways[0].nextHeartbeat()
      #expect(busy.freeCredits == 0 && busy.running.map(\.task) == [task("a")])
      // The third one had a message a moment ago.
      try await gateways[2].settle(peers[2])
      try await time.untilAsleep(for: .milliseconds(8))
      time.advance(by: .milliseconds(8))
      #expect(try await news(2) == 0)
      for (gateway, peer) in zip(gateways, peers) {
        let status = try await gateway.refusal(of: Envelope(task: task("c"), body: denoise(steps: 1)), at: peer)
        #expect(status.code == .resourceExhausted && status.field == "credits")
      }
      // It believed that there are credits, and learns how many there are.
      try await time.untilAsleep(for: .milliseconds(8))
      time.advance(by: .milliseconds(8))
      for gateway in gateways { #expect(try await gateway.nextHeartbeat().freeCredits == 0) }
      gate.open("a")
      #expect(try await gateways[0].conversation(task("a")).last?.body == .denoiseResponse(DenoiseResponse(steps: 2)))
      try await time.untilAsleep(for: .milliseconds(8))
      time.advance(by: .milliseconds(8))
      #expect(try await news(2) == 1)
      let half = try await gateways[1].nextHeartbeat()
      #expect(half.freeCredits == 1 && half.running.map(\.task) == [task("b")])
      for (gateway, peer) in zip(gateways, peers) { try await gateway.settle(peer) }
    }
    for gateway in gateways { await gateway.close() }
  }

  @Test("one message says many changes")
  func coalescing() async throws {
    let (busy, idle) = (try await ScriptedGateway(), try await ScriptedGateway())
    let time = ManualTime()
    var configuration = quickConfiguration([busy.endpoint, idle.endpoint])
    configuration.credits = 4
    try await withWorker(FakeStage.denoiser(), configuration, time: time) { _, _ in
      let peer = try await busy.admitQuietWorker()
      let other = try await idle.admitQuietWorker()
      for number in 0..<20 {
        try await busy.send(Envelope(task: task("\(number)"), body: denoise(steps: 1)), to: peer)
        _ = try await busy.conversation(task("\(number)"))
      }
      try await idle.settle(other)
      #expect(await idle.heartbeats.count == 1)
      time.advance(by: .milliseconds(8))
      #expect(try await idle.nextHeartbeat().freeCredits == 4)
      #expect(await busy.heartbeats.isEmpty)
    }
    await busy.close()
    await idle.close()
  }

  @Test("a gateway that connects while another one is served learns how many credits are left")
  func lateGateway() async throws {
    let (first, second) = (try await ScriptedGateway(), try await ScriptedGateway())
    let gate = Gate("a")
    try await withWorker(gate.stage, quickConfiguration([first.endpoint, second.endpoint]), time: ManualTime()) {
      _, _ in
      let peer = try await first.admitQuietWorker()
      try await first.startAndStep("a", on: peer)
      let registration = try await second.nextRegistration()
      guard case .register(let register) = registration.envelope.body else { throw Unexpected("not registered") }
      #expect(register.running.isEmpty && register.takesClaims)
      try await second.reply(
        .registered(Registered(sessionID: "s", heartbeatIntervalMs: 3_000_000, leaseMs: 4_000_000)), to: registration)
      let heartbeat = try await second.nextHeartbeat()
      #expect(heartbeat.freeCredits == 0 && heartbeat.running.isEmpty)
    }
    await first.close()
    await second.close()
  }

  @Test("a task that is claimed is the claimer's: its answer comes there once, and the other one cannot cancel it")
  func claim() async throws {
    let (old, new) = (try await ScriptedGateway(), try await ScriptedGateway())
    let gate = Gate("a", "b")
    var configuration = quickConfiguration([old.endpoint, new.endpoint])
    configuration.credits = 2
    try await withWorker(gate.stage, configuration, time: ManualTime()) { _, _ in
      let oldPeer = try await old.admitQuietWorker()
      let newPeer = try await new.admitQuietWorker()
      try await old.startAndStep("a", on: oldPeer)
      try await old.startAndStep("b", on: oldPeer)
      // An attempt that is not exactly this one is not meant, and what does not run is passed over.
      let claim = Body.claim([task("a"), task("b", attempt: 2), task("c")])
      let number = try await new.send(Envelope(body: claim), to: newPeer)
      #expect(try await new.admitWorker().registration.running == [task("a")])
      for body in [Body.cancel(reason: "no client waits"), denoise(steps: 2)] {
        let status = try await old.refusal(of: Envelope(task: task("a"), body: body), at: oldPeer)
        #expect(status.code == (body == denoise(steps: 2) ? .aborted : .notFound))
        #expect(status.message.contains("another gateway"))
      }
      // The same claim again moves nothing.
      try await new.send(Envelope(body: claim), to: newPeer)
      try await new.settle(newPeer)
      gate.open("a")
      let answers = try await new.conversation(task("a"))
      #expect(answers.map(\.body) == [.denoiseResponse(DenoiseResponse(steps: 2))])
      #expect(answers[0].inReplyTo == number && answers[0].tensors.first?.bytes.array == Array("a".utf8))
      gate.open("b")
      #expect(try await old.conversation(task("b")).last?.tensors.first?.bytes.array == Array("b".utf8))
      try await old.settle(oldPeer)
      try await new.settle(newPeer)
    }
    await old.close()
    await new.close()
  }

  @Test("tasks of a lost gateway and their answers are claimed in the middle, and not given up afterwards")
  func failOver() async throws {
    let (lost, left) = (try await ScriptedGateway(), try await ScriptedGateway())
    let (time, gate) = (ManualTime(), Gate("short", "long"))
    var configuration = quickConfiguration([lost.endpoint, left.endpoint])
    configuration.credits = 2
    configuration.orphanTimeoutMs = 300
    try await withWorker(gate.stage, configuration, time: time) { worker, _ in
      let (peer, _) = try await lost.admitWorker(leaseMs: 100)
      let leftPeer = try await left.admitQuietWorker()
      try await lost.startAndStep("short", on: peer)
      try await lost.startAndStep("long", on: peer)
      await lost.close()
      gate.open("short")
      try await until("the answer of the short task waits") { await worker.unsentAnswers == 1 }
      try await time.pass(20)
      let claim = Envelope(body: .claim([task("short"), task("long")]))
      try await left.send(claim, to: leftPeer)
      let (again, registration) = try await left.admitWorker(heartbeatIntervalMs: 3_000_000, leaseMs: 4_000_000)
      #expect(again == leftPeer && registration.running == [task("long"), task("short")])
      #expect(try await left.conversation(task("short")).map(\.tensors.first?.bytes.array) == [Array("short".utf8)])
      // Longer than an orphan lives.
      try await time.pass(60)
      gate.open("long")
      #expect(try await left.conversation(task("long")).last?.tensors.first?.bytes.array == Array("long".utf8))
    }
    await left.close()
  }

  @Test("a gateway that is reached by two addresses has one session, which has the tasks of both")
  func twoWays() async throws {
    let (first, second) = (try await ScriptedGateway(), try await ScriptedGateway())
    let (time, gate) = (ManualTime(), Gate("a"))
    let session = Registered(
      sessionID: "s", heartbeatIntervalMs: 3_000_000, leaseMs: 4_000_000, gatewayID: "the same")
    try await withWorker(gate.stage, quickConfiguration([first.endpoint, second.endpoint]), time: time) { worker, _ in
      let earlier = try await first.nextRegistration()
      try await first.reply(.registered(session), to: earlier)
      try await first.startAndStep("a", on: earlier.peer)
      try await second.reply(.registered(session), to: try await second.nextRegistration())
      // It names the task by this link now.
      let (peer, registration) = try await second.admitWorker(
        heartbeatIntervalMs: 3_000_000, leaseMs: 4_000_000, gatewayID: session.gatewayID)
      #expect(registration.running == [task("a")])
      try await second.settle(peer)
      #expect(await worker.registeredLinks == 1)
      // It does not fight for the session.
      try await time.pass(500)
      try await first.settle(earlier.peer)
      try await second.settle(peer)
      await second.close()
      try await until("the gateway is lost by this way") { await worker.registeredLinks == 0 }
      try await time.pass(1)
      let again = try await first.nextRegistration()
      #expect(again.peer == earlier.peer)
    }
    await first.close()
  }

  @Test("all gateways learn that it drains and leaves, each task's own one gets the answer")
  func drain() async throws {
    let gateways = [try await ScriptedGateway(), try await ScriptedGateway()]
    let gate = Gate("a")
    try await withWorker(gate.stage, quickConfiguration(gateways.map(\.endpoint)), time: ManualTime()) {
      worker, running in
      var peers: [PeerID] = []
      for gateway in gateways { peers.append(try await gateway.admitQuietWorker()) }
      try await gateways[0].startAndStep("a", on: peers[0])
      worker.drain(reason: "SIGTERM")
      for gateway in gateways {
        #expect(try await gateway.nextMessage().envelope.body == .draining(reason: "SIGTERM"))
      }
      gate.open("a")
      #expect(try await gateways[0].conversation(task("a")).count == 1)
      for gateway in gateways {
        #expect(try await gateway.nextMessage().envelope.body == .goodbye(reason: "SIGTERM"))
      }
      try await ends(running)
    }
    for gateway in gateways { await gateway.close() }
  }
}
