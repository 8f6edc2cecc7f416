import ClusterCore
import Foundation
import StageRuntime
import Synchronization
import TensorCore
import Transport
import Wire

struct Unexpected: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}

/// Any free port of a loopback address that no other test uses: a closed port of a shared address may soon belong to another test,
/// whose peers would then find this one's.
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
  /// What the workers that are let in were told; they are told again when they ask again.
  private var admitted: [PeerID: Registered] = [:]

  init(at endpoint: String = privateLoopback(), security: RouterSecurity = .plaintext()) async throws {
    var configuration = RouterConfiguration(endpoints: [endpoint], security: security)
    configuration.options.lingerMs = 500
    configuration.logger.logLevel = .critical
    router = try await RouterSocket(configuration)
    self.endpoint = await router.endpoints[0]
  }

  func stopAnsweringHeartbeats() { answersHeartbeats = false }

  /// The next event that is not a heartbeat.
  func nextEvent(seconds: Double = 60) async throws -> RouterEvent {
    let deadline = ContinuousClock.now + .seconds(seconds)
    while true {
      let events = router.events
      let event = try await withThrowingTaskGroup(of: RouterEvent?.self) { group in
        group.addTask {
          var iterator = events.makeAsyncIterator()
          return await iterator.next()
        }
        group.addTask {
          try await Task.sleep(until: deadline, clock: .continuous)
          throw Unexpected("nothing happened for \(seconds) s")
        }
        defer { group.cancelAll() }
        return try await group.next() ?? nil
      }
      guard let event else { throw Unexpected("the router is closed") }
      guard case .message(let inbound) = event, case .heartbeat(let heartbeat) = inbound.envelope.body else {
        return event
      }
      heartbeats.append(heartbeat)
      // The worker may have left since.
      if answersHeartbeats { try? await reply(.heartbeatReply, to: inbound) }
    }
  }

  func nextMessage(seconds: Double = 60) async throws -> Inbound {
    while true {
      switch try await nextEvent(seconds: seconds) {
      case .message(let inbound):
        guard case .register = inbound.envelope.body, let registered = admitted[inbound.peer] else { return inbound }
        try await reply(.registered(registered), to: inbound)
      case .malformed(_, let malformed): throw Unexpected("malformed: \(malformed.error)")
      case .disconnected: continue
      }
    }
  }

  /// Waits for a worker and lets it in.
  func admitWorker(heartbeatIntervalMs: Int = 50, leaseMs: Int = 60_000) async throws -> (
    peer: PeerID, registration: Register
  ) {
    admitted = [:]
    while true {
      let inbound = try await nextMessage()
      guard case .register(let registration) = inbound.envelope.body else { continue }
      let registered = Registered(sessionID: "session", heartbeatIntervalMs: heartbeatIntervalMs, leaseMs: leaseMs)
      admitted[inbound.peer] = registered
      try await reply(.registered(registered), to: inbound)
      return (inbound.peer, registration)
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

final class Counter: Sendable {
  private let state = Mutex(0)
  var value: Int { state.withLock { $0 } }
  @discardableResult
  func increment(by amount: Int = 1) -> Int {
    state.withLock {
      $0 += amount
      return $0
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

/// Runs a worker while `body` runs.
func withWorker<Result>(
  _ stage: any Stage, _ configuration: WorkerConfiguration,
  _ body: (Worker, Task<Void, any Error>) async throws -> Result
) async throws -> Result {
  let worker = Worker(stage: stage, configuration: configuration)
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

/// Whether `task` ends within `seconds`.
func ends(_ task: Task<Void, any Error>, within seconds: Double) async throws {
  try await withThrowingTaskGroup(of: Void.self) { group in
    group.addTask { try await task.value }
    group.addTask {
      try await Task.sleep(for: .seconds(seconds))
      task.cancel()
      throw Unexpected("the worker still runs after \(seconds) s")
    }
    try await group.next()
    group.cancelAll()
  }
}
