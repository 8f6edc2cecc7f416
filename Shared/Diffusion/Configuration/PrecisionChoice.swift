import Kernels
import Weights

/// The compute mode that a user asks for.
public enum PrecisionChoice: String, Sendable, CaseIterable {
  /// What the component is packed for, or holds quantised; bf16 where it is neither.
  case auto
  case fp32
  case bf16
  case int8
  case q4

  /// The mode for a component.
  ///
  /// - Throws: `WeightsError.packedForAnotherMode` when the component is quantised to another one.
  public func precision(for weights: ComponentWeights) throws(WeightsError) -> Precision {
    guard let asked = Precision(rawValue: rawValue) else {
      return weights.packedPrecision ?? weights.storedPrecision ?? .bf16
    }
    guard let packed = weights.packedPrecision, packed != asked else { return asked }
    throw .packedForAnotherMode(component: weights.directory, packed: packed.rawValue, asked: rawValue)
  }
}
