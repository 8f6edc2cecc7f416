import Kernels
import TensorCore

/// How a component's files hold the weight of a linear layer that another program has quantised.
public struct StoredQuantisation: Sendable, Equatable, CustomStringConvertible {
  /// The precision that a layer has which takes the weight as it is.
  public let precision: Precision
  /// Inputs that are rotated together, ``Kernels/Linear/rotation``.
  public let rotation: Int
  /// The stored name of the tensor with the scales of its rows.
  let scales: String

  /// As metadata of packed weights have it: `int8/256`.
  public var description: String { precision.rawValue + (rotation == 1 ? "" : "/\(rotation)") }
}

/// The weight [out, in] of a linear layer as a component's files hold it.
public enum StoredWeight: Sendable {
  /// Numbers of a floating-point type.
  case plain(Tensor)
  /// Quantised by another program; see ``StoredQuantisation``.
  case int8(Int8Weight)

  /// The precision that a layer has which takes the weight as it is, without quantising it again; nil: plain numbers.
  public var precision: Precision? {
    switch self {
    case .plain: nil
    case .int8: .int8
    }
  }

  /// The weight in floating-point numbers; fp32 if it is quantised.
  package func values(_ compute: Compute) -> Tensor {
    switch self {
    case .plain(let tensor): tensor
    case .int8(let weight): compute.values(of: weight)
    }
  }
}

extension ComponentWeights {
  /// The weight of a linear layer, plain or quantised by another program, as a view into the mapped file.
  ///
  /// - Parameter shape: [out, in].
  /// - Throws: what ``tensor(_:_:)`` throws, and ``WeightsError/malformedEntry(file:tensor:reason:)`` for scales that
  ///   cannot be meant.
  public func linearWeight(_ name: String, _ shape: Shape) throws(WeightsError) -> StoredWeight {
    guard let quantisation = quantisation(of: name) else { return .plain(try tensor(name, shape)) }
    let (file, numbers, rows) = try stored(name, shape, [.int8])
    let all = try file.tensor(quantisation.scales).floats()
    let scales = all.count == 1 ? Array(repeating: all[0], count: shape[0]) : Array(all[rows])
    if let row = scales.firstIndex(where: { !$0.isFinite || $0 < 0 }) {
      throw .malformedEntry(
        file: file.path, tensor: quantisation.scales,
        reason: "is \(scales[row]) in row \(all.count == 1 ? 0 : rows.lowerBound + row); scales are finite and not "
          + "negative, so the file is damaged; download it again")
    }
    return .int8(
      Int8Weight(numbers: numbers, scales: Tensor(scales, shape: [shape[0]]), rotation: quantisation.rotation))
  }
}

extension Compute {
  /// As ``prepareLinear(_:weight:bias:precision:rotates:limits:)``; a weight that is stored at `precision` is taken as
  /// it is, and its report has no error.
  package func prepareLinear(
    _ name: String, stored weight: StoredWeight, bias: Tensor? = nil, precision: Precision, rotates: Bool,
    limits: PrecisionLimits = .standard
  ) -> (layer: Linear, report: PackedLayerReport) {
    if case .int8(let weight) = weight, precision == .int8, weight.numbers.shape[1] <= Self.int8InputsMax {
      let report = PackedLayerReport(
        name: name, shape: weight.numbers.shape.dimensions, asked: precision.rawValue, kept: precision.rawValue,
        relativeError: nil)
      return (prepareLinear(weight, bias: bias), report)
    }
    return prepareLinear(
      name, weight: weight.values(self), bias: bias, precision: precision, rotates: rotates, limits: limits)
  }
}
