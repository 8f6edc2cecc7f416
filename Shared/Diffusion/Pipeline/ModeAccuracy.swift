import ClusterCore
import Kernels
import TensorCore

/// How far the compute modes are from fp32 on a checkpoint.
public struct ModeAccuracy: Sendable, Equatable {
  /// The mode.
  public let precision: PrecisionChoice
  /// ‖x − x₃₂‖ / ‖x₃₂‖ of the prompt's embeddings.
  public let promptEmbeds: Double
  /// The same of the transformer's output, over all steps and both branches of guidance, each from the inputs that it
  /// has in fp32.
  public let velocity: Double
  /// The same of the last latents, after running the whole way in this mode.
  public let latents: Double

  /// Runs `request` in fp32, then in each of `precisions`.
  ///
  /// - Throws: what loading and running throw.
  public static func measure(
    _ model: ModelDirectory, request: ImageRequest, precisions: [PrecisionChoice], pool: ThreadPool
  ) throws -> [ModeAccuracy] {
    let card = try model.card(), grid = card.latents.grid(of: request.size)
    let noise = InitialNoise.torchCPU(seed: request.seed, grid: grid, card.latents)

    func prompts(_ precision: PrecisionChoice) throws -> [PromptConditioning] {
      let conditioner = try model.family.conditioner(
        of: model, loading: WeightLoading(precision: precision), pool: pool, limits: card.limits, readsImages: false)
      let (prompt, negative) = try conditioner.encode(request)
      return [prompt] + (negative.map { [$0] } ?? [])
    }
    func input(_ prompts: [PromptConditioning]) -> DenoisingInput {
      var input = DenoisingInput(
        prompt: prompts[0], negativePrompt: nil, latents: noise, grid: grid, steps: request.steps,
        trueCFGScale: request.trueCFGScale)
      input.prompts = prompts
      return input
    }
    func network(_ precision: PrecisionChoice) throws -> any MeasuredNetwork {
      let predictor = try model.family.predictor(
        of: model, loading: WeightLoading(precision: precision), pool: pool, options: PredictorOptions())
      return Self.measured(predictor, model.scheduler, model.family.guidance)
    }

    let exact = input(try prompts(.fp32)), exactNetwork = try network(.fp32)
    let expected = try exactNetwork.denoise(exact)
    let velocities = try exactNetwork.velocities(exact, at: expected.inputs)
    return try precisions.map { precision in
      let own = input(try prompts(precision)), network = try network(precision)
      let forced = try network.velocities(exact, at: expected.inputs)
      let latents = try network.denoise(own).latents
      return ModeAccuracy(
        precision: precision, promptEmbeds: error(own.prompts.map(\.embeds), exact.prompts.map(\.embeds)),
        velocity: error(forced, velocities), latents: error([latents], [expected.latents]))
    }
  }

  private static func measured<Predictor: VelocityPredictor>(
    _ predictor: Predictor, _ scheduler: SchedulerConfiguration, _ guidance: Guidance
  ) -> any MeasuredNetwork {
    Measured(predictor: predictor, scheduler: scheduler, guidance: guidance)
  }

  private static func error(_ found: [Tensor], _ expected: [Tensor]) -> Double {
    var (difference, norm) = (0.0, 0.0)
    for (f, e) in zip(found, expected) {
      for (a, b) in zip(f.floats(), e.floats()) {
        difference += Double(a - b) * Double(a - b)
        norm += Double(b) * Double(b)
      }
    }
    return (difference / norm).squareRoot()
  }
}

/// A denoising network in one mode.
private protocol MeasuredNetwork {
  /// The last latents, and the latents before each step.
  func denoise(_ input: DenoisingInput) throws -> (latents: Tensor, inputs: [Tensor])
  /// The velocities of all branches at every step, from the latents `inputs`.
  func velocities(_ input: DenoisingInput, at inputs: [Tensor]) throws -> [Tensor]
}

private struct Measured<Predictor: VelocityPredictor>: MeasuredNetwork {
  let predictor: Predictor
  let scheduler: SchedulerConfiguration
  let guidance: Guidance

  func denoise(_ input: DenoisingInput) throws -> (latents: Tensor, inputs: [Tensor]) {
    var inputs = [input.latents]
    let denoiser = Denoiser(predictor, scheduler: scheduler, guidance: guidance)
    let latents = try denoiser(input) { inputs.append($0.latents) }
    return (latents, inputs.dropLast())
  }

  func velocities(_ input: DenoisingInput, at inputs: [Tensor]) throws -> [Tensor] {
    let branches = try predictor.prepare(input, times: FlowMatchSchedule(of: input, scheduler).times)
    return inputs.enumerated().flatMap { step, latents in
      branches.map { predictor.velocity(VelocityCall(branch: $0, latents: latents, step: step), probe: .none) }
    }
  }
}
