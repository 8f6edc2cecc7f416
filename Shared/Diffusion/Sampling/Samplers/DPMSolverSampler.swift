import TensorCore

/// DPM-Solver++ 2M, midpoint (Lu and others 2022, arXiv 2211.01095), or with noise its variant for the stochastic
/// equation (diffusers `DPMSolverMultistepScheduler`, `dpmsolver++` and `sde-dpmsolver++`).
///
/// With h the step in log(alpha / sigma), D the denoised latents and D₋ those of the step before, whose step was h₋:
/// x′ = σ′/σ · x + α′ (1 − e⁻ʰ) · (D + h/(2h₋) · (D − D₋)); with noise, x has the weight σ′/σ · e⁻ʰ, D that of
/// α′ (1 − e⁻²ʰ), and σ′ √(1 − e⁻²ʰ) of noise is added. First and last step are of first order.
///
/// History: D.
struct DPMSolverSampler: Sampler {
  let levels: [NoiseLevel]
  let noise: StepNoise?

  func step(_ step: Int, from state: SamplerState, _ velocity: (Tensor, Int) -> Tensor) -> SampledStep {
    let (from, to) = (levels[step], levels[step + 1]), x = state.latents
    let denoised = denoised(x, velocity(x, step), from)
    return SampledStep(state: SamplerState(latents: next(), history: [denoised])) { denoised }

    func next() -> Tensor {
      guard to.sigma > 0 else { return denoised }
      guard to.sigma < from.sigma else { return x }
      // e⁻ʰ, which is 0 from pure noise.
      let decay = to.sigma * from.alpha / (to.alpha * from.sigma)
      let kept = to.sigma / from.sigma * (noise == nil ? 1 : decay)
      let gain = to.alpha * (1 - (noise == nil ? decay : decay * decay))
      var terms = [(weight: kept, tensor: x)]
      if let previous = state.history.first, let ratio = ratio(step) {
        terms += [(gain * (1 + ratio / 2), denoised), (-gain * ratio / 2, previous)]
      } else {
        terms.append((gain, denoised))
      }
      if let noise {
        terms.append((to.sigma * (1 - decay * decay).squareRoot(), noise(step, like: x)))
      }
      return .weighted(terms)
    }
  }

  /// The length of a step in units of the one before; nil: that had none, or began with pure noise.
  private func ratio(_ step: Int) -> Double? {
    guard step > 0 else { return nil }
    let current = levels[step].logSNR, before = current - levels[step - 1].logSNR
    guard before.isFinite, before > 0 else { return nil }
    return (levels[step + 1].logSNR - current) / before
  }
}
