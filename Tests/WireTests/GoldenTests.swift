import ClusterCore
import Foundation
import TensorCore
import Testing
import Wire

/// Golden/*.bin were packed by protoc from Golden/*.txt (Golden/generate.sh): the wire as an implementation other than
/// protobuf-c understands it.
@Suite("Every kind of envelope is byte for byte what protoc packs")
struct GoldenTests {
  static let task = TaskReference(jobID: "job-1", taskID: "denoise", attempt: .max)
  static let parameters = [
    Parameter("n", .number(-0.5)), Parameter("i", .integer(.min)), Parameter("t", .text("")),
    Parameter("f", .flag(false)),
  ]
  static let card = {
    var card = modelCard
    (card.samplers, card.schedules) = ([.euler, .resMultistep], [.sgmUniform])
    return card
  }()
  private static let modelCard = ModelCard(
    model: ModelIdentity(id: "Qwen/Qwen-Image", fingerprint: "sha256:ab"), pipelineClass: "QwenImagePipeline",
    pipelines: [.textToImage, PipelineName("edit")!],
    limits: ModelLimits(
      sizeMultiplePx: 16, minSidePx: 64, maxSidePx: 2048, maxPixels: 4_194_304, maxSteps: 100, maxPromptTokens: 1024,
      maxPromptBytes: 8192),
    defaults: GenerationDefaults(
      size: ImageSize(widthPx: 1328, heightPx: 1328), steps: 50, trueCFGScale: 4, negativePrompt: " "),
    recommendedSizes: [ImageSize(widthPx: 1328, heightPx: 1328), ImageSize(widthPx: 1664, heightPx: 928)],
    latents: LatentGeometry(channels: 16, downscale: 8, patch: 2))

  static let region = PixelRegion(left: 8, top: 0, right: 300, bottom: 200)
  static let size = ImageSize(widthPx: 512, heightPx: 384)
  static let image = PreparedImage(tensor: "image", ImagePreparation(size: size))
  static let mask = PreparedImage(tensor: "mask", ImagePreparation(size: size, region: region, fit: .fill))

  static let encodeRequest: Body = {
    var request = EncodeRequest(modelID: "Qwen/Qwen-Image", prompt: "A café ☕ 咖啡 🎨", parameters: parameters)
    request.template = .editPlus
    request.images = [image, mask]
    return .encodeRequest(request)
  }()

  static let denoiseRequest: Body = {
    var request = DenoiseRequest(
      modelID: "m", size: ImageSize(widthPx: 1328, heightPx: 928), steps: 50, trueCFGScale: 4, seed: .max,
      firstStep: 7, checkpointIntervalSeconds: 0.25, parameters: parameters)
    request.references = [ImageSize(widthPx: 1024, heightPx: 1024)]
    request.startStep = 5
    request.precedingDraws = 1
    request.mask = mask
    request.controls = [ControlReference(tensor: "control.0", network: 1, scale: 0.75, range: 0.125...0.5)]
    request.layers = 5
    request.sampling = SamplingChoice(sampler: .dpmpp2M, schedule: .beta, cfgSteps: 40)
    request.noise = .torchCPUWithOptions
    return .denoiseRequest(request)
  }()

  static let decodeRequest: Body = {
    var request = DecodeRequest(
      modelID: "m", size: ImageSize(widthPx: 64, heightPx: 80),
      textEntries: [TextEntry(keyword: "prompt", text: "A café")], parameters: parameters)
    request.overlay = Overlay(imageTensor: "image", maskTensor: "mask", region: region)
    request.layers = 4
    return .decodeRequest(request)
  }()

  static let bodies: [Body] = [
    .register(
      Register(
        workerID: "w-1", stage: .denoiser, card: card, componentFingerprint: "cf", numericsClass: "bf16", credits: 2,
        host: "node-7",
        pid: 4711, softwareVersion: "0.1.0", running: [TaskReference(jobID: "j", taskID: "t", attempt: 3)])),
    .registered(Registered(sessionID: "s-9", heartbeatIntervalMs: 1000, leaseMs: 5000)),
    .heartbeat(
      Heartbeat(
        sessionID: "s-9", freeCredits: 1, residentBytes: 16 << 30, peakResidentBytes: 32 << 30, tasksDone: 12,
        tasksFailed: 1,
        running: [
          TaskActivity(
            task: TaskReference(jobID: "j", taskID: "t", attempt: 1), completedSteps: 3, steps: 50, stepSeconds: 12.25)
        ], draining: true)),
    .heartbeatReply,
    .accepted,
    .cancel(reason: "client went away"),
    .switchModel(ModelIdentity(id: "m", fingerprint: "f")),
    .claim([
      TaskReference(jobID: "j", taskID: "1", attempt: 3), TaskReference(jobID: "k", taskID: "2.1", attempt: .max),
    ]),
    .servedAdapters(
      AdapterAnnouncement(
        sessionID: "s-9", total: 300, offset: 256,
        adapters: [
          ServedAdapter(name: "style_v1.5", digest: String(repeating: "0a", count: 32), isLoaded: true),
          ServedAdapter(name: "x", digest: String(repeating: "f", count: 64)),
        ])),
    .draining(reason: "SIGTERM"),
    .goodbye(reason: "done"),
    .failed(Status(.invalidArgument, "steps: 0", field: "steps")),
    encodeRequest,
    .encodeResponse(EncodeResponse(promptTokens: 2, computeSeconds: 0.125)),
    denoiseRequest,
    .progress(Progress(completedSteps: 8, steps: 50, stepSeconds: 3.5)),
    .denoiseResponse(DenoiseResponse(steps: 50, computeSeconds: 175)),
    .exchange(Exchange(.state, call: 7, step: 3)),
    decodeRequest,
    .decodeResponse(
      DecodeResponse(mediaType: "image/png", size: ImageSize(widthPx: 64, heightPx: 80), computeSeconds: 0.5)),
    .runRequest(
      RunRequest(
        stage: StageName("vae-encoder")!, modelID: "m", parameters: parameters, steps: 8, firstStep: 3,
        checkpointIntervalSeconds: 0.25)),
    .runResponse(RunResponse(parameters: parameters, computeSeconds: 1.5)),
    .encodeImageRequest(
      EncodeImageRequest(
        modelID: "m", image: image, posterior: .sample, seed: .max, precedingDraws: 2, mask: mask)),
    .encodeImageResponse(EncodeImageResponse(size: size, computeSeconds: 0.5)),
  ]

  static func tensors(of body: Body) -> [WireTensor] {
    let tensor = { (name: String, dtype: DType, shape: [Int]) in
      let bytes = (0..<WireTensor.byteCount(shape: shape, dtype: dtype)!).map { UInt8($0 % 251) }
      return WireTensor(name: name, dtype: dtype, shape: shape, bytes: FrameBuffer(copying: bytes))
    }
    return switch body {
    case .encodeResponse: [tensor("prompt_embeds", .fp32, [2, 3])]
    case .progress: [tensor("latents", .bf16, [300, 64])]
    case .decodeResponse: [tensor("image", .uint8, [5]), tensor("empty", .int64, [0, 9])]
    default: []
    }
  }

  @Test("packed and unpacked", arguments: bodies)
  func golden(body: Body) throws {
    let envelope = Envelope(
      messageID: .max, inReplyTo: 300, task: Self.task, deadlineUnixMs: 1_763_705_000_123,
      traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", body: body,
      tensors: Self.tensors(of: body))
    let url = try #require(Bundle.module.url(forResource: body.name, withExtension: "bin", subdirectory: "Golden"))
    let golden = Array(try Data(contentsOf: url))
    let frames = try WireCodec.encode(envelope)
    #expect(frames[0].array == golden)
    #expect(try WireCodec.decode([FrameBuffer(copying: golden)] + frames.dropFirst()) == envelope)
  }

  /// Golden/v0.1 holds what processes of 0.1 send: a rolling upgrade has both on one wire.
  @Test(
    "frames of 0.1 are still understood",
    arguments: [
      "registration", "heartbeat", "accepted", "draining", "goodbye", "failed", "encode_request", "encode_response",
      "denoise_request",
      "denoise_progress", "denoise_response", "decode_request", "decode_response",
    ])
  func earlierVersion(name: String) throws {
    let url = try #require(Bundle.module.url(forResource: name, withExtension: "bin", subdirectory: "Golden/v0.1"))
    let newName = name == "denoise_progress" ? "progress" : name
    var expected = try #require(Self.bodies.first { $0.name == newName })
    // It has no pipelines and samplers but one each, no images as input, and says its stage by number.
    switch expected {
    case .register(var register):
      register.card.pipelines = [.textToImage]
      (register.card.samplers, register.card.schedules) = ([.euler], [])
      expected = .register(register)
    case .encodeRequest(var request):
      (request.template, request.images) = (.textToImage, [])
      expected = .encodeRequest(request)
    case .denoiseRequest(var request):
      (request.references, request.mask, request.controls) = ([], nil, [])
      (request.startStep, request.precedingDraws, request.layers) = (0, 0, 0)
      (request.sampling, request.noise) = (.standard, .torchCPU)
      expected = .denoiseRequest(request)
    case .decodeRequest(var request):
      (request.overlay, request.layers) = (nil, 0)
      expected = .decodeRequest(request)
    default: break
    }
    let frames = try WireCodec.encode(
      Envelope(messageID: 1, body: expected, tensors: Self.tensors(of: expected)))
    let envelope = try WireCodec.decode([FrameBuffer(copying: Array(try Data(contentsOf: url)))] + frames.dropFirst())
    #expect(envelope.body == expected)
    #expect(envelope.task == Self.task)
  }
}
