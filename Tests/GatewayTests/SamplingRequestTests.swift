import ClusterCore
import Gateway
import GatewayAPI
import GatewayPipelines
import ImageCodec
import StrictJSON
import TensorCore
import Testing
import Wire

@Suite("Samplers in requests")
struct SamplingRequestTests {
  private static func spec(_ fields: String, card: ModelCard = Toy.card) throws(APIError) -> ImageSpec {
    let request = try GenerationRequest(body: Array(#"{"prompt":"p",\#(fields)}"#.utf8), maxPromptBytes: 65_536)
    return try ImageSpec.images(of: request, card: card, randomSeed: 1).images[0]
  }

  private static func error(_ fields: String, card: ModelCard = Toy.card) -> APIError? {
    do throws(APIError) { _ = try spec(fields, card: card) } catch { return error }
    return nil
  }

  /// The request that a denoiser is sent, resumed after `steps` steps.
  private static func task(_ spec: ImageSpec) throws -> (task: PipelineTask, request: DenoiseRequest) {
    let tasks = Pipeline.textToImage.tasks(spec), task = try #require(tasks.first { $0.plan.stage == .denoiser })
    let message = task.message(TaskInput(inputs: [], checkpointInterval: .zero))
    guard case .denoiseRequest(let request) = message.body else { throw APIError(.invalidValue, "no request") }
    return (task, request)
  }

  private static func latents(_ shape: [Int]) -> WireTensor {
    let count = shape.reduce(4, *)
    return WireTensor(
      name: TensorName.latents, dtype: .fp32, shape: shape,
      bytes: FrameBuffer(copying: [UInt8](repeating: 0, count: count)))
  }

  @Test func choicesReachTheDenoiserAndTheFile() throws {
    let spec = try Self.spec(
      #""sampler":"unipc","schedule":"beta","cfg_steps":2,"steps":4,"true_cfg_scale":3,"negative_prompt":"n""#)
    let choice = SamplingChoice(sampler: .unipc, schedule: .beta, cfgSteps: 2)
    #expect(spec.sampling == choice)
    let (_, request) = try Self.task(spec)
    #expect(request.sampling == choice && request.noise == .torchCPUWithOptions && request.steps == 4)
    #expect(spec.metadata.sampler == "unipc" && spec.metadata.schedule == "beta" && spec.metadata.cfgSteps == 2)
    let parameters = try #require(spec.metadata.texts.first { $0.keyword == ImageMetadata.parametersKeyword }?.text)
    #expect(parameters.contains("Sampler: UniPC") && parameters.contains("Schedule type: Beta, CFG steps: 2"))
    #expect(try ImageMetadata(texts: spec.metadata.texts) == spec.metadata)
  }

  @Test func requestsThatChooseNothingStayAsTheyWere() throws {
    let spec = try Self.spec(#""sampler":"euler","schedule":null,"cfg_steps":null"#)
    #expect(try spec == Self.spec(#""n":1"#))
    #expect(try Self.task(spec).request.noise == .torchCPU)
    #expect(spec.metadata.sampler == nil && spec.metadata.schedule == nil && spec.metadata.cfgSteps == nil)
  }

  @Test func checkpointsHaveTheSamplersHistory() throws {
    for sampler in SamplerName.allCases {
      let spec = try Self.spec(#""sampler":"\#(sampler.rawValue)""#),
        rule = try #require(Self.task(spec).task.checkpoint)
      let shape = spec.latentsShape, possible = Set((0...60).map { sampler.history(after: $0) })
      for history in 0...4 {
        let tensor = Self.latents(history == 0 ? shape : [history + 1] + shape)
        #expect(rule.accepts(tensor) == possible.contains(history), "\(sampler.rawValue), \(history)")
      }
      #expect(!rule.accepts(Self.latents([1] + shape)))
    }
  }

  @Test func costsAreThoseOfTheEvaluations() throws {
    func cost(_ fields: String) throws -> Double {
      try Self.task(Self.spec(#""steps":10,"true_cfg_scale":3,"negative_prompt":"n",\#(fields)"#)).task.plan.cost
    }
    let whole = try cost(#""sampler":"euler""#)
    #expect(try cost(#""cfg_steps":4"#) == 0.7 * whole && cost(#""sampler":"heun""#) == 1.9 * whole)
    #expect(try cost(#""cfg_steps":0"#) == 0.5 * whole)
    // Without guided steps the negative prompt is not even encoded.
    #expect(try Self.spec(#""true_cfg_scale":3,"negative_prompt":"n","cfg_steps":0"#).negativePrompt == nil)
  }

  @Test func aScheduleFreesTheStepsOfADistilledModel() throws {
    var card = Toy.card
    card.limits.scheduleSteps = 2
    #expect(try Self.spec(#""steps":5"#, card: card).steps == 2)
    #expect(try Self.spec(#""steps":5,"schedule":"simple""#, card: card).steps == 5)
    #expect(try Self.spec(#""schedule":"simple""#, card: card).steps == card.defaults.steps)
  }

  @Test(arguments: [
    (#""sampler":"rk4""#, "sampler", #""dpmpp_2m_sde""#), (#""schedule":"karras""#, "schedule", #""sgm_uniform""#),
    (#""sampler":7"#, "sampler", "sampler"), (#""cfg_steps":-1"#, "cfg_steps", "-1"),
    (#""cfg_steps":5,"steps":4"#, "cfg_steps", "from 0 to 4"),
    (#""schedule":"beta","sigmas":[1,0.5]"#, "schedule", "sigmas"),
  ])
  func refuses(_ fields: String, _ param: String, _ text: String) {
    let error = Self.error(fields)
    #expect(error?.param == param && error?.message.contains(text) == true, "\(String(describing: error))")
  }

  @Test func whatDenoisersDoNotServeIsRefusedByName() {
    var card = Toy.card
    (card.samplers, card.schedules) = ([.euler], [])
    let sampler = Self.error(#""sampler":"heun""#, card: card), schedule = Self.error(#""schedule":"beta""#, card: card)
    #expect(sampler?.param == "sampler" && sampler?.message.contains(#"serve "euler""#) == true)
    #expect(schedule?.param == "schedule" && schedule?.message.contains("serve none") == true)
  }
}
