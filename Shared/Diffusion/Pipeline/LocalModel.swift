import ClusterCore
import Foundation
import ImageCodec
import Kernels
import TensorCore

/// A model with all of its parts in this process. Its pipelines, one file each, are the shortest description of what
/// the services do, one part per process: encode → noise → denoise → decode.
public struct LocalModel: Sendable {
  /// What the model takes.
  public let card: ModelCard
  let scheduler: SchedulerConfiguration
  let conditioner: any PromptConditioner
  let codec: any LatentCodec
  let denoise: Denoise

  typealias AfterStep = (_ completedSteps: Int, _ latents: Tensor) throws -> Void
  typealias Denoise = @Sendable (DenoisingInput, Probe, AfterStep) throws -> Tensor

  /// Loads all parts of a checkpoint directory that a pipeline needs.
  ///
  /// - Parameters:
  ///   - pipeline: what is to be done.
  ///   - loading: the compute mode of the two large networks, and where their packed weights are kept.
  ///   - scheduler: replaces the checkpoint's schedule, as users of the Lightning distillations do.
  ///   - options: what can be chosen about the denoising network.
  ///   - adapters: what is added to its weights.
  /// - Throws: `ConfigurationError`, `TokenizerError`, `WeightsError` or ``PipelineError``, each naming the file at
  ///   fault.
  public init(
    _ model: ModelDirectory, for pipeline: PipelineName = .textToImage, loading: WeightLoading, pool: ThreadPool,
    scheduler: SchedulerConfiguration? = nil, options: PredictorOptions = PredictorOptions(),
    adapters: AdapterSet = .none
  ) throws {
    card = try model.card()
    self.scheduler = scheduler ?? model.scheduler
    let family = model.family
    conditioner = try family.conditioner(
      of: model, loading: loading, pool: pool, limits: card.limits, readsImages: pipeline.showsImagesToEncoder)
    denoise = try Self.loop(
      try family.predictor(of: model, loading: loading, pool: pool, options: options), adapters, self.scheduler,
      family.guidance)
    codec = try family.codec(of: model, pool: pool, parts: pipeline == .textToImage ? .decoder : [.encoder, .decoder])
  }

  private static func loop(
    _ predictor: some VelocityPredictor, _ adapters: AdapterSet, _ scheduler: SchedulerConfiguration,
    _ guidance: Guidance
  ) throws -> Denoise {
    let denoiser = Denoiser(try predictor.adapted(by: adapters), scheduler: scheduler, guidance: guidance)
    return { input, probe, afterStep in
      try denoiser(input, probe: probe) { try afterStep($0.completedSteps, $0.latents) }
    }
  }

  /// Draws an image of a prompt.
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
    let run = PipelineRun(model: self, request: request, inputs: PipelineInputs(), probe: probe)
    return try run.textToImage(from: latents) { completed, _ in try afterStep(completed) }
  }

  /// Runs a pipeline.
  ///
  /// - Parameters:
  ///   - inputs: the images and how they are used.
  ///   - probe: receives intermediates under the reference's names.
  ///   - afterStep: called after every step with the number of finished steps; it may throw to stop.
  /// - Returns: one image, or the layers.
  /// - Throws: ``PipelineError/invalidRequest(field:reason:)``, or what `afterStep` throws.
  public func callAsFunction(
    _ pipeline: PipelineName, _ request: ImageRequest, _ inputs: PipelineInputs = PipelineInputs(),
    probe: Probe = .none, afterStep: (_ completedSteps: Int) throws -> Void = { _ in }
  ) throws -> [RasterImage] {
    try card.limits.validate(request)
    let run = PipelineRun(model: self, request: request, inputs: inputs, probe: probe)
    let afterStep: AfterStep = { completed, _ in try afterStep(completed) }
    switch pipeline {
    case .textToImage: return [try run.textToImage(afterStep)]
    case .imageToImage: return [try run.imageToImage(afterStep)]
    case .inpaint: return [try run.inpaint(afterStep)]
    case .edit: return [try run.edit(afterStep)]
    case .editPlus: return [try run.editPlus(afterStep)]
    case .editInpaint: return [try run.editInpaint(afterStep)]
    case .controlNet: return [try run.controlNet(afterStep)]
    case .controlNetInpaint: return [try run.controlNetInpaint(afterStep)]
    case .layered: return try run.layered(afterStep)
    default: throw PipelineError.invalidRequest(field: "pipeline", reason: "is \(pipeline), which is not known")
    }
  }
}

/// One request on its way through a pipeline, and the steps that pipelines have in common.
struct PipelineRun {
  let model: LocalModel
  let request: ImageRequest
  let inputs: PipelineInputs
  let probe: Probe

  var geometry: LatentGeometry { model.card.latents }
  var grid: TokenGrid { geometry.grid(of: request.size) }

  /// The request's images, what is transparent over white unless the model's images have transparency; a request
  /// without one is refused.
  func images() throws(PipelineError) -> [RasterImage] {
    guard !inputs.images.isEmpty else { throw .invalidRequest(field: "image", reason: "is missing") }
    return model.card.hasTransparency ? inputs.images : inputs.images.map(\.overWhite)
  }

  /// In which sizes networks see these.
  var references: ReferenceAreas { model.card.references.with(outputResolutionPx: inputs.outputResolutionPx) }

  /// The request's first image, as ``images()``.
  func image() throws(PipelineError) -> RasterImage { try images()[0] }

  /// The request's mask, of one channel and with its blur; a request without one is refused.
  func mask() throws(PipelineError) -> RasterImage {
    guard let mask = inputs.mask else { throw .invalidRequest(field: "mask", reason: "is missing") }
    guard (0...1000).contains(inputs.maskBlur) else {
      throw .invalidRequest(field: "mask_blur", reason: "is \(inputs.maskBlur); it must be between 0 and 1000")
    }
    return inputs.maskBlur > 0 ? mask.luma.gaussianBlurred(radius: inputs.maskBlur) : mask
  }

  /// Encodes the prompt and, if it is used, the negative prompt, both with `images`.
  func encodePrompts(
    _ template: PromptInput.Template = .textToImage, images: [RasterImage] = []
  ) throws(PipelineError) -> (prompt: PromptConditioning, negative: PromptConditioning?) {
    try model.conditioner.encode(request, template, images: images, probe: probe)
  }

  var encoder: ImageEncoder { ImageEncoder(model.codec, geometry) }

  /// The packed latents of images of the request's size, each a sample of the image's posterior.
  func sampledLatents(of images: [RasterImage]) -> [Tensor] {
    let samples = InitialNoise.posteriors(seed: request.seed, grids: images.map { _ in grid }, geometry)
    return zip(images, samples).enumerated().map { number, pair in
      probe.record("draw.\(number)", pair.1)
      return encoder.encode(pair.0, noise: pair.1, number: number, probe: probe)
    }
  }

  /// The noise of the request's seed, drawn after the samples of `sampleCount` posteriors.
  func noise(after sampleCount: Int = 0) -> Tensor {
    InitialNoise.torchCPU(
      seed: request.seed, grid: grid, geometry, after: Array(repeating: grid, count: sampleCount), probe: probe)
  }

  /// An encoded image as the network takes it beside the latents.
  func reference(_ image: RasterImage, number: Int) -> ReferenceLatents {
    ReferenceLatents(
      latents: encoder.encode(image, number: number, probe: probe), grid: geometry.grid(of: image.size))
  }

  /// What the loop starts from: the request's steps and guidance.
  func input(
    _ prompt: PromptConditioning, _ negative: PromptConditioning?, from latents: Tensor, firstStep: Int = 0
  ) -> DenoisingInput {
    var input = DenoisingInput(
      prompt: prompt, negativePrompt: negative, latents: latents, grid: grid, steps: request.steps,
      firstStep: firstStep, trueCFGScale: request.trueCFGScale)
    (input.sigmas, input.startStep, input.cache) = (request.sigmas, firstStep, request.cache)
    (input.sampling, input.seed) = (request.sampling, request.seed)
    return input
  }

  /// The decoded image.
  func decode(_ latents: Tensor, _ grid: TokenGrid, number: Int = 0) -> RasterImage {
    let image = RasterImage(
      decoded: model.codec.decode(
        latents, grid: grid, probe: probe.scoped("vae").renamed("decode0", "decode\(number)")))
    return inputs.isOpaque && model.card.hasTransparency ? image.overWhite : image
  }

  /// The noise levels of all steps.
  func schedule() throws(PipelineError) -> FlowMatchSchedule {
    do {
      return try FlowMatchSchedule(
        configuration: request.sampling.configuration(model.scheduler), steps: request.steps,
        imageTokens: grid.tokenCount,
        levels: request.sigmas ?? request.sampling.levels(steps: request.steps))
    } catch {
      throw .invalidRequest(field: "steps", reason: "cannot be scheduled: \(error)")
    }
  }

  /// The first step of a request that makes only a part of an image anew.
  func firstStep() throws(PipelineError) -> Int {
    do {
      return try PartialSchedule.firstStep(
        steps: request.steps, strength: inputs.strength ?? PartialSchedule.defaultStrength)
    } catch {
      throw .invalidRequest(field: "strength", reason: String(error.message.dropFirst("strength ".count)))
    }
  }
}

extension PromptConditioner {
  /// Encodes a request's prompts, both with `images`; the negative one only if it is used.
  func encode(
    _ request: ImageRequest, _ template: PromptInput.Template = .textToImage, images: [RasterImage] = [],
    probe: Probe = .none
  ) throws(PipelineError) -> (prompt: PromptConditioning, negative: PromptConditioning?) {
    var tokens = [try tokens(PromptInput(request.prompt, template: template, images: images), field: "prompt")]
    if request.usesTrueCFG, let negative = request.negativePrompt {
      let input = PromptInput(negative, template: template, images: images)
      tokens.append(try self.tokens(input, field: "negative_prompt"))
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
