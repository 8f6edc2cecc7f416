import ClusterCore
import Foundation
import StageRuntime
import TensorCore
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
    let started = Counter()
    var configuration = quickConfiguration([gateway.endpoint])
    configuration.credits = 3
    try await withWorker(FakeStage.denoiser(stepMs: 20, started: started), configuration) { _, _ in
      let (peer, _) = try await gateway.admitWorker()
      for job in ["a", "b", "c", "d"] {
        try await gateway.send(Envelope(task: task(job), body: denoise(steps: 20)), to: peer)
      }
      var ended: [String: Body] = [:]
      var order: [String] = []
      while ended.count < 4 {
        let envelope = try await gateway.nextMessage().envelope
        switch envelope.body {
        case .failed, .denoiseResponse:
          let job = try #require(envelope.task?.jobID)
          ended[job] = envelope.body
          order.append(job)
        default: continue
        }
      }
      #expect(order.first == "d")
      guard case .failed(let status) = ended["d"] else { throw Unexpected("\(String(describing: ended["d"]))") }
      #expect(status.code == .resourceExhausted && status.message.contains("3"))
      #expect(started.value == 3)
      let busiest = try #require(await gateway.heartbeats.max { $0.running.count < $1.running.count })
      #expect(busiest.running.count == 3 && busiest.freeCredits == 0 && busiest.sessionID == "session")
      #expect(busiest.running.allSatisfy { $0.steps == 20 } && busiest.residentBytes > 1 << 20)
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
    try await withWorker(FakeStage.denoiser(stepMs: 5, started: started), configuration) { _, _ in
      let (peer, _) = try await gateway.admitWorker()
      try await gateway.send(Envelope(task: task("a"), body: denoise(steps: 40)), to: peer)
      try await gateway.send(Envelope(task: task("a"), body: denoise(steps: 40)), to: peer)
      let conversation = try await gateway.conversation(task("a"))
      #expect(
        conversation.count { $0.body == .accepted } == 2
          && conversation.count { $0.body == .denoiseResponse(.init(steps: 40)) } == 1)
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
    try await withWorker(FakeStage.denoiser(stepMs: 5), quickConfiguration([gateway.endpoint])) { _, _ in
      let (peer, _) = try await gateway.admitWorker()
      let now = UInt64(Date().timeIntervalSince1970 * 1000)
      try await gateway.send(Envelope(task: task("a"), deadlineUnixMs: now - 1000, body: denoise(steps: 1)), to: peer)
      let first = try await gateway.conversation(task("a"))
      guard first.count == 1, case .failed(let late) = first[0].body else { throw Unexpected("\(first.map(\.body))") }
      #expect(late.code == .deadlineExceeded)
      try await gateway.send(
        Envelope(task: task("b"), deadlineUnixMs: now + 300, body: denoise(steps: 10_000)), to: peer)
      let second = try await gateway.conversation(task("b"))
      guard second.count > 2, case .failed(let slow) = second.last?.body else {
        throw Unexpected("\(second.map(\.body))")
      }
      #expect(slow.code == .deadlineExceeded)
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
