/// The symmetric beta distribution with both parameters 0.6, which the schedule `beta` takes its noise levels from
/// (arXiv 2407.12173).
package enum BetaDistribution {
  private static let shape = 0.6
  /// B(0.6, 0.6) = Γ(0.6)² / Γ(1.2).
  private static let normalisation = 2.4153442080024714

  /// The probability of a number up to `x`, from 0 to 1: the regularised incomplete beta function I_x(0.6, 0.6).
  package static func cumulative(_ x: Double) -> Double {
    if x > 0.5 { return 1 - cumulative(1 - x) }
    guard x > 0 else { return 0 }
    return PortableMath.pow(x, shape) / normalisation * series(x)
  }

  /// Σ (1 − b)ₙ xⁿ / (n! (a + n)), all of whose terms are positive and at most half as large as the one before
  /// (DLMF 8.17.7).
  private static func series(_ x: Double) -> Double {
    var (sum, factor) = (1 / shape, 1.0)
    for n in 1...60 {
      factor *= (Double(n) - shape) / Double(n) * x
      sum += factor / (shape + Double(n))
    }
    return sum
  }

  /// The number up to which there is the probability `p`, from 0 to 1.
  package static func quantile(_ p: Double) -> Double {
    if p > 0.5 { return 1 - quantile(1 - p) }
    // By symmetry; a rounding error here would decide which level of a grid is the middle one.
    if p == 0.5 { return 0.5 }
    guard p > 0 else { return 0 }
    // The first term of the series alone is below the probability, so its root is above the quantile.
    var x = min(PortableMath.pow(p * shape * normalisation, 1 / shape), 0.5)
    // Newton's method: the function is concave up to 1/2, so that all iterates but the first are below the root.
    for _ in 0..<20 {
      let density = PortableMath.pow(x * (1 - x), shape - 1) / normalisation
      let next = max(x + (p - cumulative(x)) / density, x / 2)
      guard abs(next - x) > 1e-16 * x else { break }
      x = next
    }
    return min(x, 0.5)
  }
}
