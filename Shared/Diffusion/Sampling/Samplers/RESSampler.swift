import TensorCore

/// The multistep exponential integrator of second order that is known as RES (Zhang and others 2023, arXiv 2308.02157;
/// ComfyUI's `res_multistep`).
///
/// In t = −log σ, with h the step, c = (t₋ − t) / h and φ₁(z) = (eᶻ − 1)/z, φ₂(z) = (φ₁(z) − 1)/z:
/// x′ = σ′/σ · x + h ((φ₁(−h) − φ₂(−h)/c) · D + φ₂(−h)/c · D₋). First and last step are Euler's.
///
/// History: D.
struct RESSampler: Sampler {
  let levels: [NoiseLevel]

  func step(_ step: Int, from state: SamplerState, _ velocity: (Tensor, Int) -> Tensor) -> SampledStep {
    let (from, to) = (levels[step].sigma, levels[step + 1].sigma), x = state.latents
    let denoised = denoised(x, velocity(x, step), levels[step])
    return SampledStep(state: SamplerState(latents: next(), history: [denoised])) { denoised }

    func next() -> Tensor {
      guard to > 0 else { return denoised }
      guard to < from else { return x }
      let kept = to / from
      guard let previous = state.history.first, step > 0, levels[step - 1].sigma > from else {
        return .weighted([(kept, x), (1 - kept, denoised)])
      }
      let h = PortableMath.log(from / to), c = -PortableMath.log(levels[step - 1].sigma / from) / h
      // h φ₁(−h) = 1 − e⁻ʰ, and h φ₂(−h) = 1 − φ₁(−h).
      let earlier = (1 - (1 - kept) / h) / c
      return .weighted([(kept, x), (1 - kept - earlier, denoised), (earlier, previous)])
    }
  }
}
