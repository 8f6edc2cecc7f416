import ClusterCore
import ImageCodec
import Kernels
import TensorCore

/// From a prompt to an image in one process: encode → noise → denoise → decode.
///
/// The services run the same three parts, one per process; this type is also the shortest description of them.
public struct TextToImage: Sendable {
  /// What the model takes.
  public let card: ModelCard
  private let conditioner: any PromptConditioner
  private let denoise: @Sendable (DenoisingInput, Probe, AfterStep) throws -> Tensor
  private let codec: any LatentCodec

  private typealias AfterStep = (_ completedSteps: Int, _ latents: Tensor) throws -> Void

  /// Loads all parts of a checkpoint directory.
  ///
  /// - Parameters:
  ///   - loading: the compute mode of the two large networks, and where their packed weights are kept.
  ///   - scheduler: replaces the checkpoint's schedule, as users of the Lightning distillations do.
  /// - Throws: `ConfigurationError`, `TokenizerError`, `WeightsError` or ``PipelineError``, each naming the file at
  ///   fault.
  public init(
    _ model: ModelDirectory, loading: WeightLoading, pool: ThreadPool, scheduler: SchedulerConfiguration? = nil
  ) throws {
    card = try model.card()
    let family = model.family
    conditioner = try family.conditioner(
      of: model, loading: loading, pool: pool, limits: card.limits, readsImages: false)
    denoise = Self.loop(
      try family.predictor(of: model, loading: loading, pool: pool, controlNetworks: []), scheduler ?? model.scheduler,
      family.guidance)
    codec = try family.codec(of: model, pool: pool, parts: .decoder)
  }

  private static func loop(
    _ predictor: some VelocityPredictor, _ scheduler: SchedulerConfiguration, _ guidance: Guidance
  ) -> @Sendable (DenoisingInput, Probe, AfterStep) throws -> Tensor {
    let denoiser = Denoiser(predictor, scheduler: scheduler, guidance: guidance)
    return { try denoiser($0, probe: $1, afterStep: $2) }
  }

  /// Draws one image.
  ///
  /// - Parameters:
  ///   - latents: packed latents to start from, instead of noise drawn from the request's seed.
  ///   - probe: receives intermediates under the reference's names.
  ///   - afterStep: called after every step with the number of finished steps; it may throw to stop.
  public func callAsFunction(
    _ request: ImageRequest, latents: Tensor? = nil, probe: Probe = .none,
    afterStep: (_ completedSteps: Int) throws -> Void = { _ in }
  ) throws -> RasterImage {
    try card.limits.validate(request)
    let grid = card.latents.grid(of: request.size)
    let prompts = try conditioner.encode(request, probe: probe)
    let noise = latents ?? InitialNoise.torchCPU(seed: request.seed, grid: grid, card.latents, probe: probe)
    let input = DenoisingInput(
      prompt: prompts.prompt, negativePrompt: prompts.negative, latents: noise, grid: grid, steps: request.steps,
      trueCFGScale: request.trueCFGScale)
    let denoised = try denoise(input, probe) { completed, _ in try afterStep(completed) }
    return RasterImage(decoded: codec.decode(denoised, grid: grid, probe: probe.scoped("vae")))
  }
}

extension PromptConditioner {
  /// Encodes a request's prompts; the negative one only if it is used.
  func encode(
    _ request: ImageRequest, probe: Probe = .none
  ) throws(PipelineError) -> (prompt: PromptConditioning, negative: PromptConditioning?) {
    var tokens = [try tokens(PromptInput(request.prompt), field: "prompt")]
    if request.usesTrueCFG, let negative = request.negativePrompt {
      tokens.append(try self.tokens(PromptInput(negative), field: "negative_prompt"))
    }
    let encoded =
      probe.isActive
      ? zip(tokens, ["cond", "uncond"]).map { tokens, name in
        let encoded = encode(tokens, probe: probe.scoped("te.\(name)"))
        probe.record("prompt_embeds.\(name)", encoded.embeds)
        return encoded
      } : encode(tokens)
    return (encoded[0], encoded.count > 1 ? encoded[1] : nil)
  }
}
