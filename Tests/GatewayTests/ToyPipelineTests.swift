import ClusterCore
import Foundation
import GatewayAPI
import GatewayDispatch
import GatewayPipelines
import HTTPTesting
import HTTPTypes
import Hummingbird
import NIOCore
import Scheduling
import StageRuntime
import StrictJSON
import Testing
import Wire

/// What it takes to add a stage: its name, its work, and a pipeline that uses it. Nothing else in the gateway or on the
/// wire changes.
enum Mixing {
  static let stage = StageName("toy-mixer")!
  static let name = PipelineName("toy-mix")!
  static let state = "mix"
  static let steps = 4

  static var card: ModelCard {
    var card = Toy.card
    card.pipelines.append(name)
    return card
  }

  /// Encode the prompt, mix its embeddings in four steps, decode what comes out.
  static let pipeline = Pipeline(
    name: name, stages: [.textEncoder, stage, .vaeDecoder],
    readOptions: { fields throws(APIError) in
      let strength = try fields.number("strength", in: 0...1) ?? 0.5
      return ["strength": .number(JSONNumber(text: "\(strength)"))]
    },
    tasks: { spec in
      let textToImage = Pipeline.textToImage.tasks(spec)
      let mixed = TensorRule(state) { $0.shape == [1] ? nil : "has the shape \($0.shape), not [1]" }
      let plan = TaskPlan(stage: stage, inputs: [0], stepCount: steps, cost: 1, field: "strength")
      let mix = PipelineTask(plan: plan, output: mixed, checkpoint: mixed) { input in
        let request = RunRequest(
          stage: stage, modelID: spec.card.model.id,
          parameters: [Parameter("strength", .number(spec.options["strength"]?.double ?? 0))],
          steps: steps, firstStep: input.resume?.completedSteps ?? 0)
        let prompt = input.inputs[0].renamed(TensorName.promptEmbeds)
        return TaskMessage(.runRequest(request), [prompt] + (input.resume.map { [$0.state.renamed(state)] } ?? []))
      }
      var decode = textToImage[textToImage.count - 1]
      decode.plan.inputs = [1]
      return [textToImage[0], mix, decode]
    })

  static func step(_ state: UInt64, _ number: Int, _ embeddings: [UInt64], _ strength: Double) -> UInt64 {
    embeddings.reduce(Toy.hash(UInt64(number), Toy.hash(strength.bitPattern, state))) { Toy.hash($1, $0) }
  }

  static func expected(prompt: String, strength: Double) -> [UInt8] {
    Toy.image((1...steps).reduce(7) { step($0, $1, Toy.embeddings(prompt), strength) }, Toy.card.defaults.size)
  }
}

/// The fourth stage, on the runtime of the real ones.
struct MixerStage: Stage {
  let name = Mixing.stage
  let card = Mixing.card
  let componentFingerprint = "mixer"
  let numericsClass = "toy"
  /// Fails after this step of the first attempt; nil: never.
  var failsAfterStep: Int?

  func run(_ task: StageTask, context: TaskContext) throws -> StageOutput {
    guard case .runRequest(let request) = task.request, case .number(let strength)? = request.parameter("strength")
    else {
      throw Status(.invalidArgument, "strength is missing", field: "strength")
    }
    let embeddings = Toy.values(try task.requiredTensor(TensorName.promptEmbeds))
    var state = request.firstStep == 0 ? 7 : Toy.values(try task.requiredTensor(Mixing.state))[0]
    var output: WireTensor { Toy.tensor(Mixing.state, [state], shape: [1]) }
    for step in request.firstStep + 1...request.steps {
      try context.checkCancelled()
      state = Mixing.step(state, step, embeddings, strength)
      context.progress(
        .progress(Progress(completedSteps: step, steps: request.steps, stepSeconds: 0)), tensors: [output])
      if step == failsAfterStep, request.firstStep == 0 { throw Status(.internal, "the mixer broke") }
    }
    return StageOutput(.runResponse(RunResponse()), tensors: [output])
  }
}

@Suite("A fourth stage and a second pipeline", .timeLimit(.minutes(2)))
struct ToyPipelineTests {
  private static let registry = PipelineRegistry(PipelineRegistry.standard.pipelines + [Mixing.pipeline])

  private func withCluster(
    _ mixer: MixerStage?, _ body: @escaping @Sendable (ToyCluster, any TestClientProtocol) async throws -> Void
  )
    async throws
  {
    try await ToyCluster.run(pipelines: Self.registry) { cluster in
      for stage in [StageName.textEncoder, .denoiser, .vaeDecoder] { try await cluster.join(stage, card: Mixing.card) }
      let worker = mixer.map { Toy.start($0, cluster.endpoint) }
      defer { worker?.cancel() }
      try await cluster.waitUntilReady()
      if mixer != nil {
        try await wait("the mixer is there") { await cluster.dispatcher.status.stages.contains(Mixing.stage) }
      }
      try await cluster.app().test(.live) { try await body(cluster, $0) }
    }
  }

  @Test("its images are made by its stages")
  func images() async throws {
    try await withCluster(MixerStage()) { _, client in
      let response = try await client.generate(#"{"pipeline":"toy-mix","prompt":"a b","strength":0.25,"seed":1}"#)
      #expect(response.status == .ok, "\(String(buffer: response.body))")
      #expect(try response.image() == Mixing.expected(prompt: "a b", strength: 0.25))
      // The first pipeline is what it was.
      let other = try await client.generate(#"{"prompt":"a b","seed":1}"#)
      #expect(try other.image() == Toy.expected(prompt: "a b", seed: 1))
    }
  }

  @Test("a failed step is resumed from its checkpoint")
  func resume() async throws {
    try await withCluster(MixerStage(failsAfterStep: 2)) { _, client in
      let response = try await client.generate(#"{"pipeline":"toy-mix","prompt":"p","seed":1}"#)
      #expect(try response.image() == Mixing.expected(prompt: "p", strength: 0.5))
    }
  }

  @Test("its fields are checked, and belong to it alone")
  func fields() async throws {
    try await withCluster(MixerStage()) { _, client in
      for (body, param, code) in [
        (#"{"pipeline":"toy-mix","prompt":"p","strength":2}"#, "strength", "invalid_value"),
        (#"{"prompt":"p","strength":0.5}"#, "strength", "unsupported_value"),
        (#"{"pipeline":"toy-min","prompt":"p"}"#, "pipeline", "invalid_value"),
      ] {
        let response = try await client.generate(body)
        #expect(response.status == .badRequest)
        #expect(try response.error?["param"]?.text == param, "\(body)")
        #expect(try response.error?["code"]?.text == code, "\(body)")
      }
    }
  }

  @Test("a model is ready for those pipelines whose stages are there")
  func readiness() async throws {
    try await withCluster(nil) { cluster, client in
      let (status, json) = try await client.get("/readyz")
      #expect(status == .ok)
      #expect(json["models"]?[0]?["pipelines"]?.elements?.compactMap(\.text) == ["text-to-image"])
      let model = try await client.get("/v1/models").json["data"]?[0]
      #expect(model?["pipelines"]?.elements?.compactMap { $0["name"]?.text } == ["text-to-image", "toy-mix"])
      let worker = Toy.start(MixerStage(), cluster.endpoint)
      defer { worker.cancel() }
      try await wait("the mixer is there") {
        try await client.get("/readyz").json["models"]?[0]?["pipelines"]?.count == 2
      }
    }
  }
}
