import ClusterCore
import Gateway
import Logging
import Provenance
import Scheduling
import Settings
import Synchronization
import TensorCore
import Testing
import Transport
import Wire

/// A model whose images are hashes: an image's bytes show which prompt, seed and steps made it.
enum Toy {
  static let card = ModelCard(
    model: ModelIdentity(id: "toy/model", fingerprint: "f1"), pipelineClass: "ToyPipeline", pipelines: [.textToImage],
    limits: ModelLimits(
      sizeMultiplePx: 16, minSidePx: 64, maxSidePx: 256, maxPixels: 256 * 192, maxSteps: 50, maxPromptTokens: 100,
      maxPromptBytes: 1000),
    defaults: GenerationDefaults(
      size: ImageSize(widthPx: 64, heightPx: 64), steps: 4, trueCFGScale: 4, negativePrompt: ""),
    recommendedSizes: [ImageSize(widthPx: 64, heightPx: 64)],
    latents: LatentGeometry(channels: 4, downscale: 8, patch: 2))

  /// FNV-1a.
  static func hash(_ bytes: some Sequence<UInt8>, _ start: UInt64 = 0xcbf2_9ce4_8422_2325) -> UInt64 {
    bytes.reduce(start) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }

  static func hash(_ value: UInt64, _ start: UInt64) -> UInt64 { withUnsafeBytes(of: value) { hash($0, start) } }

  /// [tokens, 2]; a byte is a token.
  static func embeddings(_ prompt: String) -> [UInt64] {
    let tokens = max(1, prompt.utf8.count)
    return (0..<tokens).map { hash(UInt64($0), hash(prompt.utf8)) }
  }

  static func encode(_ pixels: [UInt8], seed: UInt64) -> UInt64 { hash(pixels, hash(seed, 2)) }

  static func denoise(_ state: UInt64, step: Int, _ embeddings: [UInt64]) -> UInt64 {
    embeddings.reduce(hash(UInt64(step), state)) { hash($1, $0) }
  }

  /// Looks like a PNG as far as its IHDR; what follows is the state.
  static func image(_ state: UInt64, _ size: ImageSize) -> [UInt8] {
    func bytes(_ value: Int) -> [UInt8] { withUnsafeBytes(of: UInt32(value).bigEndian) { Array($0) } }
    let header = Array("IHDR".utf8) + bytes(size.widthPx) + bytes(size.heightPx) + [8, 2, 0, 0, 0]
    return [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A] + bytes(13) + header + Array("image \(state)".utf8)
  }

  /// What a run without faults gives; `pixels`: of the image that it begins with.
  static func expected(
    prompt: String, negativePrompt: String? = nil, seed: UInt64, steps: Int = 4, size: ImageSize = card.defaults.size,
    from pixels: [UInt8]? = nil
  )
    -> [UInt8]
  {
    let embeddings =
      embeddings(prompt).map { $0 & ~0 } + (negativePrompt.map { Toy.embeddings($0) } ?? [])
      + (pixels.map { [encode($0, seed: seed)] } ?? [])
    let latents = (1...steps).reduce(hash(seed, 1)) { denoise($0, step: $1, embeddings) }
    return image(latents, size)
  }

  /// Of ``card``'s latents: every pixel is grey, whatever they are.
  static let previewMap = WireTensor(
    name: TensorName.previewMap, dtype: .fp32, shape: [5, 1, 1, 3],
    bytes: FrameBuffer(copying: [Float](repeating: 0.5, count: 15)))

  /// As bright as there are steps.
  static func preview(_ step: Int, _ size: ImageSize) -> WireTensor {
    let (height, width) = (size.heightPx / 8, size.widthPx / 8)
    return WireTensor(
      name: TensorName.preview, dtype: .uint8, shape: [height, width, 3],
      bytes: FrameBuffer(copying: [UInt8](repeating: UInt8(clamping: step * 10), count: height * width * 3)))
  }

  /// What a gateway makes of it that names the source type.
  static func marked(_ image: [UInt8]) throws -> [UInt8] {
    let origin = ImageOrigin(
      sourceType: .trainedAlgorithmicMedia, model: card.model.id, softwareVersion: SoftwareVersion.current)
    return try XMP.adding(origin, to: image)
  }

  static func tensor(_ name: String, _ values: [UInt64], shape: [Int]) -> WireTensor {
    WireTensor(name: name, dtype: .int64, shape: shape, bytes: FrameBuffer(copying: values))
  }

  static func values(_ tensor: WireTensor) -> [UInt64] {
    tensor.bytes.withUnsafeBytes { Array($0.bindMemory(to: UInt64.self)) }
  }

  static var logger: Logger {
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    return logger
  }
}

/// A worker of the toy model, which can be made to misbehave.
actor ToyWorker {
  /// What to do with a task instead of the work.
  enum Misbehaviour: Sendable {
    case fail(Status)
    case silence
    case answer(Body, [WireTensor])
  }

  /// What the tests look at.
  struct Log: Sendable {
    /// The last one.
    var decodeRequest: DecodeRequest?
    var tasks: [TaskReference] = []
    var steps = 0
    var firstSteps: [Int] = []
    var cancelled: [TaskReference] = []
    var replies: [Body] = []
  }

  private(set) var log = Log()
  private(set) var registered: Registered?
  private let socket: DealerSocket
  private let register: Register
  private let registrationTensors: [WireTensor]
  private let stepTime: Duration
  private let time: any TimeSource
  private let misbehave: @Sendable (TaskReference, Body) -> Misbehaviour?
  private var running: [TaskReference: Task<Void, Never>] = [:]
  private var loop: Task<Void, Never>?

  init(
    _ stage: StageName, name: String, endpoint: String, card: ModelCard = Toy.card, standby: [ModelCard] = [],
    numericsClass: String = "toy", credits: Int = 1,
    componentFingerprint: String = "c", registrationTensors: [WireTensor] = [],
    stepTime: Duration = .milliseconds(2), time: any TimeSource = SystemTime(),
    misbehave: @escaping @Sendable (TaskReference, Body) -> Misbehaviour? = { _, _ in nil }
  ) async throws {
    self.registrationTensors = registrationTensors
    var configuration = DealerConfiguration(endpoint: endpoint, security: .plaintext())
    configuration.logger = Toy.logger
    socket = try await DealerSocket(configuration)
    register = Register(
      workerID: name, stage: stage, card: card, componentFingerprint: componentFingerprint,
      numericsClass: numericsClass, credits: credits,
      host: "test", pid: 1, softwareVersion: "1", standbyCards: standby)
    self.stepTime = stepTime
    self.time = time
    self.misbehave = misbehave
  }

  func start() {
    loop = Task { for await event in socket.events { await take(event) } }
  }

  /// As when the process is killed.
  func crash() async {
    loop?.cancel()
    for task in running.values { task.cancel() }
    await socket.close()
  }

  func send(_ body: Body, task: TaskReference? = nil, tensors: [WireTensor] = []) async {
    _ = try? await socket.send(Envelope(task: task, body: body, tensors: tensors))
  }

  private func take(_ event: DealerEvent) async {
    switch event {
    case .connected: await send(.register(register), tensors: registrationTensors)
    case .message(let envelope): await take(envelope)
    case .disconnected, .refused, .malformed: break
    }
  }

  private func take(_ envelope: Envelope) async {
    log.replies.append(envelope.body)
    switch envelope.body {
    case .registered(let registered):
      self.registered = registered
      heartbeat()
    case .cancel:
      guard let task = envelope.task else { return }
      log.cancelled.append(task)
      running[task]?.cancel()
    case .encodeRequest, .encodeImageRequest, .denoiseRequest, .decodeRequest:
      guard let reference = envelope.task else { return }
      log.tasks.append(reference)
      running[reference] = Task {
        await send(.accepted, task: reference)
        await work(envelope, reference)
        done(reference)
      }
    default: break
    }
  }

  private func done(_ reference: TaskReference) { running[reference] = nil }

  private func heartbeat() {
    guard let registered else { return }
    Task {
      while (try? await Task.sleep(for: .milliseconds(registered.heartbeatIntervalMs))) != nil,
        loop?.isCancelled == false
      {
        let activities = running.keys.map { TaskActivity(task: $0, completedSteps: 0, steps: 0, stepSeconds: 0) }
        await send(
          .heartbeat(
            Heartbeat(
              sessionID: registered.sessionID, freeCredits: register.credits - running.count, running: activities)))
      }
    }
  }

  private func work(_ envelope: Envelope, _ reference: TaskReference) async {
    switch misbehave(reference, envelope.body) {
    case .fail(let status): return await send(.failed(status), task: reference)
    case .silence:
      try? await Task.sleep(for: .seconds(3600))
      return
    case .answer(let body, let tensors): return await send(body, task: reference, tensors: tensors)
    case nil: break
    }
    switch envelope.body {
    case .encodeRequest(let request): await encode(request, reference)
    case .encodeImageRequest(let request): await encode(request, envelope, reference)
    case .denoiseRequest(let request): await denoise(request, envelope, reference)
    case .decodeRequest(let request):
      log.decodeRequest = request
      let state = envelope.tensor(TensorName.latents).map(Toy.values)?.first ?? 0
      let bytes = Toy.image(state, request.size)
      let image = WireTensor(
        name: TensorName.image, dtype: .uint8, shape: [bytes.count], bytes: FrameBuffer(copying: bytes))
      await send(
        .decodeResponse(DecodeResponse(mediaType: request.format.mediaType, size: request.size)), task: reference,
        tensors: [image])
    default: break
    }
  }

  private func encode(_ request: EncodeRequest, _ reference: TaskReference) async {
    let embeddings = Toy.embeddings(request.prompt)
    guard embeddings.count <= Toy.card.limits.maxPromptTokens else {
      let message = "the prompt has \(embeddings.count) tokens, the limit is \(Toy.card.limits.maxPromptTokens)"
      return await send(.failed(Status(.invalidArgument, message, field: "prompt")), task: reference)
    }
    let tensor = Toy.tensor(TensorName.promptEmbeds, embeddings, shape: [embeddings.count, 1])
    await send(.encodeResponse(EncodeResponse(promptTokens: embeddings.count)), task: reference, tensors: [tensor])
  }

  private func encode(_ request: EncodeImageRequest, _ envelope: Envelope, _ reference: TaskReference) async {
    let pixels = envelope.tensor(request.image.tensor)?.bytes.withUnsafeBytes { Array($0) } ?? []
    let shape = register.card.latents.packedShape(of: request.image.preparation.size)
    let values = Array(repeating: Toy.encode(pixels, seed: request.seed), count: shape[0] * shape[1])
    await send(
      .encodeImageResponse(EncodeImageResponse(size: request.image.preparation.size)), task: reference,
      tensors: [Toy.tensor(TensorName.latents, values, shape: shape)])
  }

  private func denoise(_ request: DenoiseRequest, _ envelope: Envelope, _ reference: TaskReference) async {
    log.firstSteps.append(request.firstStep)
    let embeddings =
      [TensorName.promptEmbeds, TensorName.negativePromptEmbeds].compactMap { envelope.tensor($0) }
      .flatMap(Toy.values) + (envelope.tensor(TensorName.imageLatents).map { [Toy.values($0)[0]] } ?? [])
    var state =
      request.firstStep == 0
      ? Toy.hash(request.seed, 1) : envelope.tensor(TensorName.latents).map(Toy.values)?.first ?? 0
    let shape = register.card.latents.packedShape(of: request.size)
    var latents: WireTensor {
      Toy.tensor(TensorName.latents, Array(repeating: state, count: shape[0] * shape[1]), shape: shape)
    }
    let steps = request.steps - request.startStep
    for step in request.firstStep + 1...steps {
      try? await time.sleep(for: stepTime)
      if Task.isCancelled { return await send(.failed(Status(.cancelled, "stopped")), task: reference) }
      state = Toy.denoise(state, step: step, embeddings)
      log.steps += 1
      let progress = Progress(completedSteps: step, steps: steps, stepSeconds: stepTime / .seconds(1))
      let previews = envelope.tensor(TensorName.previewMap).map { _ in [Toy.preview(step, request.size)] } ?? []
      await send(.progress(progress), task: reference, tensors: [latents] + previews)
    }
    await send(.denoiseResponse(DenoiseResponse(steps: steps)), task: reference, tensors: [latents])
  }
}
