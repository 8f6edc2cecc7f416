import Foundation
import Weights

/// `scheduler/scheduler_config.json`: the noise schedule (diffusers `FlowMatchEulerDiscreteScheduler`).
public struct SchedulerConfiguration: Sendable, Equatable, Codable {
  /// How a shift `mu` bends the schedule.
  public enum TimeShiftType: String, Sendable, Codable, CaseIterable {
    case exponential
    case linear
  }

  /// How the shift follows from the image size.
  public enum ShiftRule: Sendable {
    /// On the line through (``baseImageSeqLen``, ``baseShift``) and (``maxImageSeqLen``, ``maxShift``).
    case line
    /// The square root of the number of tokens of one image over 256, those of 256×256 pixels (Qwen-Image-Layered).
    case squareRoot
  }

  /// Image tokens at which the shift is ``baseShift``.
  public var baseImageSeqLen: Int
  /// Image tokens at which the shift is ``maxShift``; above ``baseImageSeqLen``.
  public var maxImageSeqLen: Int
  /// Shift `mu` at ``baseImageSeqLen`` tokens.
  public var baseShift: Double
  /// Shift `mu` at ``maxImageSeqLen`` tokens.
  public var maxShift: Double
  /// Constant shift, used when ``useDynamicShifting`` is off.
  public var shift: Double
  /// The last noise level before 0, to which the schedule is stretched; nil leaves it as it comes.
  public var shiftTerminal: Double?
  /// Factor between noise level and timestep.
  public var numTrainTimesteps: Int
  /// How the dynamic shift is applied.
  public var timeShiftType: TimeShiftType
  /// Whether the shift depends on the image size.
  public var useDynamicShifting: Bool
  /// How the dynamic shift follows from the image size. No file says it: the family does.
  public var shiftRule = ShiftRule.line
  /// Noise levels before the shift that take the place of evenly spaced ones, and fix the number of steps: those that a
  /// distilled model was trained for. `model_index.json` has them; nil: the levels are evenly spaced.
  public var sampleSigmas: [Double]?

  /// The constant shift `mu` that Lightning distillations were trained with; nil: the model's own. No file says it: the
  /// family does.
  public var lightningShift: Double? = Self.publishedLightningShift

  /// ln 3, in the distillations of Qwen-Image.
  static let publishedLightningShift = 1.0986122886681098

  /// What a file says: the fields of the fingerprint.
  private enum CodingKeys: CodingKey {
    case baseImageSeqLen, maxImageSeqLen, baseShift, maxShift, shift, shiftTerminal, numTrainTimesteps, timeShiftType
    case useDynamicShifting, sampleSigmas
  }

  /// The values published with Qwen-Image.
  public static let published = SchedulerConfiguration(
    baseImageSeqLen: 256, maxImageSeqLen: 8192, baseShift: 0.5, maxShift: 0.9, shift: 1, shiftTerminal: 0.02,
    numTrainTimesteps: 1000,
    timeShiftType: .exponential, useDynamicShifting: true)

  /// This schedule as the 4- and 8-step Lightning distillations are sampled: with ``lightningShift``, evenly spaced,
  /// and without a terminal stretch.
  public var lightning: SchedulerConfiguration {
    var configuration = self
    if let shift = lightningShift {
      (configuration.baseShift, configuration.maxShift) = (shift, shift)
      (configuration.shiftRule, configuration.useDynamicShifting) = (.line, true)
    }
    (configuration.shiftTerminal, configuration.sampleSigmas) = (nil, nil)
    return configuration
  }

  /// Reads the configuration.
  public init(contentsOf url: URL) throws(ConfigurationError) {
    let fields = try ConfigurationFields(contentsOf: url)
    try fields.require("_class_name", oneOf: ["FlowMatchEulerDiscreteScheduler"])
    for flag in [
      "invert_sigmas", "stochastic_sampling", "use_beta_sigmas", "use_exponential_sigmas", "use_karras_sigmas",
    ] {
      try fields.requireOff(flag)
    }
    baseImageSeqLen = try fields.integer("base_image_seq_len", in: 1...16_777_216, default: 256)
    maxImageSeqLen = try fields.integer("max_image_seq_len", in: 1...16_777_216, default: 4096)
    guard maxImageSeqLen > baseImageSeqLen else {
      throw fields.outOfRange("max_image_seq_len", maxImageSeqLen, "above base_image_seq_len \(baseImageSeqLen)")
    }
    // exp(mu) must stay finite.
    baseShift = try fields.number("base_shift", in: -20...20, default: 0.5)
    maxShift = try fields.number("max_shift", in: -20...20, default: 1.15)
    shift = try fields.number("shift", in: 1e-6...1e6, default: 1)
    numTrainTimesteps = try fields.integer("num_train_timesteps", in: 1...1_000_000, default: 1000)
    useDynamicShifting = try fields.boolean("use_dynamic_shifting", default: false)
    shiftTerminal = try Self.shiftTerminal(fields)
    try fields.require("time_shift_type", oneOf: TimeShiftType.allCases.map(\.rawValue))
    timeShiftType =
      TimeShiftType(rawValue: try fields.string("time_shift_type", default: "exponential")) ?? .exponential
  }

  /// The reference switches the stretch off for anything that Python holds for false: null, false and 0.
  private static func shiftTerminal(_ fields: ConfigurationFields) throws(ConfigurationError) -> Double? {
    switch fields.value("shift_terminal") {
    case nil, .bool(false): return nil
    default:
      let terminal = try fields.number("shift_terminal", in: 0...0.999)
      return terminal == 0 ? nil : terminal
    }
  }

  init(
    baseImageSeqLen: Int, maxImageSeqLen: Int, baseShift: Double, maxShift: Double, shift: Double,
    shiftTerminal: Double?,
    numTrainTimesteps: Int, timeShiftType: TimeShiftType, useDynamicShifting: Bool
  ) {
    self.baseImageSeqLen = baseImageSeqLen
    self.maxImageSeqLen = maxImageSeqLen
    self.baseShift = baseShift
    self.maxShift = maxShift
    self.shift = shift
    self.shiftTerminal = shiftTerminal
    self.numTrainTimesteps = numTrainTimesteps
    self.timeShiftType = timeShiftType
    self.useDynamicShifting = useDynamicShifting
  }
}
