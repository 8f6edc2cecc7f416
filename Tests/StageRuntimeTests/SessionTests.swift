import ClusterCore
import Foundation
import ServiceLifecycle
import StageRuntime
import TestSupport
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

  @Test("a gateway that does not know the session gets a new registration at once, a silent one after its lease")
  func forgottenSession() async throws {
    let gateway = try await ScriptedGateway()
    let time = ManualTime()
    try await withWorker(FakeStage.denoiser(), quickConfiguration([gateway.endpoint]), time: time) { _, _ in
      let (peer, _) = try await gateway.admitWorker(leaseMs: 1000)
      try await gateway.send(
        Envelope(inReplyTo: 99, body: .failed(Status(.failedPrecondition, "unknown session"))), to: peer)
      _ = try await gateway.admitWorker(leaseMs: 1000)
      try await gateway.settle(peer)
      await gateway.stopAnswering()
      try await time.pass(100)
      _ = try await gateway.admitWorker()
      // Every 50 ms, and at 1000 ms it registers instead.
      #expect(await gateway.heartbeats.count == 19)
    }
    await gateway.close()
  }

  @Test("a worker that hears nothing connects anew, in case the connection is dead without either side knowing")
  func silentConnection() async throws {
    let gateway = try await ScriptedGateway()
    let time = ManualTime()
    var configuration = quickConfiguration([gateway.endpoint])
    configuration.registrationRetryMs = 100
    try await withWorker(FakeStage.denoiser(), configuration, time: time) { _, _ in
      let (first, _) = try await gateway.admitWorker(leaseMs: 100)
      try await gateway.settle(first)
      await gateway.stopAnswering()
      // The lease is over; registrations are not answered either.
      for _ in 1...3 {
        try await time.pass(10)
        #expect(try await gateway.nextRegistration().peer == first)
      }
      // Four times the pause between registrations after the last word.
      try await time.pass(10)
      var inbound = try await gateway.nextRegistration()
      while inbound.peer == first { inbound = try await gateway.nextRegistration() }
      try await gateway.reply(
        .registered(Registered(sessionID: "anew", heartbeatIntervalMs: 50, leaseMs: 60_000)), to: inbound)
      try await gateway.settle(inbound.peer)
      try await time.pass(5)
      #expect(try await gateway.nextHeartbeat().sessionID == "anew")
    }
    await gateway.close()
  }

  @Test("a registration that is refused or not answered is tried again, not at once")
  func refusedRegistration() async throws {
    let gateway = try await ScriptedGateway()
    let time = ManualTime()
    var configuration = quickConfiguration([gateway.endpoint])
    configuration.registrationRetryMs = 100
    try await withWorker(FakeStage.denoiser(), configuration, time: time) { _, _ in
      let inbound = try await gateway.nextRegistration()
      try await gateway.reply(.failed(Status(.failedPrecondition, "fingerprints differ")), to: inbound)
      for _ in ["refused", "not answered"] {
        try await gateway.settle(inbound.peer)
        try await time.pass(9)
        try await gateway.settle(inbound.peer)
        try await time.pass(1)
        #expect(try await gateway.nextRegistration().peer == inbound.peer)
      }
    }
    await gateway.close()
  }

  @Test("a gateway that answers an earlier registration than the last one has answered")
  func lateAnswer() async throws {
    let gateway = try await ScriptedGateway()
    let time = ManualTime()
    var configuration = quickConfiguration([gateway.endpoint])
    configuration.registrationRetryMs = 100
    try await withWorker(FakeStage.denoiser(), configuration, time: time) { _, _ in
      let first = try await gateway.nextRegistration()
      try await time.pass(10)
      let second = try await gateway.nextRegistration()
      for (registration, session) in [(first, "late"), (second, "newer")] {
        try await gateway.reply(
          .registered(Registered(sessionID: session, heartbeatIntervalMs: 20, leaseMs: 60_000)), to: registration)
        try await gateway.settle(registration.peer)
        try await time.pass(2)
        #expect(try await gateway.nextHeartbeat().sessionID == session)
      }
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
    let (started, ended) = (Counter(), Counter())
    let stage = FakeStage { _, context in
      started.increment()
      defer { ended.increment() }
      while true {
        try context.checkCancelled()
        usleep(1000)
      }
    }
    var configuration = quickConfiguration([gateway.endpoint])
    configuration.orphanTimeoutMs = 200
    let time = ManualTime()
    try await withWorker(stage, configuration, time: time) { _, _ in
      let (peer, _) = try await gateway.admitWorker(leaseMs: 100)
      try await gateway.start(Envelope(task: task("a"), body: denoise(steps: 1)), on: peer)
      try await until("the stage computes") { started.value == 1 }
      await gateway.close()
      try await time.pass(30)
      #expect(ended.value == 0, "its lease and the timeout are just over")
      try await time.pass(1)
      try await until("the task is given up") { ended.value == 1 }
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
    let release = Counter()
    try await withWorker(FakeStage.waiting(for: release), quickConfiguration([gateway.endpoint])) { worker, running in
      let (peer, _) = try await gateway.admitWorker()
      try await gateway.start(Envelope(task: task("a"), body: denoise(steps: 2)), on: peer)
      guard case .progress = try await gateway.nextMessage().envelope.body else { throw Unexpected("no progress") }
      worker.drain(reason: "scale down")
      #expect(try await gateway.nextMessage().envelope.body == .draining(reason: "scale down"))
      try await gateway.send(Envelope(task: task("b"), body: denoise(steps: 1)), to: peer)
      guard case .failed(let status) = try await gateway.nextMessage().envelope.body else {
        throw Unexpected("not refused")
      }
      #expect(status.code == .unavailable)
      release.increment()
      #expect(try await gateway.nextMessage().envelope.body == .denoiseResponse(DenoiseResponse(steps: 2)))
      #expect(try await gateway.nextMessage().envelope.body == .goodbye(reason: "scale down"))
      try await ends(running)
    }
    await gateway.close()
  }

  private let other: ModelCard = {
    var card = FakeStage.denoiser().card
    card.model = ModelIdentity(id: "other", fingerprint: "o")
    return card
  }()

  @Test("to load another model it finishes what runs, however long that takes, and ends")
  func switchesModels() async throws {
    let gateway = try await ScriptedGateway()
    let (release, time) = (Counter(), ManualTime())
    var configuration = quickConfiguration([gateway.endpoint])
    configuration.drainGraceMs = 50
    configuration.standbyCards = [other]
    try await withWorker(FakeStage.waiting(for: release), configuration, time: time) { worker, running in
      let (peer, register) = try await gateway.admitWorker()
      #expect(register.standbyCards == [other])
      try await gateway.start(Envelope(task: task("a"), body: denoise(steps: 2)), on: peer)
      guard case .progress = try await gateway.nextMessage().envelope.body else { throw Unexpected("no progress") }
      try await gateway.send(
        Envelope(body: .switchModel(ModelIdentity(id: "third", fingerprint: "t"))), to: peer)
      guard case .failed(let status) = try await gateway.nextMessage().envelope.body else {
        throw Unexpected("not refused")
      }
      #expect(status.code == .notFound)
      try await gateway.send(Envelope(body: .switchModel(other.model)), to: peer)
      #expect(try await gateway.nextMessage().envelope.body == .draining(reason: "loading model other"))
      try await time.pass(40)
      try await gateway.settle(peer)
      release.increment()
      #expect(try await gateway.conversation(task("a")).last?.body == .denoiseResponse(DenoiseResponse(steps: 2)))
      #expect(try await gateway.nextMessage().envelope.body == .goodbye(reason: "loading model other"))
      try await ends(running)
      #expect(await worker.nextModel == other.model)
    }
    await gateway.close()
  }

  @Test("a shutdown comes before another model")
  func shutdownWhileSwitching() async throws {
    let gateway = try await ScriptedGateway()
    let time = ManualTime()
    var configuration = quickConfiguration([gateway.endpoint])
    configuration.drainGraceMs = 50
    configuration.standbyCards = [other]
    try await withWorker(FakeStage.waiting(for: Counter()), configuration, time: time) { worker, running in
      let (peer, _) = try await gateway.admitWorker()
      try await gateway.start(Envelope(task: task("a"), body: denoise(steps: 2)), on: peer)
      guard case .progress = try await gateway.nextMessage().envelope.body else { throw Unexpected("no progress") }
      try await gateway.send(Envelope(body: .switchModel(other.model)), to: peer)
      #expect(try await gateway.nextMessage().envelope.body == .draining(reason: "loading model other"))
      worker.drain(reason: "stop")
      #expect(try await gateway.nextMessage().envelope.body == .draining(reason: "stop"))
      try await time.pass(4)
      try await gateway.settle(peer)
      time.advance(by: tick)
      guard case .failed(let status) = try await gateway.conversation(task("a")).last?.body else {
        throw Unexpected("not failed")
      }
      #expect(status.code == .unavailable)
      try await ends(running)
      #expect(await worker.nextModel == nil)
    }
    await gateway.close()
  }

  @Test("what still runs after the grace is stopped at its next step")
  func grace() async throws {
    let gateway = try await ScriptedGateway()
    let time = ManualTime()
    var configuration = quickConfiguration([gateway.endpoint])
    configuration.drainGraceMs = 50
    try await withWorker(FakeStage.waiting(for: Counter()), configuration, time: time) { worker, running in
      let (peer, _) = try await gateway.admitWorker()
      try await gateway.start(Envelope(task: task("a"), body: denoise(steps: 2)), on: peer)
      guard case .progress = try await gateway.nextMessage().envelope.body else { throw Unexpected("no progress") }
      worker.drain(reason: "stop")
      #expect(try await gateway.nextMessage().envelope.body == .draining(reason: "stop"))
      try await time.pass(4)
      try await gateway.settle(peer)
      time.advance(by: tick)
      guard case .failed(let status) = try await gateway.conversation(task("a")).last?.body else {
        throw Unexpected("not failed")
      }
      #expect(status.code == .unavailable)
      try await ends(running)
    }
    await gateway.close()
  }

  @Test("a stage that never looks up is left behind, and its task is answered")
  func stuck() async throws {
    let gateway = try await ScriptedGateway()
    let time = ManualTime()
    var configuration = quickConfiguration([gateway.endpoint])
    configuration.drainGraceMs = 20
    configuration.stopWaitMs = 100
    let (started, release) = (Counter(), Counter())
    let stage = FakeStage { _, _ in
      started.increment()
      while release.value == 0 { usleep(1000) }
      throw Status(.internal, "too late")
    }
    try await withWorker(stage, configuration, time: time) { worker, running in
      let (peer, _) = try await gateway.admitWorker()
      try await gateway.start(Envelope(task: task("a"), body: denoise(steps: 1)), on: peer)
      try await until("the stage computes") { started.value == 1 }
      worker.drain(reason: "stop")
      #expect(try await gateway.nextMessage().envelope.body == .draining(reason: "stop"))
      try await time.pass(11)
      try await gateway.settle(peer)
      time.advance(by: tick)
      guard case .failed(let status) = try await gateway.conversation(task("a")).last?.body else {
        throw Unexpected("not failed")
      }
      #expect(status.code == .unavailable && status.message.contains("left before"))
      try await ends(running)
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
    try await ends(running)
    await gateway.close()
  }

  @Test("with no gateway in reach it leaves at once; bad settings and addresses are errors")
  func configuration() async throws {
    let time = ManualTime()
    try await withWorker(FakeStage.denoiser(), quickConfiguration(["tcp://127.0.0.1:9"]), time: time) {
      worker, running in
      try await time.pass(1)
      worker.drain(reason: "stop")
      try await ends(running)
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
    let time = ManualTime()
    var configuration = quickConfiguration([gateway.endpoint])
    configuration.healthFile = path
    try await withWorker(FakeStage.waiting(for: Counter()), configuration, time: time) { worker, running in
      try await time.pass(1)
      let connecting = file.check(time: time)
      #expect(connecting.message.contains("connecting") && connecting.exitCode == 1)
      let (peer, _) = try await gateway.admitWorker()
      try await gateway.settle(peer)
      try await time.pass(99)
      #expect(file.check(time: time) == connecting, "it is written once a second")
      try await time.pass(1)
      let ready = file.check(time: time)
      #expect(ready.message.contains("ready") && ready.exitCode == 0)
      try await gateway.start(Envelope(task: task("a"), body: denoise(steps: 100)), on: peer)
      worker.drain(reason: "stop")
      try await time.pass(100)
      let draining = file.check(time: time)
      #expect(draining.isHealthy && draining.message.contains("draining") && draining.message.contains("1 tasks"))
    }
    #expect(file.check().message.contains("gone"))
    await gateway.close()
  }

  @Test("an old report and nonsense are not health")
  func stale() throws {
    let path = NSTemporaryDirectory() + "/health-\(UUID().uuidString)"
    let file = HealthFile(path: path)
    let time = ManualTime()
    defer { file.remove() }
    var report = HealthReport(stage: .denoiser, state: .ready, time: time)
    try file.write(report)
    time.advance(by: .seconds(15))
    #expect(file.check(time: time).isHealthy)
    time.advance(by: .milliseconds(1))
    #expect(!file.check(time: time).isHealthy && file.check(time: time).message.contains("15 s"))
    #expect(file.check(maxAgeSeconds: 16, time: time).isHealthy)
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
func waitFor(_ state: String, in file: HealthFile) async throws {
  try await until("the health file says \(state)") { file.check().message.contains(state) }
}
