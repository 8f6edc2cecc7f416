import TensorCore

/// UniPC of second order with B₂(h) = eʰ − 1 (Zhao and others 2023, arXiv 2302.04867; diffusers
/// `UniPCMultistepScheduler`, `bh2`): every step but the first corrects the latents that it begins with by its own
/// denoised latents, and predicts the next from the corrected ones.
///
/// With h the step in log(alpha / sigma), k = (1 − e⁻ʰ), D the denoised latents of the step and D₋ those before:
/// x′ = σ′/σ · x + α′ k · (D + ½ (D₋ − D) / r), r = (λ₋ − λ) / h. The corrector repeats the last step with the weights
/// that its end adds to. First and last step are of first order, the first correction too.
///
/// History: the latents that the last step began with, D and D₋.
struct UniPCSampler: Sampler {
  let levels: [NoiseLevel]

  func step(_ step: Int, from state: SamplerState, _ velocity: (Tensor, Int) -> Tensor) -> SampledStep {
    let denoised = denoised(state.latents, velocity(state.latents, step), levels[step])
    let x = corrected(step, state, denoised)
    let earlier = state.history.dropFirst().first
    let history = [x, denoised] + (earlier.map { [$0] } ?? [])
    return SampledStep(state: SamplerState(latents: next(), history: history)) { denoised }

    func next() -> Tensor {
      let (from, to) = (levels[step], levels[step + 1])
      guard to.sigma > 0 else { return denoised }
      guard to.sigma < from.sigma else { return x }
      let stretch = Stretch(from, to)
      guard let earlier, let inverse = inverseRatio(step) else {
        return .weighted([(stretch.kept, x), (stretch.gain, denoised)])
      }
      let slope = stretch.gain / 2 * inverse
      return .weighted([(stretch.kept, x), (stretch.gain - slope, denoised), (slope, earlier)])
    }
  }

  /// The latents before a step, corrected by what the network says of them.
  private func corrected(_ step: Int, _ state: SamplerState, _ denoised: Tensor) -> Tensor {
    guard state.history.count > 1, step > 0, levels[step].sigma < levels[step - 1].sigma else { return state.latents }
    let stretch = Stretch(levels[step - 1], levels[step]), (start, first) = (state.history[0], state.history[1])
    var weights = (end: 0.5, earlier: 0.0)
    if state.history.count > 2 { weights = stretch.correction(inverseRatio: inverseRatio(step - 1) ?? 0) }
    let (end, earlier) = (stretch.gain * weights.end, stretch.gain * weights.earlier)
    var terms: [(weight: Double, tensor: Tensor)] = [
      (stretch.kept, start), (stretch.gain - end - earlier, first), (end, denoised),
    ]
    if state.history.count > 2 { terms.append((earlier, state.history[2])) }
    return .weighted(terms)
  }

  /// 1/r, the step's length in units of that before, negative; nil: that had none, or began with pure noise.
  private func inverseRatio(_ step: Int) -> Double? {
    guard step > 0 else { return nil }
    let current = levels[step].logSNR, before = levels[step - 1].logSNR - current
    guard before.isFinite, before < 0 else { return nil }
    return (levels[step + 1].logSNR - current) / before
  }

  /// A step from one level to a lower one.
  private struct Stretch {
    /// Weight of the latents.
    let kept: Double
    /// Weight of what is denoised, α′ (1 − e⁻ʰ).
    let gain: Double
    private let length: Double

    init(_ from: NoiseLevel, _ to: NoiseLevel) {
      kept = to.sigma / from.sigma
      gain = to.alpha - kept * from.alpha
      length = to.logSNR - from.logSNR
    }

    /// The corrector's weights of D at the end and of D before the beginning, less that at the beginning.
    ///
    /// They solve w₁ + w₂ = b₁ and r w₁ + w₂ = b₂, where bₙ = n! φₙ₊₁(−h) (−h)ⁿ / B₂; the difference of the earlier
    /// one is divided by r.
    func correction(inverseRatio inverse: Double) -> (end: Double, earlier: Double) {
      guard length.isFinite else { return (1, 0) }
      let h = -length, base = PortableMath.exp(h) - 1
      let second = base / h - 1, third = second / h - 0.5
      let (b1, b2) = (second / base, 2 * third / base)
      // w₁ = (b₁ − b₂) / (1 − r), where r = 1 / inverse.
      let other = (b1 - b2) * inverse / (inverse - 1)
      return (b1 - other, other * inverse)
    }
  }
}
