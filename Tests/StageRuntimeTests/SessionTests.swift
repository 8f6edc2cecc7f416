import ClusterCore
import Foundation
import ServiceLifecycle
import StageRuntime
import Testing
import Transport
import Wire

@Suite("A worker's sessions", .serialized, .timeLimit(.minutes(5)))
struct SessionTests {
  @Test("the gateway restarts: the worker registers again with what runs, and what ended meanwhile is delivered")
  func gatewayRestart() async throws {
    let first = try await ScriptedGateway()
    let health = HealthFile(path: NSTemporaryDirectory() + "/restart-\(UUID().uuidString)")
    let release: [String: Counter] = ["short": Counter(), "long": Counter()]
    let stage = FakeStage { task, context in
      while release[task.reference.jobID]?.value == 0 {
        try context.checkCancelled()
        usleep(1000)
      }
      return StageOutput(
        .denoiseResponse(DenoiseResponse(steps: 1)), tensors: [.latents(Array(task.reference.jobID.utf8))])
    }
    var configuration = quickConfiguration([first.endpoint])
    configuration.credits = 2
    configuration.healthFile = health.path
    try await withWorker(stage, configuration) { _, _ in
      let (peer, registration) = try await first.admitWorker()
      try await first.start(Envelope(task: task("short"), body: denoise(steps: 1)), on: peer)
      try await first.start(Envelope(task: task("long"), body: denoise(steps: 1)), on: peer)
      try await waitFor("2 tasks, 1 gateways", in: health)
      await first.close()
      try await waitFor("2 tasks, 0 gateways", in: health)
      release["short"]?.increment()
      try await waitFor("1 tasks, 0 gateways", in: health)

      let second = try await ScriptedGateway(at: first.endpoint)
      let (_, again) = try await second.admitWorker()
      #expect(again.workerID == registration.workerID)
      #expect(Set(again.running) == [task("short"), task("long")])
      let short = try await second.conversation(task("short"))
      #expect(short.map(\.body) == [.denoiseResponse(DenoiseResponse(steps: 1))])
      #expect(short.last?.tensors.first?.bytes.array == Array("short".utf8))
      release["long"]?.increment()
      let long = try await second.conversation(task("long"))
      #expect(long.last?.body == .denoiseResponse(DenoiseResponse(steps: 1)))
      #expect(long.last?.tensors.first?.bytes.array == Array("long".utf8))
      await second.close()
    }
  }

  @Test("a gateway that does not know the session, or is silent, gets a new registration")
  func forgottenSession() async throws {
    let gateway = try await ScriptedGateway()
    try await withWorker(FakeStage.denoiser(), quickConfiguration([gateway.endpoint])) { _, _ in
      let (peer, _) = try await gateway.admitWorker(leaseMs: 1000)
      try await gateway.send(
        Envelope(inReplyTo: 99, body: .failed(Status(.failedPrecondition, "unknown session"))), to: peer)
      _ = try await gateway.admitWorker(leaseMs: 1000)
      await gateway.stopAnsweringHeartbeats()
      let start = ContinuousClock.now
      _ = try await gateway.admitWorker()
      #expect(ContinuousClock.now - start >= .milliseconds(900))
    }
    await gateway.close()
  }

  @Test("a worker that hears nothing connects anew, in case the connection is dead without anybody knowing")
  func silentConnection() async throws {
    let gateway = try await ScriptedGateway()
    var configuration = quickConfiguration([gateway.endpoint])
    configuration.registrationRetryMs = 100
    try await withWorker(FakeStage.denoiser(), configuration) { _, _ in
      let start = ContinuousClock.now
      let (first, _) = try await gateway.admitWorker(leaseMs: 100)
      await gateway.stopAnsweringHeartbeats()
      // What comes by the first connection is not answered, registrations neither.
      while true {
        guard case .message(let inbound) = try await gateway.nextEvent(), inbound.peer != first else { continue }
        guard case .register = inbound.envelope.body else { throw Unexpected("\(inbound.envelope.body)") }
        break
      }
      #expect(ContinuousClock.now - start >= .milliseconds(400))
      let (second, _) = try await gateway.admitWorker()
      #expect(second != first)
    }
    await gateway.close()
  }

  @Test("a registration that is refused or not answered is tried again")
  func refusedRegistration() async throws {
    let gateway = try await ScriptedGateway()
    var configuration = quickConfiguration([gateway.endpoint])
    configuration.registrationRetryMs = 100
    try await withWorker(FakeStage.denoiser(), configuration) { _, _ in
      let inbound = try await gateway.nextMessage()
      try await gateway.reply(.failed(Status(.failedPrecondition, "fingerprints differ")), to: inbound)
      let start = ContinuousClock.now
      guard case .register = try await gateway.nextMessage().envelope.body else { throw Unexpected("no registration") }
      #expect(ContinuousClock.now - start >= .milliseconds(80), "not at once")
      _ = try await gateway.admitWorker()
    }
    await gateway.close()
  }

  @Test("a gateway that answers an earlier registration than the last one has answered")
  func lateAnswer() async throws {
    let gateway = try await ScriptedGateway()
    var configuration = quickConfiguration([gateway.endpoint])
    configuration.registrationRetryMs = 100
    try await withWorker(FakeStage.denoiser(), configuration) { _, _ in
      let first = try await gateway.nextMessage()
      let second = try await gateway.nextMessage()
      guard case .register = second.envelope.body else { throw Unexpected("not registered again") }
      try await gateway.reply(
        .registered(Registered(sessionID: "late", heartbeatIntervalMs: 20, leaseMs: 60_000)), to: first)
      for _ in 0..<100 where await gateway.heartbeats.last?.sessionID != "late" {
        _ = try? await gateway.nextMessage(seconds: 0.2)
      }
      #expect(await gateway.heartbeats.last?.sessionID == "late")
      try await gateway.reply(
        .registered(Registered(sessionID: "newer", heartbeatIntervalMs: 20, leaseMs: 60_000)), to: second)
      for _ in 0..<100 where await gateway.heartbeats.last?.sessionID != "newer" {
        _ = try? await gateway.nextMessage(seconds: 0.2)
      }
      #expect(await gateway.heartbeats.last?.sessionID == "newer")
    }
    await gateway.close()
  }

  @Test("a worker serves two gateways; one that is lost does not disturb the other")
  func twoGateways() async throws {
    let left = try await ScriptedGateway()
    let right = try await ScriptedGateway()
    try await withWorker(FakeStage.denoiser(), quickConfiguration([left.endpoint, right.endpoint])) { _, _ in
      let (leftPeer, _) = try await left.admitWorker()
      let (rightPeer, _) = try await right.admitWorker()
      try await left.send(Envelope(task: task("l"), body: denoise(steps: 3)), to: leftPeer)
      #expect(try await left.conversation(task("l")).last?.body == .denoiseResponse(DenoiseResponse(steps: 3)))
      await left.close()
      try await right.send(Envelope(task: task("r"), body: denoise(steps: 3)), to: rightPeer)
      #expect(try await right.conversation(task("r")).last?.body == .denoiseResponse(DenoiseResponse(steps: 3)))
    }
    await right.close()
  }

  @Test("a worker that dies is noticed at once, another one takes its place")
  func workerDies() async throws {
    let gateway = try await ScriptedGateway()
    let victim = try await withWorker(FakeStage.denoiser(stepMs: 5), quickConfiguration([gateway.endpoint])) {
      _, running in
      let (peer, _) = try await gateway.admitWorker()
      try await gateway.start(Envelope(task: task("a"), body: denoise(steps: 10_000)), on: peer)
      return peer
    }
    while true {
      if case .disconnected(let peer) = try await gateway.nextEvent() {
        #expect(peer == victim)
        break
      }
    }
    try await withWorker(FakeStage.denoiser(), quickConfiguration([gateway.endpoint])) { _, _ in
      let (peer, registration) = try await gateway.admitWorker()
      #expect(peer != victim && registration.running.isEmpty)
      try await gateway.send(Envelope(task: task("a", attempt: 2), body: denoise(steps: 4)), to: peer)
      #expect(
        try await gateway.conversation(task("a", attempt: 2)).last?.body == .denoiseResponse(DenoiseResponse(steps: 4)))
    }
    await gateway.close()
  }

  @Test("tasks of a gateway that stays away are given up")
  func orphans() async throws {
    let gateway = try await ScriptedGateway()
    let ended = Counter()
    let stage = FakeStage { _, context in
      defer { ended.increment() }
      while true {
        try context.checkCancelled()
        usleep(1000)
      }
    }
    var configuration = quickConfiguration([gateway.endpoint])
    configuration.orphanTimeoutMs = 200
    try await withWorker(stage, configuration) { _, _ in
      let (peer, _) = try await gateway.admitWorker(leaseMs: 100)
      try await gateway.start(Envelope(task: task("a"), body: denoise(steps: 1)), on: peer)
      await gateway.close()
      for _ in 0..<300 where ended.value == 0 { try await Task.sleep(for: .milliseconds(10)) }
      #expect(ended.value == 1)
    }
  }

  @Test("CURVE: a listed worker serves")
  func curve() async throws {
    let directory = NSTemporaryDirectory() + "/stage-runtime-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let server = try CurveKeyPair.generate()
    let worker = try CurveKeyPair.generate()
    try worker.publicKey.write(to: directory + "/w.public")
    let gateway = try await ScriptedGateway(
      security: .curve(server, allowList: try CurveAllowList(directory: directory)))
    let configuration = quickConfiguration([gateway.endpoint], security: .curve(worker, server: server.publicKey))
    try await withWorker(FakeStage.denoiser(), configuration) { _, _ in
      let (peer, _) = try await gateway.admitWorker()
      try await gateway.send(Envelope(task: task("a"), body: denoise(steps: 2)), to: peer)
      #expect(try await gateway.conversation(task("a")).last?.body == .denoiseResponse(DenoiseResponse(steps: 2)))
    }
    await gateway.close()
  }
}

@Suite("How a worker leaves", .serialized, .timeLimit(.minutes(5)))
struct DrainTests {
  @Test("it finishes what runs, refuses what comes, says goodbye and ends")
  func drain() async throws {
    let gateway = try await ScriptedGateway()
    try await withWorker(FakeStage.denoiser(stepMs: 5), quickConfiguration([gateway.endpoint])) { worker, running in
      let (peer, _) = try await gateway.admitWorker()
      try await gateway.send(Envelope(task: task("a"), body: denoise(steps: 60)), to: peer)
      while true { if case .progress = try await gateway.nextMessage().envelope.body { break } }
      worker.drain(reason: "scale down")
      while true { if case .draining("scale down") = try await gateway.nextMessage().envelope.body { break } }
      try await gateway.send(Envelope(task: task("b"), body: denoise(steps: 1)), to: peer)
      var bodies: [Body] = []
      while true {
        let envelope = try await gateway.nextMessage().envelope
        if case .progress = envelope.body { continue }
        bodies.append(envelope.body)
        if case .goodbye = envelope.body { break }
      }
      guard bodies.count == 3, case .failed(let status) = bodies[0] else { throw Unexpected("\(bodies)") }
      #expect(status.code == .unavailable)
      #expect(bodies[1] == .denoiseResponse(DenoiseResponse(steps: 60)) && bodies[2] == .goodbye(reason: "scale down"))
      try await ends(running, within: 60)
    }
    await gateway.close()
  }

  @Test("what still runs after the grace is stopped at its next step")
  func grace() async throws {
    let gateway = try await ScriptedGateway()
    var configuration = quickConfiguration([gateway.endpoint])
    configuration.drainGraceMs = 50
    try await withWorker(FakeStage.denoiser(stepMs: 5), configuration) { worker, running in
      let (peer, _) = try await gateway.admitWorker()
      try await gateway.start(Envelope(task: task("a"), body: denoise(steps: 10_000)), on: peer)
      worker.drain(reason: "stop")
      guard case .failed(let status) = try await gateway.conversation(task("a")).last?.body else {
        throw Unexpected("not failed")
      }
      #expect(status.code == .unavailable)
      try await ends(running, within: 60)
    }
    await gateway.close()
  }

  @Test("a stage that never looks up is left behind, and its task is answered")
  func stuck() async throws {
    let gateway = try await ScriptedGateway()
    var configuration = quickConfiguration([gateway.endpoint])
    configuration.drainGraceMs = 20
    configuration.stopWaitMs = 100
    let release = Counter()
    let stage = FakeStage { _, _ in
      while release.value == 0 { usleep(1000) }
      throw Status(.internal, "too late")
    }
    try await withWorker(stage, configuration) { worker, running in
      let (peer, _) = try await gateway.admitWorker()
      try await gateway.start(Envelope(task: task("a"), body: denoise(steps: 1)), on: peer)
      worker.drain(reason: "stop")
      guard case .failed(let status) = try await gateway.conversation(task("a")).last?.body else {
        throw Unexpected("not failed")
      }
      #expect(status.code == .unavailable && status.message.contains("left before"))
      try await ends(running, within: 60)
    }
    release.increment()
    await gateway.close()
  }

  @Test("a graceful shutdown of the process drains it")
  func gracefulShutdown() async throws {
    let gateway = try await ScriptedGateway()
    let worker = Worker(stage: FakeStage.denoiser(stepMs: 5), configuration: quickConfiguration([gateway.endpoint]))
    var logger = quickConfiguration([]).logger
    logger.logLevel = .critical
    let group = ServiceGroup(services: [worker], logger: logger)
    let running = Task { try await group.run() }
    let (peer, _) = try await gateway.admitWorker()
    try await gateway.start(Envelope(task: task("a"), body: denoise(steps: 30)), on: peer)
    await group.triggerGracefulShutdown()
    #expect(try await gateway.conversation(task("a")).last?.body == .denoiseResponse(DenoiseResponse(steps: 30)))
    try await ends(running, within: 60)
    await gateway.close()
  }

  @Test("with no gateway in reach it leaves at once; bad settings and addresses are errors")
  func configuration() async throws {
    try await withWorker(FakeStage.denoiser(), quickConfiguration(["tcp://127.0.0.1:9"])) { worker, running in
      try await Task.sleep(for: .milliseconds(50))
      worker.drain(reason: "stop")
      try await ends(running, within: 60)
    }
    func error(_ change: (inout WorkerConfiguration) -> Void) async -> any Error {
      var configuration = quickConfiguration(["tcp://127.0.0.1:9"])
      change(&configuration)
      do {
        try await Worker(stage: FakeStage.denoiser(), configuration: configuration).run()
        return Unexpected("it ran")
      } catch { return error }
    }
    #expect((await error { $0.gateways = [] } as? WorkerConfigurationError)?.setting == "gateways")
    #expect((await error { $0.gateways += $0.gateways } as? WorkerConfigurationError)?.setting == "gateways")
    #expect((await error { $0.credits = 0 } as? WorkerConfigurationError)?.setting == "credits")
    #expect((await error { $0.tickMs = 0 } as? WorkerConfigurationError)?.setting == "tickMs")
    #expect(
      await error { $0.gateways = ["tcp://10.0.0.1:1"] } as? TransportError
        == .plaintextRefused(endpoint: "tcp://10.0.0.1:1"))
  }
}

@Suite("Health", .timeLimit(.minutes(5)))
struct HealthTests {
  @Test("the file tells connecting, ready, draining and gone, and a check understands it")
  func lifecycle() async throws {
    let path = NSTemporaryDirectory() + "/health-\(UUID().uuidString)"
    let file = HealthFile(path: path)
    #expect(!file.check().isHealthy)
    let gateway = try await ScriptedGateway()
    var configuration = quickConfiguration([gateway.endpoint])
    configuration.healthFile = path
    try await withWorker(FakeStage.denoiser(stepMs: 20), configuration) { worker, running in
      #expect(try await waitFor("connecting", in: file).exitCode == 1)
      let (peer, _) = try await gateway.admitWorker()
      #expect(try await waitFor("ready", in: file).exitCode == 0)
      try await gateway.start(Envelope(task: task("a"), body: denoise(steps: 100)), on: peer)
      worker.drain(reason: "stop")
      let verdict = try await waitFor("draining", in: file)
      #expect(verdict.isHealthy && verdict.message.contains("1 tasks"))
    }
    #expect(file.check().message.contains("gone"))
    await gateway.close()
  }

  @Test("an old report and nonsense are not health")
  func stale() throws {
    let path = NSTemporaryDirectory() + "/health-\(UUID().uuidString)"
    let file = HealthFile(path: path)
    defer { file.remove() }
    var report = HealthReport(stage: .denoiser, state: .ready)
    try file.write(report)
    #expect(file.check().isHealthy)
    report.unixMs -= 20_000
    try file.write(report)
    #expect(!file.check().isHealthy && file.check().message.contains("20 s"))
    report.unixMs = 0
    try file.write(report)
    #expect(!file.check().isHealthy)
    try file.write(HealthReport(stage: .denoiser, state: .loading))
    #expect(!file.check().isHealthy)
    try "nonsense".write(toFile: path, atomically: true, encoding: .utf8)
    #expect(!file.check().isHealthy)
  }
}

/// Waits until a health file says `state`.
@discardableResult
func waitFor(_ state: String, in file: HealthFile) async throws -> HealthFile.Verdict {
  for _ in 0..<6000 {
    let verdict = file.check()
    if verdict.message.contains(state) { return verdict }
    try await Task.sleep(for: .milliseconds(10))
  }
  throw Unexpected("never \(state): \(file.check().message)")
}
