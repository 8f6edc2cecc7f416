import ClusterCore
import GatewayAPI
import StrictJSON

extension SamplingChoice {
  /// The fields of requests, which are the keys of ``ImageSpec/options`` too.
  enum Field: String, CaseIterable {
    case sampler
    case schedule
    case cfgSteps = "cfg_steps"
  }

  /// Reads the fields of a request.
  init(_ fields: inout FieldReader) throws(APIError) {
    let names = SamplerName.allCases.map(\.rawValue), schedules = ScheduleName.allCases.map(\.rawValue)
    self.init(
      sampler: try fields.choice(Field.sampler.rawValue, names).flatMap { SamplerName(rawValue: $0) } ?? .euler,
      schedule: try fields.choice(Field.schedule.rawValue, schedules).flatMap { ScheduleName(rawValue: $0) },
      cfgSteps: try fields.integer(Field.cfgSteps.rawValue, in: 0...100_000))
  }

  /// What ``options`` says; names that are not known stand for nothing.
  init(options: [String: JSON]) {
    self.init(
      sampler: options[Field.sampler.rawValue]?.text.flatMap { SamplerName(rawValue: $0) } ?? .euler,
      schedule: options[Field.schedule.rawValue]?.text.flatMap { ScheduleName(rawValue: $0) },
      cfgSteps: options[Field.cfgSteps.rawValue]?.integer.flatMap { (0...100_000).contains($0) ? $0 : nil })
  }

  /// Entries of ``ImageSpec/options``: what is not as in every request.
  var options: [String: JSON] {
    var options: [String: JSON] = [:]
    if sampler != .euler { options[Field.sampler.rawValue] = .string(sampler.rawValue) }
    options[Field.schedule.rawValue] = schedule.map { .string($0.rawValue) }
    options[Field.cfgSteps.rawValue] = cfgSteps.map { .number(JSONNumber(text: "\($0)")) }
    return options
  }

  /// Refuses what the model's denoisers do not serve, and what does not fit the request.
  func check(_ card: ModelCard, steps: Int, hasSigmas: Bool) throws(APIError) {
    guard card.samplers.contains(sampler) else {
      throw Self.unserved("sampler", sampler.rawValue, card, card.samplers.map(\.rawValue))
    }
    if let schedule, !card.schedules.contains(schedule) {
      throw Self.unserved("schedule", schedule.rawValue, card, card.schedules.map(\.rawValue))
    }
    guard schedule == nil || !hasSigmas else {
      throw APIError(
        .invalidValue, "schedule and sigmas both say which noise levels: give one of them", param: "schedule")
    }
    if let cfgSteps, cfgSteps > steps {
      throw APIError(
        .invalidValue, "cfg_steps is \(cfgSteps), but must be from 0 to \(steps), the steps", param: "cfg_steps")
    }
  }

  private static func unserved(_ field: String, _ name: String, _ card: ModelCard, _ served: [String]) -> APIError {
    let list = served.isEmpty ? "none" : served.map { "\"\($0)\"" }.joined(separator: ", ")
    return APIError(
      .unsupportedValue, "\(field) is \"\(name)\", but the denoisers of \(card.model.id) serve \(list)", param: field)
  }
}

extension ImageSpec {
  /// How the steps are taken.
  public var sampling: SamplingChoice { SamplingChoice(options: options) }

  /// Evaluations of the denoising network.
  ///
  /// - Parameter branches: those of a step with guidance.
  func evaluations(branches: Int) -> Int {
    sampling.evaluations(steps: steps, startStep: startStep, branches: branches)
  }

  /// Steps whose two predictions two workers can make: those with guidance, unless a step cache decides on one branch
  /// for both.
  func guidedStepCount(branches: Int) -> Int {
    guard branches > 1, cache?.method.isPlanned ?? true else { return 0 }
    return min(sampling.cfgSteps ?? stepCount, stepCount)
  }

  /// The shapes that checkpoints of the denoiser may have: the latents, and those that sampler and step cache need
  /// more.
  var checkpointShapes: [[Int]] {
    let histories = Set((0...stepCount).map { sampling.sampler.history(after: $0) })
    let counts = Set(histories.flatMap { history in (0...(cache?.historyMax ?? 0)).map { history + $0 } })
    return counts.sorted().map { $0 == 0 ? latentsShape : [$0 + 1] + latentsShape }
  }
}
