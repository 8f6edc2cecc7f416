import ClusterCore
import TensorCore
import Wire

/// SplitMix64: the same seed gives the same test on every machine.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

extension FrameBuffer {
  var array: [UInt8] { withUnsafeBytes { Array($0) } }
}

/// Draws envelopes of every kind, with values from the whole range that each field allows.
struct EnvelopeGenerator {
  static let bodyKinds = 24
  var random: SeededGenerator

  init(seed: UInt64) { random = SeededGenerator(seed: seed) }

  mutating func envelope(kind: Int? = nil) -> Envelope {
    let kind = kind ?? integer(0...Self.bodyKinds - 1)
    return Envelope(
      messageID: .random(in: 1...UInt64.max, using: &random),
      inReplyTo: maybe { .random(in: 1...UInt64.max, using: &$0.random) },
      task: maybe { $0.task() }, deadlineUnixMs: maybe { .random(in: 1...UInt64.max, using: &$0.random) },
      traceparent: maybe { $0.identifier() }, body: body(kind), tensors: tensors())
  }

  mutating func body(_ kind: Int) -> Body {
    switch kind {
    case 0: .register(register())
    case 1:
      .registered(
        Registered(
          sessionID: identifier(), heartbeatIntervalMs: integer(1...1000), leaseMs: integer(1000...86_400_000),
          takesAdapters: flag(), gatewayID: text(200)))
    case 2: .heartbeat(heartbeat())
    case 3: .heartbeatReply
    case 4: .accepted
    case 5: .cancel(reason: text(4096))
    case 6: .runRequest(runRequest())
    case 7: .draining(reason: text(200))
    case 8: .goodbye(reason: text(200))
    case 9:
      .failed(
        Status(
          StatusCode.allCases.dropFirst().randomElement(using: &random)!, text(4096), field: maybe { $0.identifier() }))
    case 10: .encodeRequest(encodeRequest())
    case 11:
      .encodeResponse(EncodeResponse(promptTokens: integer(0...1_000_000), computeSeconds: seconds()))
    case 12: .denoiseRequest(denoiseRequest())
    case 13:
      {
        let steps = integer(1...100_000)
        var progress = Progress(completedSteps: integer(1...steps), steps: steps, stepSeconds: seconds())
        progress.checkpointSteps = integer(0...progress.completedSteps)
        return .progress(progress)
      }()
    case 14: .denoiseResponse(DenoiseResponse(steps: integer(1...100_000), computeSeconds: seconds()))
    case 15: .decodeRequest(decodeRequest())
    case 16: .decodeResponse(DecodeResponse(mediaType: "image/png", size: size(), computeSeconds: seconds()))
    case 17:
      .encodeImageRequest(
        EncodeImageRequest(
          modelID: identifier(), image: preparedImage(), posterior: flag() ? .mean : .sample, seed: random.next(),
          precedingDraws: integer(0...64), mask: maybe { $0.preparedImage() }))
    case 18: .encodeImageResponse(EncodeImageResponse(size: size(), computeSeconds: seconds()))
    case 21: .exchange(exchange())
    case 22: .claim([task()] + many(5) { $0.task() })
    case 19: .switchModel(ModelIdentity(id: identifier(), fingerprint: identifier()))
    case 20: .servedAdapters(announcement())
    default: .runResponse(RunResponse(parameters: parameters(), computeSeconds: seconds()))
    }
  }

  private mutating func exchange() -> Exchange {
    let kind = Exchange.Kind.allCases.randomElement(using: &random)!
    let call = kind == .state || kind == .velocity ? integer(1...1_000_000) : 0
    return Exchange(kind, call: call, step: kind == .state ? integer(0...1000) : 0)
  }

  private mutating func announcement() -> AdapterAnnouncement {
    let adapters = many(5) { ServedAdapter(name: $0.adapterName(), digest: $0.digest(), isLoaded: $0.flag()) }
    let offset = integer(0...900)
    return AdapterAnnouncement(
      sessionID: identifier(), total: integer((offset + adapters.count)...1000), offset: offset, adapters: adapters)
  }

  private mutating func adapterName() -> String {
    "a" + String((0..<integer(0...127)).map { _ in "azAZ09._-".randomElement(using: &random)! })
  }

  private mutating func digest() -> String {
    String((0..<64).map { _ in "0123456789abcdef".randomElement(using: &random)! })
  }

  private mutating func register() -> Register {
    var register = Register(
      workerID: identifier(), stage: stage(), card: card(), componentFingerprint: identifier(),
      numericsClass: identifier(), credits: integer(1...1024), host: text(200), pid: random.next(),
      softwareVersion: text(100),
      running: many(5) { $0.task() }, standbyCards: many(2) { $0.card() })
    register.assists = flag()
    register.takesClaims = flag()
    return register
  }

  private mutating func card() -> ModelCard {
    let maxSide = integer(1...65_535)
    var card = ModelCard(
      model: ModelIdentity(id: identifier(), fingerprint: identifier()), pipelineClass: identifier(),
      pipelines: [.textToImage] + many(4) { PipelineName($0.name())! },
      limits: ModelLimits(
        sizeMultiplePx: integer(1...64), minSidePx: integer(1...maxSide), maxSidePx: maxSide,
        maxPixels: integer(1...65_535 * 65_535),
        maxSteps: integer(1...100_000), maxPromptTokens: integer(1...1_000_000), maxPromptBytes: integer(1...65_536),
        scheduleSteps: maybe { $0.integer(1...100_000) }),
      defaults: GenerationDefaults(
        size: size(), steps: integer(1...1000), trueCFGScale: number(), negativePrompt: text(100)),
      recommendedSizes: many(8) { $0.size() },
      latents: LatentGeometry(channels: integer(1...4096), downscale: integer(1...256), patch: integer(1...256)))
    card.references.maxCount = integer(1...256)
    card.hasTransparency = flag()
    card.license = text(100)
    card.samplers = SamplerName.allCases.filter { $0 == .euler || flag() }
    card.schedules = ScheduleName.allCases.filter { _ in flag() }
    card.limits.maxReferenceTokens = maybe { $0.integer(1...100_000) }
    card.limits.denoiserBlocks = maybe { $0.integer(1...100_000) }
    return card
  }

  private mutating func heartbeat() -> Heartbeat {
    Heartbeat(
      sessionID: identifier(), freeCredits: integer(0...1024), residentBytes: random.next(),
      peakResidentBytes: random.next(),
      tasksDone: random.next(), tasksFailed: random.next(),
      running: many(3) {
        let steps = $0.integer(0...1000)
        return TaskActivity(
          task: $0.task(), completedSteps: $0.integer(0...steps), steps: steps, stepSeconds: $0.seconds())
      }, draining: flag())
  }

  private mutating func stage() -> StageName {
    flag() ? [.textEncoder, .denoiser, .vaeDecoder].randomElement(using: &random)! : StageName(name())!
  }

  /// A name of a–z, 0–9 and hyphens.
  private mutating func name() -> String {
    String((0..<integer(1...64)).map { _ in "abcdefghijklmnopqrstuvwxyz0123456789-".randomElement(using: &random)! })
  }

  private mutating func runRequest() -> RunRequest {
    let steps = integer(0...100_000)
    return RunRequest(
      stage: stage(), modelID: identifier(), parameters: parameters(), steps: steps, firstStep: integer(0...steps),
      checkpointIntervalSeconds: seconds())
  }

  private mutating func encodeRequest() -> EncodeRequest {
    var request = EncodeRequest(modelID: identifier(), prompt: text(65_536), parameters: parameters())
    request.template = PromptTemplate.allCases.randomElement(using: &random)!
    request.images = many(3) { $0.preparedImage() }
    return request
  }

  private mutating func denoiseRequest() -> DenoiseRequest {
    let steps = flag() ? integer(1...256) : integer(1...100_000), startStep = integer(0...(steps - 1))
    var request = DenoiseRequest(
      modelID: identifier(), size: size(), steps: steps, trueCFGScale: number(), seed: random.next(),
      firstStep: integer(0...(steps - startStep - 1)), checkpointIntervalSeconds: seconds(), parameters: parameters())
    request.references = many(3) { $0.size() }
    request.startStep = startStep
    request.precedingDraws = integer(0...64)
    request.mask = maybe { $0.preparedImage() }
    request.layers = integer(0...64)
    request.branch = integer(0...1)
    if steps <= 256, flag() {
      request.sigmas = (0..<steps).map { _ in .random(in: Double.leastNonzeroMagnitude...1, using: &random) }
    }
    request.cache = maybe { $0.stepCache() }
    if flag() {
      request.sampling = SamplingChoice(
        sampler: SamplerName.allCases.randomElement(using: &random)!,
        schedule: request.sigmas.isEmpty ? maybe { ScheduleName.allCases.randomElement(using: &$0.random)! } : nil,
        cfgSteps: maybe { $0.integer(0...steps) })
    }
    request.adapters = many(3) {
      ChosenAdapter(name: $0.adapterName(), digest: $0.digest(), scale: .random(in: -10...10, using: &$0.random))
    }
    request.noise = request.requiredNoise
    request.controls = many(3) {
      let start = Double.random(in: 0...1, using: &$0.random)
      return ControlReference(
        tensor: $0.identifier(), network: $0.integer(0...7), scale: .random(in: -10...10, using: &$0.random),
        range: start...Double.random(in: start...1, using: &$0.random))
    }
    return request
  }

  private mutating func stepCache() -> StepCache {
    var cache = StepCache(StepCache.Method.allCases.randomElement(using: &random)!)
    if !cache.method.isPlanned {
      cache.threshold = .random(in: 0...10, using: &random)
      (cache.frontBlocks, cache.maxConsecutive) = (1, integer(1...1000))
    }
    if cache.method == .dualBlock { (cache.frontBlocks, cache.backBlocks) = (integer(1...200), integer(0...200)) }
    if cache.method.isPlanned { cache.order = integer(0...2) }
    if cache.method == .taylor { cache.interval = integer(2...1000) }
    if cache.method == .mask {
      cache.skip = Set(many(20) { $0.integer(2...1000) } + [integer(2...1000)]).sorted()
    } else {
      (cache.warmup, cache.last) = (integer(1...1000), integer(0...1000))
    }
    return cache
  }

  private mutating func decodeRequest() -> DecodeRequest {
    var request = DecodeRequest(
      modelID: identifier(), size: size(), format: ImageFormat.allCases[integer(0...ImageFormat.allCases.count - 1)],
      textEntries: many(4) { TextEntry(keyword: $0.identifier(60), text: $0.text(500)) }, parameters: parameters())
    request.layers = integer(0...64)
    request.background = flag() ? .asMade : .opaque
    request.quality = integer(0...100)
    request.overlay = maybe {
      Overlay(imageTensor: $0.identifier(), maskTensor: $0.identifier(), region: $0.maybe { $0.region() })
    }
    return request
  }

  private mutating func preparedImage() -> PreparedImage {
    PreparedImage(
      tensor: identifier(),
      ImagePreparation(size: size(), region: maybe { $0.region() }, fit: flag() ? .stretch : .fill))
  }

  private mutating func region() -> PixelRegion {
    let left = integer(0...65_000), top = integer(0...65_000)
    return PixelRegion(
      left: left, top: top, right: integer(left + 1...65_535), bottom: integer(top + 1...65_535))
  }

  private mutating func parameters() -> [Parameter] {
    many(6) {
      let value: Parameter.Value =
        switch $0.integer(0...3) {
        case 0: .number($0.number())
        case 1: .integer(Int64(bitPattern: $0.random.next()))
        case 2: .text($0.text(300))
        default: .flag($0.flag())
        }
      return Parameter($0.identifier(), value)
    }
  }

  private mutating func tensors() -> [WireTensor] {
    let count = integer(0...4)
    return (0..<count).map { index in
      let dtype = DType.allCases.randomElement(using: &random)!
      let shape = many(3) { $0.integer(0...7) }
      let bytes = (0..<WireTensor.byteCount(shape: shape, dtype: dtype)!).map { _ in
        UInt8.random(in: 0...255, using: &random)
      }
      return WireTensor(name: "tensor \(index)", dtype: dtype, shape: shape, bytes: FrameBuffer(copying: bytes))
    }
  }

  mutating func task() -> TaskReference {
    TaskReference(jobID: identifier(), taskID: identifier(), attempt: .random(in: 1...UInt32.max, using: &random))
  }

  private mutating func size() -> ImageSize { ImageSize(widthPx: integer(1...65_535), heightPx: integer(1...65_535)) }

  mutating func integer(_ range: ClosedRange<Int>) -> Int { .random(in: range, using: &random) }

  private mutating func flag() -> Bool { .random(using: &random) }

  private mutating func number() -> Double {
    while true {
      let value = Double(bitPattern: random.next())
      if value.isFinite { return value }
    }
  }

  private mutating func seconds() -> Double { .random(in: 0...10_000, using: &random) }

  private mutating func identifier(_ maxBytes: Int = 256) -> String {
    let value = text(maxBytes)
    return value.isEmpty ? "x" : value
  }

  /// Characters of one to four UTF-8 bytes; mostly short.
  private mutating func text(_ maxBytes: Int) -> String {
    var text = ""
    var bytesLeft = integer(0...(integer(0...9) == 0 ? maxBytes : min(maxBytes, 40)))
    while bytesLeft > 0 {
      let scalar: Unicode.Scalar? =
        switch integer(0...3) {
        case 0: Unicode.Scalar(UInt32(integer(1...0x7F)))
        case 1: Unicode.Scalar(UInt32(integer(0x80...0x7FF)))
        case 2: Unicode.Scalar(UInt32(integer(0x800...0xFFFF)))
        default: Unicode.Scalar(UInt32(integer(0x10000...0x10FFFF)))
        }
      guard let scalar else { continue }
      bytesLeft -= UTF8.width(scalar)
      if bytesLeft >= 0 { text.unicodeScalars.append(scalar) }
    }
    return text
  }

  private mutating func maybe<Value>(_ make: (inout EnvelopeGenerator) -> Value) -> Value? {
    flag() ? make(&self) : nil
  }

  private mutating func many<Value>(_ limit: Int, _ make: (inout EnvelopeGenerator) -> Value) -> [Value] {
    let count = integer(0...limit)
    var values: [Value] = []
    for _ in 0..<count { values.append(make(&self)) }
    return values
  }
}
