import TensorCore

/// ER-SDE-Solver-3 (Cui and others 2023, arXiv 2309.06169; ComfyUI's `er_sde`): a solver of the reverse stochastic
/// equation in l = σ/α, with the noise scale φ(l) = l (exp(l^0.3) + 10).
///
/// With r = φ(l′)/φ(l) and differences D₁ and D₂ of first and second order of the denoised latents over l:
/// x′ = α′/α · r · x + α′ (1 − r) · D + α′ (l′ − l + φ(l′) S₀) · D₁ + α′ ((l′ − l)²/2 + φ(l′) S₁) · D₂
/// + α′ √(l′² − l² r²) · noise, where S₀ and S₁ are the integrals of 1/φ and (u − l)/φ from l′ to l, as sums of 200
/// terms. The first step has no differences, the second none of second order, and the last gives D. From pure noise,
/// where l is infinite, r is 0, and differences over such a step are 0.
///
/// History: D and D₁.
struct ERSDESampler: Sampler {
  private static let integrationPoints = 200

  let levels: [NoiseLevel]
  let noise: StepNoise

  func step(_ step: Int, from state: SamplerState, _ velocity: (Tensor, Int) -> Tensor) -> SampledStep {
    let (from, to) = (levels[step], levels[step + 1]), x = state.latents
    let denoised = denoised(x, velocity(x, step), from)
    let slope = slope(step, denoised, state.history)
    let history = [denoised] + (slope.map { [$0] } ?? [])
    return SampledStep(state: SamplerState(latents: next(), history: history)) { denoised }

    func next() -> Tensor {
      guard to.sigma > 0 else { return denoised }
      guard to.sigma < from.sigma else { return x }
      let (start, end) = (from.ratio, to.ratio)
      let shrink = start.isFinite ? Self.scale(end) / Self.scale(start) : 0
      let fresh = start.isFinite ? end * end - start * start * shrink * shrink : end * end
      var terms = [(weight: start.isFinite ? to.alpha / from.alpha * shrink : 0, tensor: x)]
      terms.append((to.alpha * (1 - shrink), denoised))
      if let slope, start.isFinite {
        let integrals = Self.integrals(from: start, to: end), length = end - start
        terms.append((to.alpha * (length + Self.scale(end) * integrals.plain), slope))
        if state.history.count > 1, let span = span(step, 2) {
          let curve = to.alpha * (length * length / 2 + Self.scale(end) * integrals.linear) * 2 / span
          terms += [(curve, slope), (-curve, state.history[1])]
        }
      }
      terms.append((to.alpha * max(fresh, 0).squareRoot(), noise(step, like: x)))
      return .weighted(terms)
    }
  }

  /// The difference of first order; nil: this is the first step.
  private func slope(_ step: Int, _ denoised: Tensor, _ history: [Tensor]) -> Tensor? {
    guard let previous = history.first else { return nil }
    guard let span = span(step, 1) else { return .zeros(denoised.shape) }
    return .weighted([(1 / span, denoised), (-1 / span, previous)])
  }

  /// How far l is from that of `count` steps before; nil: nothing, or infinitely far.
  private func span(_ step: Int, _ count: Int) -> Double? {
    guard step >= count else { return nil }
    let span = levels[step].ratio - levels[step - count].ratio
    return span.isFinite && span != 0 ? span : nil
  }

  private static func scale(_ ratio: Double) -> Double {
    ratio * (PortableMath.exp(PortableMath.pow(ratio, 0.3)) + 10)
  }

  private static func integrals(from start: Double, to end: Double) -> (plain: Double, linear: Double) {
    let width = (start - end) / Double(integrationPoints)
    var (plain, linear) = (0.0, 0.0)
    for index in 0..<integrationPoints {
      let place = end + Double(index) * width, scale = scale(place)
      plain += 1 / scale
      linear += (place - start) / scale
    }
    return (plain * width, linear * width)
  }
}

extension NoiseLevel {
  /// σ/α: infinite at pure noise.
  fileprivate var ratio: Double { sigma >= 1 ? .infinity : sigma / alpha }
}
