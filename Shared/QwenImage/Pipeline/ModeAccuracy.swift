import Kernels
import TensorCore

/// How far the compute modes are from fp32 on a checkpoint.
public struct ModeAccuracy: Sendable, Equatable {
  /// The mode.
  public let precision: PrecisionChoice
  /// ‖x − x₃₂‖ / ‖x₃₂‖ of the prompt's embeddings.
  public let promptEmbeds: Double
  /// The same of the transformer's output, over all steps and both branches of guidance, each from the inputs that it has in fp32.
  public let velocity: Double
  /// The same of the last latents, after running the whole way in this mode.
  public let latents: Double

  /// Runs `request` in fp32, then in each of `precisions`.
  ///
  /// - Throws: what loading and running throw.
  public static func measure(
    _ model: ModelDirectory, request: ImageRequest, precisions: [PrecisionChoice], pool: ThreadPool, limits: ModelLimits
  ) throws -> [ModeAccuracy] {
    let noise = InitialNoise.torchCPU(seed: request.seed, grid: request.tokenGrid, latentChannels: model.vae.zDim)
    let exact = try Run(model, request, .fp32, pool, limits)
    let expected = try exact.denoise(exact.embeds, noise, request)
    return try precisions.map { precision in
      let run = try Run(model, request, precision, pool, limits)
      let forced = try run.velocities(exact.embeds, at: expected.inputs, request)
      return ModeAccuracy(
        precision: precision, promptEmbeds: error(run.embeds, exact.embeds),
        velocity: error(forced, expected.velocities),
        latents: error([try run.denoise(run.embeds, noise, request).latents], [expected.latents]))
    }
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

  /// A model in one mode, and the embeddings it gives the request's prompts: the positive, and the negative if there is guidance.
  private struct Run {
    let transformer: MMDiT
    let scheduler: SchedulerConfiguration
    let embeds: [Tensor]

    init(
      _ model: ModelDirectory, _ request: ImageRequest, _ precision: PrecisionChoice, _ pool: ThreadPool,
      _ limits: ModelLimits
    ) throws {
      let loading = WeightLoading(precision: precision)
      let encoder = try PromptEncoder(
        model: model, loading: loading, pool: pool, maxPromptTokens: limits.maxPromptTokens)
      let prompts = [request.prompt] + (request.usesTrueCFG ? [request.negativePrompt ?? ""] : [])
      embeds = try prompts.map { try encoder.encode($0) }
      let (weights, compute) = try model.open(.transformer, pool: pool, loading)
      transformer = try MMDiT(weights, configuration: model.transformer, compute: compute)
      scheduler = model.scheduler
    }

    func denoise(
      _ embeds: [Tensor], _ noise: Tensor, _ request: ImageRequest
    ) throws -> (latents: Tensor, inputs: [Tensor], velocities: [Tensor]) {
      var inputs = [noise]
      let input = Denoiser.Input(
        promptEmbeds: embeds[0], negativePromptEmbeds: embeds.count > 1 ? embeds[1] : nil, latents: noise,
        grid: request.tokenGrid,
        steps: request.steps, trueCFGScale: request.trueCFGScale)
      let denoiser = Denoiser(transformer: transformer, scheduler: scheduler)
      let latents = try denoiser(input) { _, latents in inputs.append(latents) }
      inputs.removeLast()
      return (latents, inputs, try velocities(embeds, at: inputs, request))
    }

    func velocities(_ embeds: [Tensor], at inputs: [Tensor], _ request: ImageRequest) throws -> [Tensor] {
      let schedule = try FlowMatchSchedule(
        configuration: scheduler, steps: request.steps, imageTokens: request.tokenGrid.tokenCount)
      let modulation = transformer.modulation(times: schedule.timesteps.map { $0 / 1000 })
      let conditions = embeds.map { transformer.condition(promptEmbeds: $0, grid: request.tokenGrid) }
      return inputs.enumerated().flatMap { step, latents in
        conditions.map {
          transformer(MMDiT.Branch(latents: latents, conditioning: $0, modulation: modulation, step: step))
        }
      }
    }
  }
}
