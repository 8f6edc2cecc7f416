/// How long work takes, from what was measured: a moving average of seconds per unit of cost for each stage.
struct PaceEstimator: Hashable, Sendable {
  /// Weight of the newest measurement.
  private static let gain = 0.25
  private var secondsPerCost: [Stage: Double] = [:]

  mutating func record(_ stage: Stage, cost: Double, seconds: Double) {
    guard cost > 0, seconds.isFinite, seconds >= 0 else { return }
    let measured = seconds / cost
    secondsPerCost[stage] = secondsPerCost[stage].map { $0 + Self.gain * (measured - $0) } ?? measured
  }

  /// nil when the stage was never measured.
  func seconds(_ stage: Stage, cost: Double) -> Double? {
    secondsPerCost[stage].map { $0 * cost }
  }
}
