import TensorCore

/// Euler's method (diffusers `FlowMatchEulerDiscreteScheduler`).
struct EulerSampler: Sampler {
  let sigmas: [Float]

  func step(_ step: Int, from state: SamplerState, _ velocity: (Tensor, Int) -> Tensor) -> SampledStep {
    .straight(velocity(state.latents, step), from: state.latents, sigmas[step], to: sigmas[step + 1])
  }
}

/// Heun's method (diffusers `FlowMatchHeunDiscreteScheduler`): a step goes along the mean of the velocities at its
/// beginning and at the end of Euler's step. The last one, to no noise, is Euler's.
struct HeunSampler: Sampler {
  let sigmas: [Float]

  func step(_ step: Int, from state: SamplerState, _ velocity: (Tensor, Int) -> Tensor) -> SampledStep {
    let (from, to) = (sigmas[step], sigmas[step + 1]), first = velocity(state.latents, step)
    guard to > 0 else { return .straight(first, from: state.latents, from, to: to) }
    let end = FlowMatchSchedule.step(latents: state.latents, velocity: first, from: from, to: to)
    let mean = Tensor.weighted([(0.5, first), (0.5, velocity(end, step + 1))])
    return .straight(mean, from: state.latents, from, to: to)
  }
}

extension SampledStep {
  /// A step along `velocity`, of a sampler without history.
  fileprivate static func straight(
    _ velocity: Tensor, from latents: Tensor, _ from: Float, to: Float
  ) -> SampledStep {
    func end(_ sigma: Float) -> Tensor {
      FlowMatchSchedule.step(latents: latents, velocity: velocity, from: from, to: sigma)
    }
    return SampledStep(state: SamplerState(latents: end(to))) { end(0) }
  }
}

extension Sampler {
  /// The latents without noise that a velocity foretells.
  func denoised(_ latents: Tensor, _ velocity: Tensor, _ level: NoiseLevel) -> Tensor {
    .weighted([(1, latents), (-level.sigma, velocity)])
  }
}
