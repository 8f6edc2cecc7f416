import Foundation
import TensorCore

/// Why no noise schedule can be made.
public enum ScheduleError: Error, Equatable, Sendable, CustomStringConvertible {
  /// Too few or too many steps.
  case stepsOutOfRange(steps: Int, limit: ClosedRange<Int>)
  /// The noise levels that were given, or that the model was trained for, are of another number of steps.
  case stepsOfLevels(steps: Int, levels: Int)
  /// A noise level that was given is not above 0 and at most 1, or is above the one before it.
  case levelOutOfRange(index: Int, level: Double)
  /// The image has no tokens.
  case noImageTokens(imageTokens: Int)
  /// The configuration's shift leaves no usable noise levels for this number of steps and tokens.
  case unusableShift(mu: Double, steps: Int)

  /// The message for users and logs.
  public var description: String {
    switch self {
    case .stepsOutOfRange(let steps, let limit): "\(steps) steps, must be in \(limit)"
    case .stepsOfLevels(let steps, let levels): "\(steps) steps, but there are \(levels) noise levels"
    case .levelOutOfRange(let index, let level):
      "noise level \(index) is \(level), must be above 0, at most 1, and not above the one before it"
    case .noImageTokens(let imageTokens): "an image of \(imageTokens) tokens"
    case .unusableShift(let mu, let steps): "a schedule shift of \(mu) gives no falling noise levels for \(steps) steps"
    }
  }
}

/// The noise levels of a sampling run (diffusers `FlowMatchEulerDiscreteScheduler`, and `calculate_shift` of its
/// pipeline).
///
/// `n` levels fall evenly from 1 to 1/n, are bent by a shift that grows with the image, and are stretched so that the
/// last one before 0 is the configured terminal level. Levels may also be given, by the caller or the model's
/// ``SchedulerConfiguration/sampleSigmas``; they are bent and stretched alike. All arithmetic is in fp32 in the
/// reference's order, so that levels agree to the bit.
///
/// **One step with a terminal level** has no reference: its stretch divides 0 by 0. A single level cannot be both 1
/// (latents start as pure noise) and the terminal level; the model must get the true level of the start,
/// so the stretch is skipped and the level is 1, as it is for schedules without a terminal level.
public struct FlowMatchSchedule: Sendable, Equatable {
  /// Noise level before each step, and 0 after the last: `steps + 1` values, falling from 1 to 0.
  public let sigmas: [Float]
  /// The noise levels of the steps in the unit of training timesteps (0…1000): `steps` values.
  public let timesteps: [Float]

  /// Number of steps.
  public var steps: Int { timesteps.count }

  /// The step counts allowed.
  public static let stepLimit = 1...1000

  /// The schedule for an output image of `imageTokens` tokens (condition images do not count).
  ///
  /// - Parameter given: noise levels before the shift, one for each step; nil: the model's.
  public init(
    configuration: SchedulerConfiguration, steps: Int, imageTokens: Int, levels given: [Double]? = nil
  ) throws(ScheduleError) {
    guard imageTokens > 0 else { throw .noImageTokens(imageTokens: imageTokens) }
    try self.init(
      configuration: configuration, steps: steps,
      mu: Self.shift(configuration: configuration, imageTokens: imageTokens), levels: given)
  }

  /// The schedule for a given shift `mu`, which is ignored unless the configuration shifts dynamically.
  public init(
    configuration: SchedulerConfiguration, steps: Int, mu: Double, levels given: [Double]? = nil
  ) throws(ScheduleError) {
    guard Self.stepLimit.contains(steps) else { throw .stepsOutOfRange(steps: steps, limit: Self.stepLimit) }
    let even: [Float]
    if let levels = given ?? configuration.sampleSigmas {
      even = try Self.checked(levels, steps: steps)
    } else {
      even = Self.evenLevels(count: steps, configuration.shiftRule)
    }
    var levels: [Float]
    if configuration.useDynamicShifting {
      let bend = Float(configuration.timeShiftType == .exponential ? exp(mu) : mu)
      levels = even.map { bend / (bend + (1 / $0 - 1)) }
    } else {
      let shift = Float(configuration.shift)
      let excess = Float(configuration.shift - 1)
      levels = even.map { shift * $0 / (1 + excess * $0) }
    }
    if let terminal = configuration.shiftTerminal, steps > 1 {
      let scale = (1 - levels[steps - 1]) / Float(1 - terminal)
      levels = levels.map { 1 - (1 - $0) / scale }
    }
    guard levels.allSatisfy({ $0 > 0 && $0 <= 1 }), zip(levels, levels.dropFirst()).allSatisfy({ $0 >= $1 }) else {
      throw .unusableShift(mu: mu, steps: steps)
    }
    sigmas = levels + [0]
    timesteps = levels.map { $0 * Float(configuration.numTrainTimesteps) }
  }

  /// The shift for an image of `imageTokens` tokens.
  public static func shift(configuration: SchedulerConfiguration, imageTokens: Int) -> Double {
    switch configuration.shiftRule {
    case .line:
      let slope =
        (configuration.maxShift - configuration.baseShift)
        / Double(configuration.maxImageSeqLen - configuration.baseImageSeqLen)
      let intercept = configuration.baseShift - slope * Double(configuration.baseImageSeqLen)
      return Double(imageTokens) * slope + intercept
    case .squareRoot: return (Double(imageTokens) / 256).squareRoot()
    }
  }

  /// Levels that were given for `steps` steps.
  private static func checked(_ levels: [Double], steps: Int) throws(ScheduleError) -> [Float] {
    guard levels.count == steps else { throw .stepsOfLevels(steps: steps, levels: levels.count) }
    for (index, level) in levels.enumerated() {
      let highest = index == 0 ? 1 : levels[index - 1]
      guard Float(level) > 0, level <= highest else { throw .levelOutOfRange(index: index, level: level) }
    }
    return levels.map { Float($0) }
  }

  /// `count` levels from 1 to 1/count, as numpy's `linspace` computes them (in double): between these two, or between 1
  /// and 0 without the last.
  private static func evenLevels(count: Int, _ rule: SchedulerConfiguration.ShiftRule) -> [Float] {
    guard count > 1 else { return [1] }
    switch rule {
    case .line:
      let last = 1 / Double(count)
      let step = (last - 1) / Double(count - 1)
      return (0..<(count - 1)).map { Float(Double($0) * step + 1) } + [Float(last)]
    case .squareRoot:
      let step = -1 / Double(count)
      return (0..<count).map { Float(Double($0) * step + 1) }
    }
  }

  // MARK: - Beginning with an image

  /// The latents before step `step` of an image's `latents`: `sigma · noise + (1 − sigma) · latents`.
  ///
  /// Both tensors are fp32 and of one shape, which the result has too.
  public func noised(_ latents: Tensor, with noise: Tensor, before step: Int) -> Tensor {
    precondition(
      latents.dtype == .fp32 && noise.dtype == .fp32 && latents.shape == noise.shape,
      "\(latents.shape) and \(noise.shape)")
    let sigma = sigmas[step]
    var result = MutableTensor(uninitialized: latents.shape)
    latents.withElements(as: Float.self) { x in
      noise.withElements(as: Float.self) { e in
        result.withElements(as: Float.self) { y in for i in x.indices { y[i] = Self.noised(x[i], e[i], to: sigma) } }
      }
    }
    return result.finish()
  }

  static func noised(_ latent: Float, _ noise: Float, to sigma: Float) -> Float {
    sigma * noise + (1 - sigma) * latent
  }

  // MARK: - Steps

  /// One Euler step from noise level `from` to noise level `to`: `latents + (to - from) · velocity`.
  ///
  /// Both tensors are fp32 and of one shape, which the result has too.
  public static func step(latents: Tensor, velocity: Tensor, from: Float, to: Float) -> Tensor {
    precondition(
      latents.dtype == .fp32 && velocity.dtype == .fp32 && latents.shape == velocity.shape,
      "\(latents.shape) and \(velocity.shape)")
    let delta = to - from
    var result = MutableTensor(uninitialized: latents.shape)
    latents.withElements(as: Float.self) { x in
      velocity.withElements(as: Float.self) { v in
        result.withElements(as: Float.self) { y in for i in x.indices { y[i] = x[i] + delta * v[i] } }
      }
    }
    return result.finish()
  }
}
