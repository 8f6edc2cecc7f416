import ClusterCore
import Foundation
import StageRuntime
import TensorCore
import TestSupport
import Transport
import Wire

struct Unexpected: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}

/// Any free port of a loopback address that no other test uses: a closed port of a shared address may soon belong to
/// another test, whose peers would then find this one's.
func privateLoopback() -> String {
  #if os(Linux)
    "tcp://127.\(Int.random(in: 1...254)).\(Int.random(in: 1...254)).\(Int.random(in: 1...254)):*"
  #else
    "tcp://127.0.0.1:*"
  #endif
}

/// A gateway that does what the test says.
actor ScriptedGateway {
  let router: RouterSocket
  let endpoint: String
  /// Heartbeats are answered unless the test wants silence.
  var answersHeartbeats = true
  private(set) var heartbeats: [Heartbeat] = []
  /// What the workers that are let in were answered, and are again when they ask again.
  private var admitted: [PeerID: Registered] = [:]

  init(at endpoint: String = privateLoopback(), security: RouterSecurity = .plaintext()) async throws {
    var configuration = RouterConfiguration(endpoints: [endpoint], security: security)
    configuration.options.lingerMs = 500
    configuration.logger.logLevel = .critical
    router = try await RouterSocket(configuration)
    self.endpoint = await router.endpoints[0]
  }

  /// Neither heartbeats nor repeated registrations are answered from now on.
  func stopAnswering() {
    answersHeartbeats = false
    admitted = [:]
  }

  /// The next event of any kind. Heartbeats are kept, and answered.
  private func nextEventOfAnyKind() async throws -> RouterEvent {
    var iterator = router.events.makeAsyncIterator()
    guard let event = await iterator.next() else {
      throw Unexpected("nothing happened before the router was closed or the test's time was over")
    }
    if case .message(let inbound) = event, case .heartbeat(let heartbeat) = inbound.envelope.body {
      heartbeats.append(heartbeat)
      // The worker may have left since.
      if answersHeartbeats { try? await reply(.heartbeatReply, to: inbound) }
    }
    return event
  }

  /// The next event that is not a heartbeat.
  func nextEvent() async throws -> RouterEvent {
    while true {
      let event = try await nextEventOfAnyKind()
      if case .message(let inbound) = event, case .heartbeat = inbound.envelope.body { continue }
      return event
    }
  }

  /// The next event, which must be a heartbeat.
  func nextHeartbeat() async throws -> Heartbeat {
    let event = try await nextEventOfAnyKind()
    guard case .message(let inbound) = event, case .heartbeat(let heartbeat) = inbound.envelope.body else {
      throw Unexpected("no heartbeat, but \(event)")
    }
    return heartbeat
  }

  func nextMessage() async throws -> Inbound {
    while true {
      switch try await nextEvent() {
      case .message(let inbound):
        guard case .register = inbound.envelope.body, let registered = admitted[inbound.peer] else { return inbound }
        try await reply(.registered(registered), to: inbound)
      case .malformed(_, let malformed): throw Unexpected("malformed: \(malformed.error)")
      case .disconnected: continue
      }
    }
  }

  /// The next message, which must be a registration.
  func nextRegistration() async throws -> Inbound {
    let inbound = try await nextMessage()
    guard case .register = inbound.envelope.body else {
      throw Unexpected("no registration, but \(inbound.envelope.body)")
    }
    return inbound
  }

  /// Waits for a worker and lets it in.
  func admitWorker(
    heartbeatIntervalMs: Int = 50, leaseMs: Int = 60_000, gatewayID: String = ""
  ) async throws -> (peer: PeerID, registration: Register) {
    admitted = [:]
    while true {
      let inbound = try await nextMessage()
      guard case .register(let registration) = inbound.envelope.body else { continue }
      let registered = Registered(
        sessionID: "session", heartbeatIntervalMs: heartbeatIntervalMs, leaseMs: leaseMs, gatewayID: gatewayID)
      admitted[inbound.peer] = registered
      try await reply(.registered(registered), to: inbound)
      return (inbound.peer, registration)
    }
  }

  /// Returns when the worker has handled all that it was sent: what does not run cannot be cancelled, and it says so
  /// in its turn.
  ///
  /// - Throws: when it has sent something else before, heartbeats excepted.
  func settle(_ peer: PeerID) async throws {
    let number = try await send(Envelope(task: task("nothing"), body: .cancel(reason: "")), to: peer)
    let answer = try await nextMessage().envelope
    guard case .failed(let status) = answer.body, status.code == .notFound, answer.inReplyTo == number else {
      throw Unexpected("a quiet worker was expected, but it sent \(answer.body)")
    }
  }

  func reply(_ body: Body, to inbound: Inbound) async throws {
    try await router.send(
      Envelope(inReplyTo: inbound.envelope.messageID, task: inbound.envelope.task, body: body), to: inbound.peer)
  }

  @discardableResult
  func send(_ envelope: Envelope, to peer: PeerID) async throws -> UInt64 { try await router.send(envelope, to: peer) }

  /// Sends `envelope` and waits until it is accepted.
  func start(_ envelope: Envelope, on peer: PeerID) async throws {
    try await router.send(envelope, to: peer)
    guard case .accepted = try await nextMessage().envelope.body else { throw Unexpected("not accepted") }
  }

  /// All messages about `task` up to its end.
  func conversation(_ task: TaskReference) async throws -> [Envelope] {
    var envelopes: [Envelope] = []
    while true {
      let envelope = try await nextMessage().envelope
      guard envelope.task == task else { continue }
      envelopes.append(envelope)
      switch envelope.body {
      case .failed, .encodeResponse, .denoiseResponse, .decodeResponse: return envelopes
      default: continue
      }
    }
  }

  func close() async { await router.close() }
}

/// A stage that does what the test says.
struct FakeStage: Stage {
  var name = StageName.denoiser
  var card = ModelCard.test
  var componentFingerprint = "weights-1"
  var numericsClass = "test"
  var compute: @Sendable (StageTask, TaskContext) throws -> StageOutput

  func run(_ task: StageTask, context: TaskContext) throws -> StageOutput { try compute(task, context) }

  /// Reports its first step of two, then waits until `release` has counted something or it is cancelled.
  static func waiting(for release: Counter, started: Counter? = nil) -> FakeStage {
    FakeStage { _, context in
      started?.increment()
      context.progress(.progress(Progress(completedSteps: 1, steps: 2, stepSeconds: 0.5)))
      while release.value == 0 {
        try context.checkCancelled()
        usleep(1000)
      }
      return StageOutput(.denoiseResponse(DenoiseResponse(steps: 2)))
    }
  }

  /// Adds 1 to every latent at every step, and tells of each.
  static func denoiser(stepMs: UInt32 = 1, started: Counter? = nil) -> FakeStage {
    FakeStage { task, context in
      started?.increment()
      guard case .denoiseRequest(let request) = task.request else { throw Status(.internal, "wrong request") }
      var latents = task.tensor(TensorName.latents)?.bytes.array ?? [UInt8](repeating: 0, count: 8)
      for step in request.firstStep..<request.steps {
        try context.checkCancelled()
        usleep(stepMs * 1000)
        latents = latents.map { $0 &+ 1 }
        let progress = Progress(completedSteps: step + 1, steps: request.steps, stepSeconds: Double(stepMs) / 1000)
        context.progress(.progress(progress), tensors: [.latents(latents)])
      }
      return StageOutput(.denoiseResponse(DenoiseResponse(steps: request.steps)), tensors: [.latents(latents)])
    }
  }
}

extension FrameBuffer {
  var array: [UInt8] { withUnsafeBytes { Array($0) } }
}

extension WireTensor {
  static func latents(_ bytes: [UInt8]) -> WireTensor {
    WireTensor(name: TensorName.latents, dtype: .uint8, shape: [bytes.count], bytes: FrameBuffer(copying: bytes))
  }
}

extension ModelCard {
  static let test = ModelCard(
    model: ModelIdentity(id: "test-model", fingerprint: "f"), pipelineClass: "QwenImagePipeline",
    pipelines: [.textToImage],
    limits: ModelLimits(
      sizeMultiplePx: 16, minSidePx: 16, maxSidePx: 2048, maxPixels: 4_194_304, maxSteps: 1000, maxPromptTokens: 512,
      maxPromptBytes: 4096),
    defaults: GenerationDefaults(
      size: ImageSize(widthPx: 64, heightPx: 64), steps: 4, trueCFGScale: 4, negativePrompt: ""),
    recommendedSizes: [],
    latents: LatentGeometry(channels: 16, downscale: 8, patch: 2))
}

func denoise(steps: Int, firstStep: Int = 0, model: String = "test-model") -> Body {
  .denoiseRequest(
    DenoiseRequest(
      modelID: model, size: ImageSize(widthPx: 64, heightPx: 64), steps: steps, trueCFGScale: 4, seed: 1,
      firstStep: firstStep))
}

func task(_ job: String, attempt: UInt32 = 1) -> TaskReference {
  TaskReference(jobID: job, taskID: "denoise", attempt: attempt)
}

/// What ``quickConfiguration(_:security:)`` has as a worker's tick.
let tick = Duration.milliseconds(10)

/// Settings that do not keep a test waiting.
func quickConfiguration(_ endpoints: [String], security: DealerSecurity = .plaintext()) -> WorkerConfiguration {
  var configuration = WorkerConfiguration(gateways: endpoints, security: security)
  configuration.transport.reconnectIntervalMs = 20
  configuration.transport.maxReconnectIntervalMs = 100
  configuration.transport.lingerMs = 500
  configuration.registrationRetryMs = 1000
  configuration.tickMs = 10
  configuration.logger.logLevel = .critical
  return configuration
}

extension ManualTime {
  /// Passes `count` ticks of a worker, one by one, and returns when it has handled the last one. The worker must not
  /// leave at one of them.
  func pass(_ count: Int) async throws {
    for _ in 0..<count {
      try await untilAsleep(for: tick)
      advance(by: tick)
    }
    try await untilAsleep(for: tick)
  }
}

/// Runs a worker while `body` runs.
func withWorker<Result>(
  _ stage: any Stage, _ configuration: WorkerConfiguration, time: any TimeSource = SystemTime(),
  _ body: (Worker, Task<Void, any Error>) async throws -> Result
) async throws -> Result {
  let worker = Worker(stage: stage, configuration: configuration, time: time)
  let running = Task { try await worker.run() }
  do {
    let result = try await body(worker, running)
    running.cancel()
    _ = await running.result
    return result
  } catch {
    running.cancel()
    _ = await running.result
    throw error
  }
}

/// Waits until `task` ends; when the test's time is over, it is cancelled.
func ends(_ task: Task<Void, any Error>) async throws {
  try await withTaskCancellationHandler {
    try await task.value
  } onCancel: {
    task.cancel()
  }
}
