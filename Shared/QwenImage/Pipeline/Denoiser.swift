import Kernels
import TensorCore

/// Noise to latents: the flow-matching loop around the transformer (diffusers `QwenImagePipeline.__call__`, denoising part).
public struct Denoiser: Sendable {
  private let transformer: MMDiT
  private let scheduler: SchedulerConfiguration
  private var predict: @Sendable ([MMDiT.Branch]) -> [Tensor]

  /// Puts the loop around a loaded transformer.
  public init(transformer: MMDiT, scheduler: SchedulerConfiguration) {
    self.transformer = transformer
    self.scheduler = scheduler
    predict = transformer.predict
  }

  /// The same loop, with velocities predicted by `predict`: for jobs that share passes, which hands them on to ``MMDiT/predict(_:)``.
  public func predicting(by predict: @escaping @Sendable ([MMDiT.Branch]) -> [Tensor]) -> Denoiser {
    var denoiser = self
    denoiser.predict = predict
    return denoiser
  }

  /// Velocities of several branches, of one job or of several.
  public func velocities(_ branches: [MMDiT.Branch]) -> [Tensor] { transformer.predict(branches) }

  /// Names everything that results depend on besides weights and inputs.
  public var numericsClass: String { LayerPrecision.numericsClass(transformer.compute) }

  /// What the loop starts from.
  public struct Input: Sendable {
    /// [L, jointAttentionDim].
    public var promptEmbeds: Tensor
    /// [L', jointAttentionDim]; nil switches guidance off.
    public var negativePromptEmbeds: Tensor?
    /// Packed latents [N, 64] before step `firstStep`, fp32: noise, or the checkpoint of an earlier attempt.
    public var latents: Tensor
    /// The grid of image tokens.
    public var grid: TokenGrid
    /// Number of steps of the whole schedule.
    public var steps: Int
    /// Steps already done.
    public var firstStep: Int
    /// Guidance strength.
    public var trueCFGScale: Double

    /// See the properties.
    public init(
      promptEmbeds: Tensor, negativePromptEmbeds: Tensor?, latents: Tensor, grid: TokenGrid, steps: Int,
      firstStep: Int = 0,
      trueCFGScale: Double
    ) {
      self.promptEmbeds = promptEmbeds
      self.negativePromptEmbeds = negativePromptEmbeds
      self.latents = latents
      self.grid = grid
      self.steps = steps
      self.firstStep = firstStep
      self.trueCFGScale = trueCFGScale
    }
  }

  /// Runs the steps that are left.
  ///
  /// Resuming at step k from the latents after step k-1 gives the bytes of the undisturbed run: the modulation table is always
  /// computed for the whole schedule, and nothing else crosses from step to step.
  ///
  /// - Parameter afterStep: called with the number of finished steps and the latents; it may throw to stop the loop.
  /// - Returns: packed latents [N, 64], fp32.
  /// - Throws: ``PipelineError/invalidRequest(field:reason:)`` when the input does not fit the model, or what `afterStep` throws.
  public func callAsFunction(
    _ input: Input, probe: Probe = .none,
    afterStep: (_ completedSteps: Int, _ latents: Tensor) throws -> Void = { _, _ in }
  ) throws -> Tensor {
    try validate(input)
    let schedule = try schedule(input)
    probe.record("sigmas", Tensor(schedule.sigmas, shape: [schedule.sigmas.count]))
    probe.record("timesteps", Tensor(schedule.timesteps, shape: [schedule.timesteps.count]))
    let modulation = transformer.modulation(times: schedule.timesteps.map { $0 / 1000 })
    let prompts = ([input.promptEmbeds] + (input.negativePromptEmbeds.map { [$0] } ?? [])).map {
      transformer.condition(promptEmbeds: $0, grid: input.grid)
    }

    var latents = input.latents
    for step in input.firstStep..<input.steps {
      let branches = prompts.map {
        MMDiT.Branch(latents: latents, conditioning: $0, modulation: modulation, step: step)
      }
      let velocity = velocity(branches, input, stepProbe(probe, step))
      latents = FlowMatchSchedule.step(
        latents: latents, velocity: velocity, from: schedule.sigmas[step], to: schedule.sigmas[step + 1])
      probe.record("latents.step\(step)", latents)
      try afterStep(step + 1, latents)
    }
    return latents
  }

  private func velocity(_ branches: [MMDiT.Branch], _ input: Input, _ probe: Probe) -> Tensor {
    let velocities =
      probe.isActive
      ? zip(branches, ["cond", "uncond"]).map { transformer($0, probe: probe.scoped($1)) }
      : predict(branches)
    guard velocities.count > 1 else { return velocities[0] }
    return trueCFG(conditional: velocities[0], unconditional: velocities[1], scale: Float(input.trueCFGScale))
  }

  private func schedule(_ input: Input) throws(PipelineError) -> FlowMatchSchedule {
    do {
      return try FlowMatchSchedule(configuration: scheduler, steps: input.steps, imageTokens: input.grid.tokenCount)
    } catch {
      throw .invalidRequest(field: "steps", reason: "cannot be scheduled: \(error)")
    }
  }

  /// Inner tensors are recorded for the first step only, as in the reference; later ones record their output.
  private func stepProbe(_ probe: Probe, _ step: Int) -> Probe {
    let scoped = probe.scoped("dit.step\(step)")
    return step == 0 ? scoped : scoped.filtered { $0.hasSuffix(".out") }
  }

  private func validate(_ input: Input) throws(PipelineError) {
    let configuration = transformer.configuration
    let embeds =
      [("prompt_embeds", input.promptEmbeds)]
      + (input.negativePromptEmbeds.map { [("negative_prompt_embeds", $0)] } ?? [])
    for (field, tensor) in embeds {
      guard tensor.shape.rank == 2, tensor.shape[0] > 0, tensor.shape[1] == configuration.jointAttentionDim,
        tensor.dtype == .fp32
      else {
        throw .invalidRequest(
          field: field,
          reason: "is \(tensor.dtype) \(tensor.shape); expected F32 [tokens, \(configuration.jointAttentionDim)]")
      }
    }
    let expected: Shape = [input.grid.tokenCount, configuration.inChannels]
    guard input.latents.shape == expected, input.latents.dtype == .fp32 else {
      throw .invalidRequest(
        field: "latents", reason: "is \(input.latents.dtype) \(input.latents.shape); expected F32 \(expected)")
    }
    guard input.steps >= 1, (0...input.steps).contains(input.firstStep) else {
      throw .invalidRequest(field: "first_step", reason: "is \(input.firstStep) of \(input.steps) steps")
    }
  }
}
