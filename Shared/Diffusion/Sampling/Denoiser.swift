import ClusterCore
import Kernels
import TensorCore

/// Noise to latents: the flow-matching loop around a denoising network (diffusers `QwenImagePipeline.__call__`,
/// denoising part).
public struct Denoiser<Predictor: VelocityPredictor>: Sendable {
  /// What one velocity is predicted from.
  public typealias Call = VelocityCall<Predictor.Prepared>

  /// The network.
  public let predictor: Predictor
  private let scheduler: SchedulerConfiguration
  private let guidance: Guidance
  /// Predicts velocities, of any images and steps.
  public private(set) var predict: @Sendable ([Call]) -> [Tensor]

  /// The loop around a loaded network.
  public init(_ predictor: Predictor, scheduler: SchedulerConfiguration, guidance: Guidance) {
    self.predictor = predictor
    self.scheduler = scheduler
    self.guidance = guidance
    predict = predictor.velocities
  }

  /// The same loop, with velocities predicted by `predict`: for jobs that share passes, which passes the calls on to
  /// the network.
  public func predicting(by predict: @escaping @Sendable ([Call]) -> [Tensor]) -> Denoiser {
    var denoiser = self
    denoiser.predict = predict
    return denoiser
  }

  /// The same loop around another network.
  public func around(_ predictor: Predictor) -> Denoiser {
    Denoiser(predictor, scheduler: scheduler, guidance: guidance)
  }

  /// The noise levels of an image's steps.
  ///
  /// - Throws: ``PipelineError/invalidRequest(field:reason:)`` when there is no such schedule.
  public func schedule(_ input: DenoisingInput) throws(PipelineError) -> FlowMatchSchedule {
    try FlowMatchSchedule(of: input, scheduler)
  }

  /// Runs the steps that are left.
  ///
  /// Resuming from a step's checkpoint gives the bytes of the undisturbed run: branches are always prepared for the
  /// whole schedule, and nothing crosses from step to step but the sampler's state and what a step cache keeps.
  /// Recordings of a block cache have the latents only.
  ///
  /// - Parameter afterStep: called after each step; it may throw to stop the loop.
  /// - Returns: packed latents, like the input's.
  /// - Throws: ``PipelineError/invalidRequest(field:reason:)`` when the input does not fit the model, or what
  ///   `afterStep` throws.
  public func callAsFunction(
    _ input: DenoisingInput, probe: Probe = .none,
    afterStep: (FinishedStep) throws -> Void = { _ in }
  ) throws -> Tensor {
    guard input.steps >= 1, (0...input.steps).contains(input.firstStep) else {
      throw PipelineError.invalidRequest(field: "first_step", reason: "is \(input.firstStep) of \(input.steps) steps")
    }
    let schedule = try schedule(input)
    probe.record("sigmas", Tensor(schedule.sigmas, shape: [schedule.sigmas.count]))
    probe.record("timesteps", Tensor(schedule.timesteps, shape: [schedule.timesteps.count]))
    var (state, velocities) = try input.resumed(), plain = input
    plain.latents = state.latents
    try input.inpainting?.validate(state.latents)
    let branches = try predictor.prepare(plain, times: schedule.times)
    let sampler = input.sampling.sampler.sampler(schedule.sigmas, seed: input.seed)

    var caching = try CachedSteps(input, schedule, blockCount: predictor.blockCount, velocities)
    for step in input.firstStep..<input.steps {
      // As in the reference, steps that are left out do not count in the names.
      let number = step - input.firstStep, before = state
      let isGuided = input.sampling.cfgSteps.map { step - input.startStep < $0 } ?? true
      var made = sampler.step(step, from: before) { latents, time in
        let calls = branches.prefix(isGuided ? branches.count : 1).enumerated().map {
          Call(branch: $1, latents: latents, step: time, cache: caching.blocks?.branch($0))
        }
        return caching.velocity(at: step, from: before) {
          velocity(calls, input, time == step ? stepProbe(probe, number) : .none)
        }
      }
      if let inpainting = input.inpainting { inpainting.keep(in: &made, at: schedule.sigmas[step + 1]) }
      state = made.state
      probe.record("latents.step\(number)", state.latents)
      var finished = FinishedStep(
        completedSteps: step + 1, made, checkpoint: caching.checkpoint(after: step + 1, state))
      (finished.isComputed, finished.cacheBytes) = (caching.hasComputed(step), caching.byteCount)
      try afterStep(finished)
    }
    return state.latents
  }

  /// Predicts velocities of one branch of guidance, for steps that are made elsewhere.
  ///
  /// - Parameter index: 1: the negative prompt's.
  /// - Returns: packed latents before a step, and the step → their velocity: the bytes that
  ///   ``callAsFunction(_:probe:afterStep:)`` combines.
  /// - Throws: ``PipelineError/invalidRequest(field:reason:)`` when the input does not fit the model.
  public func branch(_ index: Int, of input: DenoisingInput) throws(PipelineError) -> (Tensor, Int) -> Tensor {
    guard input.prompts.indices.contains(index) else {
      throw .invalidRequest(field: "branch", reason: "is \(index), there are \(input.prompts.count)")
    }
    // A ControlNet reads the first branch's prompt for all of them.
    let branch = try predictor.prepare(input, times: schedule(input).times)[index]
    return { [predict] latents, step in predict([Call(branch: branch, latents: latents, step: step)])[0] }
  }

  private func velocity(_ calls: [Call], _ input: DenoisingInput, _ probe: Probe) -> Tensor {
    let velocities =
      probe.isActive && calls.allSatisfy { $0.cache == nil }
      ? zip(calls, ["cond", "uncond"]).map { predictor.velocity($0, probe: probe.scoped($1)) } : predict(calls)
    guard velocities.count > 1 else { return velocities[0] }
    return (input.guidance ?? guidance).combine(
      conditional: velocities[0], unconditional: velocities[1], scale: Float(input.trueCFGScale))
  }

  /// Inner tensors are recorded for the first step only, as in the reference; later ones record their output.
  private func stepProbe(_ probe: Probe, _ step: Int) -> Probe {
    let scoped = probe.scoped("dit.step\(step)")
    return step == 0 ? scoped : scoped.filtered { $0.hasSuffix(".out") }
  }
}

/// What the loop has after a step.
public struct FinishedStep {
  /// Steps done.
  public let completedSteps: Int
  /// Packed latents at the noise level after the step.
  public var latents: Tensor { made.state.latents }
  /// What a later attempt resumes from.
  public let checkpoint: LoopCheckpoint
  /// Whether the whole network has run, as it does unless a step cache leaves out a part.
  public internal(set) var isComputed = true
  /// Bytes that a step cache keeps for the next steps.
  public internal(set) var cacheBytes = 0
  private let made: SampledStep

  init(completedSteps: Int, _ made: SampledStep, checkpoint: LoopCheckpoint) {
    self.completedSteps = completedSteps
    self.made = made
    self.checkpoint = checkpoint
  }

  /// Packed latents without noise, as the step's velocity foretells them: where a single step to the end would lead.
  public var expectedLatents: Tensor { made.denoised() }
}

extension FlowMatchSchedule {
  /// The noise levels before the steps: what networks take as time.
  public var times: [Float] { timesteps.map { $0 / 1000 } }

  /// The schedule of an image.
  init(of input: DenoisingInput, _ configuration: SchedulerConfiguration) throws(PipelineError) {
    try input.sampling.check(steps: input.steps, hasLevels: input.sigmas != nil)
    do {
      try self.init(
        configuration: input.sampling.configuration(configuration), steps: input.steps,
        imageTokens: input.grid.tokenCount,
        levels: input.sigmas ?? input.sampling.levels(steps: input.steps))
    } catch {
      let field = if case .levelOutOfRange = error { "sigmas" } else { "steps" }
      throw .invalidRequest(field: field, reason: "cannot be scheduled: \(error)")
    }
  }
}
