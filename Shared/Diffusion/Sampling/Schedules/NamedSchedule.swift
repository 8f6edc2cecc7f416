import ClusterCore

extension ScheduleName {
  /// Levels that models are trained on, in ComfyUI's meaning of the names.
  private static let trainingLevels = 1000

  /// Noise levels of `steps` steps before the shift, falling from 1.
  ///
  /// ComfyUI takes them from a table of shifted levels; here the shift comes afterwards, which is the same but for
  /// ``sgmUniform``: its last level, which is left out, is there the shifted lowest one.
  ///
  /// - Parameter steps: from 1 to 1000.
  public func levels(steps: Int) -> [Double] {
    let count = Double(steps), grid = Self.trainingLevels
    switch self {
    case .linear, .lightning: return (0..<steps).map { 1 - Double($0) / count }
    case .simple:
      let spacing = Double(grid) / count
      return (0..<steps).map { Double(grid - Int(Double($0) * spacing)) / Double(grid) }
    case .sgmUniform:
      let lowest = 1 / Double(grid)
      return (0..<steps).map { 1 - (1 - lowest) * Double($0) / count }
    case .beta:
      let quantiles = (0..<steps).map { BetaDistribution.quantile(1 - Double($0) / count) }
      let places = quantiles.map { ($0 * Double(grid - 1)).rounded(.toNearestOrEven) }
      // ComfyUI makes fewer steps where two fall on one level of the grid; here a request has as many as it asks for.
      guard Set(places).count == steps else { return quantiles }
      return places.map { ($0 + 1) / Double(grid) }
    }
  }
}

extension SamplingChoice {
  /// The levels of the schedule that is asked for by name; nil: they are those of the configuration, or there is no
  /// such number of steps.
  package func levels(steps: Int) -> [Double]? {
    guard FlowMatchSchedule.stepLimit.contains(steps), schedule != .lightning else { return nil }
    return schedule?.levels(steps: steps)
  }

  /// The configuration by which the schedule is made.
  package func configuration(_ model: SchedulerConfiguration) -> SchedulerConfiguration {
    schedule == .lightning ? model.lightning : model
  }

  /// Checks what does not fit together.
  ///
  /// - Throws: ``PipelineError/invalidRequest(field:reason:)``.
  func check(steps: Int, hasLevels: Bool) throws(PipelineError) {
    if let schedule, hasLevels {
      throw .invalidRequest(field: "schedule", reason: "is \(schedule.rawValue), beside sigmas: give one of them")
    }
    if let cfgSteps, !(0...max(steps, 0)).contains(cfgSteps) {
      throw .invalidRequest(field: "cfg_steps", reason: "is \(cfgSteps); it must be between 0 and \(steps), the steps")
    }
  }
}
