import ClusterCore
import Foundation
import Gateway
import GatewayDispatch
import HTTPTesting
import Hummingbird
import NIOCore
import Scheduling
import StageRuntime
import Subprocess
import SystemPackage
import TensorCore
import TestSupport
import Testing
import Transport
import Wire

/// The toy model behind the runtime that the real stages use.
struct ToyStage: Stage {
  var name: StageName
  var stepSeconds = 0.002
  /// Whether a request never gets beyond its first step.
  var holds: @Sendable (DenoiseRequest) -> Bool = { _ in false }
  var card: ModelCard { Toy.card }
  var componentFingerprint: String { "c" }
  var numericsClass: String { "toy" }
  var registrationTensors: [WireTensor] { name == .vaeDecoder ? [Toy.previewMap] : [] }

  func run(_ task: StageTask, context: TaskContext) throws -> StageOutput {
    switch task.request {
    case .encodeRequest(let request):
      let embeddings = Toy.embeddings(request.prompt)
      guard embeddings.count <= card.limits.maxPromptTokens else {
        throw Status(
          .invalidArgument, "the prompt has \(embeddings.count) tokens, the limit is \(card.limits.maxPromptTokens)",
          field: "prompt")
      }
      let tensor = Toy.tensor(TensorName.promptEmbeds, embeddings, shape: [embeddings.count, 1])
      return StageOutput(.encodeResponse(EncodeResponse(promptTokens: embeddings.count)), tensors: [tensor])
    case .denoiseRequest(let request): return try denoise(request, task, context)
    case .decodeRequest(let request):
      let bytes = Toy.image(Toy.values(try task.requiredTensor(TensorName.latents))[0], request.size)
      let image = WireTensor(
        name: TensorName.image, dtype: .uint8, shape: [bytes.count], bytes: FrameBuffer(copying: bytes))
      return StageOutput(.decodeResponse(DecodeResponse(mediaType: "image/png", size: request.size)), tensors: [image])
    default: throw Status(.unimplemented, "not a toy's task")
    }
  }

  private func denoise(_ request: DenoiseRequest, _ task: StageTask, _ context: TaskContext) throws -> StageOutput {
    let embeddings = [TensorName.promptEmbeds, TensorName.negativePromptEmbeds].compactMap { task.tensor($0) }.flatMap(
      Toy.values)
    var state =
      request.firstStep == 0 ? Toy.hash(request.seed, 1) : Toy.values(try task.requiredTensor(TensorName.latents))[0]
    let shape = card.latents.packedShape(of: request.size)
    var latents: WireTensor {
      Toy.tensor(TensorName.latents, Array(repeating: state, count: shape[0] * shape[1]), shape: shape)
    }
    for step in request.firstStep + 1...request.steps {
      repeat {
        try context.checkCancelled()
        Thread.sleep(forTimeInterval: stepSeconds)
      } while holds(request)
      state = Toy.denoise(state, step: step, embeddings)
      let progress = Progress(completedSteps: step, steps: request.steps, stepSeconds: stepSeconds)
      let previews = task.tensor(TensorName.previewMap).map { _ in [Toy.preview(step, request.size)] } ?? []
      context.progress(.progress(progress), tensors: [latents] + previews)
    }
    return StageOutput(.denoiseResponse(DenoiseResponse(steps: request.steps)), tensors: [latents])
  }

  /// A worker for the gateway at `endpoint`, running until the task is cancelled.
  func start(_ endpoint: String, credits: Int = 1) -> Task<Void, any Error> {
    Toy.start(self, endpoint, credits: credits)
  }
}

extension Toy {
  /// A worker that computes `stage` for the gateway at `endpoint`, until the task is cancelled.
  static func start(_ stage: any Stage, _ endpoint: String, credits: Int = 1) -> Task<Void, any Error> {
    var configuration = WorkerConfiguration(gateways: [endpoint], security: .plaintext())
    configuration.credits = credits
    configuration.logger = Toy.logger
    // Four of these without an answer, and the worker connects anew: not for a while when the machine is busy.
    configuration.registrationRetryMs = 1000
    configuration.transport.maxReconnectIntervalMs = 200
    let worker = Worker(stage: stage, configuration: configuration)
    return Task { try await worker.run() }
  }
}

@Suite("The gateway with the stages' own runtime", .timeLimit(.minutes(2)))
struct StageRuntimeClusterTests {
  /// Runs `body` with toy workers of each stage at `endpoint`.
  static func withWorkers<Result>(
    _ endpoint: String, denoisers: Int = 1, stepSeconds: Double = 0.002,
    holds: @escaping @Sendable (DenoiseRequest) -> Bool = { _ in false },
    _ body: ([Task<Void, any Error>]) async throws -> Result
  ) async throws -> Result {
    var workers = [
      ToyStage(name: .textEncoder).start(endpoint, credits: 2), ToyStage(name: .vaeDecoder).start(endpoint, credits: 2),
    ]
    for _ in 0..<denoisers {
      workers.append(ToyStage(name: .denoiser, stepSeconds: stepSeconds, holds: holds).start(endpoint))
    }
    defer { for worker in workers { worker.cancel() } }
    return try await body(Array(workers.suffix(denoisers)))
  }

  @Test func manyRequestsWhileDenoisersComeAndGo() async throws {
    try await ToyCluster.run { cluster in
      try await Self.withWorkers(cluster.endpoint, denoisers: 3) { denoisers in
        try await cluster.waitUntilReady()
        let done = Counter()
        try await cluster.app().test(.live) { client in
          try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<60 {
              group.addTask {
                let prompt = "prompt \(number % 5)"
                let response = try await client.generate(
                  #"{"prompt":"\#(prompt)","negative_prompt":" ","seed":\#(number),"steps":6}"#)
                #expect(response.status == .ok, "\(String(buffer: response.body))")
                #expect(
                  try response.image()
                    == Toy.expected(prompt: prompt, negativePrompt: " ", seed: UInt64(number), steps: 6))
                done.increment()
              }
            }
            group.addTask {
              for (index, denoiser) in denoisers.dropFirst().enumerated() {
                try await until("some are done") { done.value > 10 * index }
                denoiser.cancel()
              }
              let late = ToyStage(name: .denoiser).start(cluster.endpoint, credits: 2)
              try await until("more are done") { done.value > 40 }
              late.cancel()
            }
            try await group.waitForAll()
          }
        }
        #expect(await cluster.dispatcher.openImageCount == 0)
      }
    }
  }

  @Test func aCancelledJobFreesItsDenoiser() async throws {
    try await ToyCluster.run { cluster in
      let held = Counter()
      let holds: @Sendable (DenoiseRequest) -> Bool = { request in
        if request.seed == 1 { held.increment() }
        return request.seed == 1
      }
      try await Self.withWorkers(cluster.endpoint, holds: holds) { _ in
        try await cluster.waitUntilReady()
        let endless = Task { try await cluster.image("endless", seed: 1) }
        try await wait("it runs") { held.value > 0 }
        endless.cancel()
        #expect(try await cluster.image("short", seed: 2) == Toy.expected(prompt: "short", seed: 2))
      }
    }
  }

  /// Workers find a restarted gateway by themselves, and drop tasks that it does not want any more.
  @Test func aNewGatewayInTheOldOnesPlaceIsServed() async throws {
    let path = ToyCluster.freshEndpoint
    try await Self.withWorkers(path, stepSeconds: 0.05) { _ in
      for round in UInt64(0)..<3 {
        try await ToyCluster.run(endpoint: path) { cluster in
          try await cluster.waitUntilReady()
          #expect(try await cluster.image("p", seed: round) == Toy.expected(prompt: "p", seed: round))
          // Left behind when the gateway ends.
          let lost = Task { try await cluster.image("lost", seed: round, steps: 50) }
          try await wait("it runs") { await cluster.dispatcher.status.startedImages == 1 }
          lost.cancel()
        }
      }
    }
  }

  /// OpenAI's own client, when a Python that has it is there: QWEN_IMAGE_TEST_PYTHON, or python3.
  @Test(.enabled("no Python with the package openai") { await OpenAIClient.isThere() }) func theOpenAIClientWorks()
    async throws
  {
    try await ToyCluster.run { cluster in
      try await Self.withWorkers(cluster.endpoint, denoisers: 2) { _ in
        try await cluster.waitUntilReady()
        try await cluster.app().test(.live) { client in
          let (status, output) = try await OpenAIClient.run(port: #require(client.port))
          #expect(status == .exited(0), "\(output)")
        }
      }
    }
  }
}

enum OpenAIClient {
  private static var python: Executable {
    let name = ProcessInfo.processInfo.environment["QWEN_IMAGE_TEST_PYTHON"] ?? "python3"
    return name.contains("/") ? .path(FilePath(name)) : .name(name)
  }

  static func isThere() async -> Bool {
    let result = try? await Subprocess.run(python, arguments: ["-c", "import openai"], output: .discarded)
    return result?.terminationStatus == .exited(0)
  }

  static func run(port: Int) async throws -> (status: TerminationStatus, output: String) {
    let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .appendingPathComponent("Cluster/openai_client_test.py")
    let result = try await Subprocess.run(
      python, arguments: Arguments([script.path]),
      environment: .inherit.updating(["QWEN_IMAGE_BASE_URL": "http://127.0.0.1:\(port)/v1"]),
      output: .string(limit: 1 << 20),
      error: .combinedWithOutput)
    return (result.terminationStatus, result.standardOutput)
  }
}
