import ClusterCore
import Foundation
import StageRuntime
import TensorCore
import TestSupport
import Testing
import Transport
import Wire

@Suite("A worker's tasks", .serialized, .timeLimit(.minutes(5)))
struct TaskTests {
  @Test("accepted, progress after every step, result; everything names the task and the request")
  func happyPath() async throws {
    let gateway = try await ScriptedGateway()
    try await withWorker(FakeStage.denoiser(), quickConfiguration([gateway.endpoint])) { _, _ in
      let (peer, registration) = try await gateway.admitWorker()
      #expect(registration.card == .test && registration.stage == .denoiser && registration.credits == 1)
      #expect(
        registration.componentFingerprint == "weights-1" && registration.numericsClass == "test"
          && registration.running.isEmpty)
      #expect(registration.pid == UInt64(getpid()))
      let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
      for job in ["a", "b"] {
        let request = Envelope(
          task: task(job), traceparent: trace, body: denoise(steps: 5, firstStep: 2), tensors: [.latents([2, 12])])
        let number = try await gateway.send(request, to: peer)
        let conversation = try await gateway.conversation(task(job))
        #expect(conversation.allSatisfy { $0.inReplyTo == number && $0.traceparent == trace })
        #expect(
          conversation.map(\.body) == [
            .accepted,
            .progress(Progress(completedSteps: 3, steps: 5, stepSeconds: 0.001)),
            .progress(Progress(completedSteps: 4, steps: 5, stepSeconds: 0.001)),
            .progress(Progress(completedSteps: 5, steps: 5, stepSeconds: 0.001)),
            .denoiseResponse(DenoiseResponse(steps: 5)),
          ])
        #expect(conversation.map { $0.tensors.first?.bytes.array } == [nil, [3, 13], [4, 14], [5, 15], [5, 15]])
      }
    }
    await gateway.close()
  }

  @Test("credits are tasks at a time; one more is refused, and heartbeats tell what runs")
  func credits() async throws {
    let gateway = try await ScriptedGateway()
    let time = ManualTime()
    let (started, release) = (Counter(), Counter())
    var configuration = quickConfiguration([gateway.endpoint])
    configuration.credits = 3
    let stage = FakeStage.waiting(for: release, started: started)
    try await withWorker(stage, configuration, time: time) { _, _ in
      let (peer, _) = try await gateway.admitWorker()
      for job in ["a", "b", "c", "d"] {
        try await gateway.send(Envelope(task: task(job), body: denoise(steps: 2)), to: peer)
      }
      var refused: [String: Status] = [:]
      var reports = 0
      while reports < 3 || refused.isEmpty {
        let envelope = try await gateway.nextMessage().envelope
        switch envelope.body {
        case .accepted: continue
        case .progress: reports += 1
        case .failed(let status): refused[envelope.task?.jobID ?? ""] = status
        default: throw Unexpected("\(envelope.body)")
        }
      }
      let status = try #require(refused["d"])
      #expect(status.code == .resourceExhausted && status.message.contains("3"))
      #expect(started.value == 3 && refused.count == 1)
      try await gateway.settle(peer)
      #expect(await gateway.heartbeats.map(\.freeCredits) == [0], "who asks too much learns it at once")
      try await time.pass(5)
      let busy = try await gateway.nextHeartbeat()
      #expect(busy.running.map(\.task) == ["a", "b", "c"].map { task($0) })
      #expect(busy.freeCredits == 0 && busy.sessionID == "session" && busy.residentBytes > 1 << 20)
      #expect(busy.running.allSatisfy { $0.steps == 2 && $0.completedSteps == 1 && $0.stepSeconds == 0.05 })
      release.increment()
      for _ in 0..<3 {
        #expect(try await gateway.nextMessage().envelope.body == .denoiseResponse(DenoiseResponse(steps: 2)))
      }
      try await time.pass(5)
      let idle = try await gateway.nextHeartbeat()
      #expect(idle.freeCredits == 3 && idle.running.isEmpty && idle.tasksDone == 3 && idle.tasksFailed == 0)
    }
    await gateway.close()
  }

  @Test("a cancelled task stops at its next step and says so; cancelling what does not run is answered")
  func cancel() async throws {
    let gateway = try await ScriptedGateway()
    try await withWorker(FakeStage.denoiser(stepMs: 5), quickConfiguration([gateway.endpoint])) { _, _ in
      let (peer, _) = try await gateway.admitWorker()
      try await gateway.send(Envelope(task: task("a"), body: denoise(steps: 10_000)), to: peer)
      while true { if case .progress = try await gateway.nextMessage().envelope.body { break } }
      try await gateway.send(Envelope(task: task("a"), body: .cancel(reason: "client left")), to: peer)
      let end = try #require(try await gateway.conversation(task("a")).last)
      #expect(end.body == .failed(Status(.cancelled, "client left")))
      try await gateway.send(Envelope(task: task("a"), body: .cancel(reason: "again")), to: peer)
      guard case .failed(let status) = try await gateway.nextMessage().envelope.body else {
        throw Unexpected("no answer")
      }
      #expect(status.code == .notFound)
      // The credit is free again.
      try await gateway.send(Envelope(task: task("b"), body: denoise(steps: 1)), to: peer)
      #expect(try await gateway.conversation(task("b")).last?.body == .denoiseResponse(DenoiseResponse(steps: 1)))
    }
    await gateway.close()
  }

  @Test("what a stage throws or returns wrongly becomes Failed, and the next task runs")
  func stageFails() async throws {
    struct Broken: Error {}
    let gateway = try await ScriptedGateway()
    let stage = FakeStage { task, _ in
      switch task.reference.jobID {
      case "status": throw Status(.invalidArgument, "tokens: 600, at most 512", field: "prompt")
      case "error": throw Broken()
      case "long":
        throw Status(.internal, String(repeating: "ü\0", count: 10_000), field: String(repeating: "f", count: 1000))
      case "unsendable":
        let tensor = WireTensor(name: "latents", dtype: .fp32, shape: [3], bytes: FrameBuffer(copying: [UInt8(1)]))
        return StageOutput(.denoiseResponse(DenoiseResponse(steps: 1)), tensors: [tensor])
      case "missing": _ = try task.requiredTensor(TensorName.promptEmbeds)
      default: break
      }
      return StageOutput(.denoiseResponse(DenoiseResponse(steps: 1)))
    }
    try await withWorker(stage, quickConfiguration([gateway.endpoint])) { _, _ in
      let (peer, _) = try await gateway.admitWorker()
      func outcome(_ job: String) async throws -> Body {
        try await gateway.send(Envelope(task: task(job), body: denoise(steps: 1)), to: peer)
        let conversation = try await gateway.conversation(task(job))
        guard let last = conversation.last else { throw Unexpected("no answer") }
        return last.body
      }
      #expect(
        try await outcome("status") == .failed(Status(.invalidArgument, "tokens: 600, at most 512", field: "prompt")))
      #expect(try await outcome("error") == .failed(Status(.internal, "Broken()")))
      #expect(
        try await outcome("missing")
          == .failed(Status(.invalidArgument, "the tensor prompt_embeds is missing", field: "prompt_embeds")))
      guard case .failed(let long) = try await outcome("long"),
        case .failed(let unsendable) = try await outcome("unsendable")
      else {
        throw Unexpected("not failed")
      }
      #expect(long.code == .internal && long.message.utf8.count > 3990 && long.message.utf8.count <= 4000)
      #expect(unsendable.code == .internal && unsendable.message.contains("latents"))
      #expect(try await outcome("good") == .denoiseResponse(DenoiseResponse(steps: 1)))
    }
    await gateway.close()
  }

  @Test("a task that is sent twice runs once; a newer attempt replaces an older one; an older one is refused")
  func attempts() async throws {
    let gateway = try await ScriptedGateway()
    let started = Counter()
    var configuration = quickConfiguration([gateway.endpoint])
    configuration.credits = 2
    let release = Counter()
    let stage = FakeStage { task, context in
      if task.reference.jobID == "a" {
        return try FakeStage.waiting(for: release, started: started).compute(task, context)
      }
      return try FakeStage.denoiser(stepMs: 5).compute(task, context)
    }
    try await withWorker(stage, configuration) { _, _ in
      let (peer, _) = try await gateway.admitWorker()
      for _ in 0..<2 { try await gateway.send(Envelope(task: task("a"), body: denoise(steps: 2)), to: peer) }
      var accepted = 0
      while accepted < 2 { if case .accepted = try await gateway.nextMessage().envelope.body { accepted += 1 } }
      release.increment()
      let conversation = try await gateway.conversation(task("a"))
      #expect(conversation.last?.body == .denoiseResponse(DenoiseResponse(steps: 2)))
      try await gateway.settle(peer)
      #expect(started.value == 1)

      try await gateway.send(Envelope(task: task("b", attempt: 2), body: denoise(steps: 10_000)), to: peer)
      try await gateway.send(Envelope(task: task("b", attempt: 1), body: denoise(steps: 10)), to: peer)
      guard case .failed(let stale) = try await gateway.conversation(task("b", attempt: 1)).last?.body else {
        throw Unexpected("ran")
      }
      #expect(stale.code == .aborted)
      try await gateway.send(Envelope(task: task("b", attempt: 3), body: denoise(steps: 60)), to: peer)
      guard case .failed(let superseded) = try await gateway.conversation(task("b", attempt: 2)).last?.body else {
        throw Unexpected("not stopped")
      }
      #expect(superseded.code == .aborted)
      #expect(
        try await gateway.conversation(task("b", attempt: 3)).last?.body == .denoiseResponse(DenoiseResponse(steps: 60))
      )
    }
    await gateway.close()
  }

  @Test("a deadline that has passed, on arrival or between steps")
  func deadlines() async throws {
    let gateway = try await ScriptedGateway()
    let time = ManualTime()
    let stage = FakeStage.waiting(for: Counter())
    try await withWorker(stage, quickConfiguration([gateway.endpoint]), time: time) { _, _ in
      let (peer, _) = try await gateway.admitWorker()
      let now = UInt64(time.unixMs)
      try await gateway.send(Envelope(task: task("a"), deadlineUnixMs: now - 1000, body: denoise(steps: 1)), to: peer)
      let first = try await gateway.conversation(task("a"))
      guard first.count == 1, case .failed(let late) = first[0].body else { throw Unexpected("\(first.map(\.body))") }
      #expect(late == Status(.deadlineExceeded, "the deadline passed 1000 ms before the task arrived"))
      try await gateway.start(
        Envelope(task: task("b"), deadlineUnixMs: now + 300, body: denoise(steps: 2)), on: peer)
      guard case .progress = try await gateway.nextMessage().envelope.body else { throw Unexpected("no progress") }
      time.advance(by: .milliseconds(299))
      try await gateway.settle(peer)
      time.advance(by: .milliseconds(2))
      let second = try await gateway.conversation(task("b"))
      #expect(second.map(\.body) == [.failed(Status(.deadlineExceeded, "the deadline passed 1 ms ago"))])
    }
    await gateway.close()
  }

  @Test("requests that make no sense are answered with what is wrong")
  func badRequests() async throws {
    let gateway = try await ScriptedGateway()
    try await withWorker(FakeStage.denoiser(), quickConfiguration([gateway.endpoint])) { _, _ in
      let (peer, _) = try await gateway.admitWorker()
      let bad: [(Envelope, StatusCode, String?)] = [
        (Envelope(body: denoise(steps: 1)), .invalidArgument, "task"),
        (Envelope(task: task("a"), body: denoise(steps: 1, model: "another")), .notFound, "model_id"),
        (
          Envelope(task: task("a"), body: .encodeRequest(EncodeRequest(modelID: "test-model", prompt: "x"))),
          .unimplemented, nil
        ),
        (Envelope(task: task("a"), body: .accepted), .unimplemented, nil),
        (Envelope(body: .cancel(reason: "")), .invalidArgument, "task"),
      ]
      for (envelope, code, field) in bad {
        let number = try await gateway.send(envelope, to: peer)
        let answer = try await gateway.nextMessage().envelope
        guard case .failed(let status) = answer.body else { throw Unexpected("\(answer.body)") }
        #expect(
          status.code == code && status.field == field && answer.inReplyTo == number && answer.task == envelope.task)
      }
    }
    await gateway.close()
  }
}
