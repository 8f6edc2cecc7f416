import ClusterCore

/// How long work takes, from what was measured: a moving average of seconds per unit of cost for each stage.
struct PaceEstimator: Hashable, Sendable {
  /// Weight of the newest measurement.
  private static let gain = 0.25
  private var secondsPerCost: [StageName: Double] = [:]

  mutating func record(_ stage: StageName, cost: Double, seconds: Double) {
    secondsPerCost[stage] = Self.average(secondsPerCost[stage], cost: cost, seconds: seconds)
  }

  /// The moving average of seconds per unit of cost after one more measurement.
  static func average(_ old: Double?, cost: Double, seconds: Double) -> Double? {
    guard cost > 0, seconds.isFinite, seconds >= 0 else { return old }
    let measured = seconds / cost
    return old.map { $0 + gain * (measured - $0) } ?? measured
  }

  /// nil when the stage was never measured.
  func seconds(_ stage: StageName, cost: Double) -> Double? {
    secondsPerCost[stage].map { $0 * cost }
  }
}

/// Seconds per unit of cost for which tasks hold a worker, from the last few: the middle one, so that a first task that
/// is slow because the worker is new, or one that something has delayed, does not count for long.
struct PaceWindow: Hashable, Sendable {
  private static let maxCount = 5
  /// The oldest first.
  private var values: [Double] = []

  mutating func record(cost: Double, seconds: Double) {
    guard cost > 0, seconds.isFinite, seconds >= 0 else { return }
    if values.count == Self.maxCount { values.removeFirst() }
    values.append(seconds / cost)
  }

  /// Of two in the middle the faster one; nil: nothing was measured.
  var typical: Double? { values.isEmpty ? nil : values.sorted()[(values.count - 1) / 2] }
}
