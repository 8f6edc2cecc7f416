import Kernels
import Weights

/// The compute mode that a user asks for.
public enum PrecisionChoice: String, Sendable, CaseIterable {
  /// What the component is packed for, or holds quantised; where it is neither, ``precisionOfPlainWeights(on:)``.
  case auto
  case fp32
  case bf16
  case int8
  case q4

  /// The mode of ``auto`` for weights in plain numbers: bf16; but int8 on a processor that has instructions for
  /// products of 8-bit numbers and none for bf16, where bf16 takes three to four times as long.
  public static func precisionOfPlainWeights(on set: InstructionSet) -> Precision {
    set.multipliesInt8 && !set.multipliesBF16 ? .int8 : .bf16
  }

  /// The mode for a component.
  ///
  /// - Throws: `WeightsError.packedForAnotherMode` when the component is quantised to another one.
  public func precision(for weights: ComponentWeights) throws(WeightsError) -> Precision {
    guard let asked = Precision(rawValue: rawValue) else {
      return weights.packedPrecision ?? weights.storedPrecision ?? Self.precisionOfPlainWeights(on: .best)
    }
    guard let packed = weights.packedPrecision, packed != asked else { return asked }
    throw .packedForAnotherMode(component: weights.directory, packed: packed.rawValue, asked: rawValue)
  }
}
