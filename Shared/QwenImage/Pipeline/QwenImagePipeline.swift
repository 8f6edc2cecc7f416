import Foundation
import ImageCodec
import Kernels
import TensorCore

/// From a prompt to a picture in one process: encode → noise → denoise → decode.
///
/// The services run the same three parts, one per process; this type is also the shortest description of the model.
public struct QwenImagePipeline: Sendable {
  /// What requests the model takes.
  public let limits: ModelLimits
  private let promptEncoder: PromptEncoder
  private let denoiser: Denoiser
  private let decoder: VAEDecoder

  /// Loads all parts of a checkpoint directory.
  ///
  /// - Parameters:
  ///   - loading: the compute mode of the two large networks, and where their laid-out weights are kept.
  ///   - scheduler: replaces the checkpoint's schedule, as users of the Lightning distillations do.
  /// - Throws: `ConfigurationError`, `TokenizerError`, `WeightsError` or ``PipelineError``, each naming the file at fault.
  public init(
    model: ModelDirectory, loading: WeightLoading, pool: ThreadPool, limits: ModelLimits = ModelLimits(),
    scheduler: SchedulerConfiguration? = nil
  ) throws {
    self.limits = limits
    promptEncoder = try PromptEncoder(
      model: model, loading: loading, pool: pool, maxPromptTokens: limits.maxPromptTokens)
    denoiser = try Denoiser(model: model, loading: loading, pool: pool, scheduler: scheduler)
    decoder = try VAEDecoder(model: model, pool: pool)
  }

  /// Draws one picture.
  ///
  /// - Parameters:
  ///   - latents: packed latents to start from, instead of noise drawn from the request's seed.
  ///   - probe: receives intermediates under the reference's names.
  ///   - afterStep: called after every step with the number of finished steps; it may throw to stop.
  public func callAsFunction(
    _ request: ImageRequest, latents: Tensor? = nil, probe: Probe = .none,
    afterStep: (_ completedSteps: Int) throws -> Void = { _ in }
  ) throws -> RasterImage {
    try limits.validate(request)
    let (promptEmbeds, negativePromptEmbeds) = try encodePrompts(request, probe: probe)
    let noise =
      latents
      ?? InitialNoise.torchCPU(
        seed: request.seed, grid: request.tokenGrid, latentChannels: decoder.configuration.zDim, probe: probe)
    let denoised = try denoiser(
      .init(
        promptEmbeds: promptEmbeds, negativePromptEmbeds: negativePromptEmbeds, latents: noise, grid: request.tokenGrid,
        steps: request.steps, trueCFGScale: request.trueCFGScale),
      probe: probe, afterStep: { completed, _ in try afterStep(completed) })
    return RasterImage(decoded: decoder(LatentPacking.unpack(denoised, request.tokenGrid), probe: probe.scoped("vae")))
  }

  private func encodePrompts(_ request: ImageRequest, probe: Probe) throws -> (prompt: Tensor, negative: Tensor?) {
    let negativePrompt = request.usesTrueCFG ? request.negativePrompt : nil
    guard probe.isActive else {
      var tokens = [try promptEncoder.tokens(request.prompt)]
      if let negativePrompt { tokens.append(try promptEncoder.tokens(negativePrompt, field: "negative_prompt")) }
      let embeds = promptEncoder.encode(tokens)
      return (embeds[0], embeds.count > 1 ? embeds[1] : nil)
    }
    let prompt = try promptEncoder.encode(request.prompt, probe: probe.scoped("te.cond"))
    probe.record("prompt_embeds.cond", prompt)
    guard let negativePrompt else { return (prompt, nil) }
    let negative = try promptEncoder.encode(negativePrompt, field: "negative_prompt", probe: probe.scoped("te.uncond"))
    probe.record("prompt_embeds.uncond", negative)
    return (prompt, negative)
  }
}

extension PromptEncoder {
  /// Loads `tokenizer/` and `text_encoder/`.
  public init(model: ModelDirectory, loading: WeightLoading, pool: ThreadPool, maxPromptTokens: Int) throws {
    let (weights, compute) = try model.open(.textEncoder, pool: pool, loading)
    let languageModel = try LanguageModel(
      weights, configuration: model.textEncoder, compute: compute, residentMax: loading.roomForWeights)
    loading.reportStreaming(languageModel.streaming, of: .textEncoder, layerCount: model.textEncoder.layerCount)
    try self.init(
      tokenizer: Tokenizer(directory: model.url(of: .tokenizer)), model: languageModel, maxPromptTokens: maxPromptTokens
    )
  }
}

extension Denoiser {
  /// Loads `transformer/`; the schedule is the checkpoint's unless `scheduler` replaces it.
  public init(
    model: ModelDirectory, loading: WeightLoading, pool: ThreadPool, scheduler: SchedulerConfiguration? = nil
  ) throws {
    let (weights, compute) = try model.open(.transformer, pool: pool, loading)
    let transformer = try MMDiT(
      weights, configuration: model.transformer, compute: compute, residentMax: loading.roomForWeights)
    loading.reportStreaming(transformer.streaming, of: .transformer, layerCount: model.transformer.layerCount)
    self.init(transformer: transformer, scheduler: scheduler ?? model.scheduler)
  }
}

extension VAEDecoder {
  /// Loads `vae/`. The VAE computes in fp32 whatever the precision of the other stages, as the published weights expect.
  public init(model: ModelDirectory, pool: ThreadPool) throws {
    try self.init(model.weights(of: .vae), configuration: model.vae, compute: Compute(precision: .fp32, pool: pool))
  }
}
