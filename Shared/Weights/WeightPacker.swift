import Kernels
import TensorCore

/// Where a packer finds the tensors of a component.
public protocol WeightSource: Sendable {
  /// The element type of a tensor.
  func dtype(of name: String, _ shape: Shape) throws(WeightsError) -> DType
  /// Some rows of the outermost dimension of a tensor, which must have `shape`.
  func rows(_ range: Range<Int>, of name: String, _ shape: Shape) throws(WeightsError) -> Tensor
  /// The weight of a linear layer, which must have `shape`.
  func linearWeight(_ name: String, _ shape: Shape) throws(WeightsError) -> StoredWeight
  /// The tensor will not be needed for a while.
  func releasePages(of name: String)
}

extension WeightSource {
  /// The weight in plain numbers.
  public func linearWeight(_ name: String, _ shape: Shape) throws(WeightsError) -> StoredWeight {
    .plain(try rows(0..<shape[0], of: name, shape))
  }
}

extension ComponentWeights: WeightSource {
  /// The element type that the tensor is stored in; fp32 for what is stored in blocks.
  public func dtype(of name: String, _ shape: Shape) throws(WeightsError) -> DType {
    try numbers(name, shape).valueDType
  }

  /// A view into the mapped file, or what it holds in blocks, expanded.
  public func rows(_ range: Range<Int>, of name: String, _ shape: Shape) throws(WeightsError) -> Tensor {
    guard shape.rank > 0 else { return try tensor(name, shape) }
    let weight = try numbers(name, shape)
    guard let values = weight.rows(range).plainValues() else { return try tensor(name, shape).rows(range) }
    return values.dtype == weight.valueDType ? values : Tensor(values.floats(), shape: values.shape)
  }
}

/// What is to become of one tensor.
public struct PlannedTensor: Sendable, Equatable {
  /// How a tensor is written.
  public enum Treatment: Sendable, Equatable {
    /// Written as it is.
    case copied
    /// Packed at a precision, unless that loses more than ``PrecisionLimits`` allow; with inputs rotated or not.
    case packed(Precision, rotates: Bool)
  }

  /// The tensor's name.
  public let name: String
  /// Its extents.
  public let shape: Shape
  /// How it is written.
  public let treatment: Treatment

  /// See the properties.
  public init(_ name: String, _ shape: Shape, _ treatment: Treatment) {
    self.name = name
    self.shape = shape
    self.treatment = treatment
  }
}

/// The greatest relative error ‖W′ − W‖ / ‖W‖ that quantising a layer's weight may bring; layers that lose more stay in
/// bf16.
public struct PrecisionLimits: Sendable, Equatable {
  /// For 8-bit weights with one scale per output channel. Normally distributed weights lose 0.7 %; more than twice that
  /// means rows whose largest weight is far from the others, which leaves these few levels.
  public var int8: Double
  /// For 4-bit weights in groups of 16. Normally distributed weights lose 6.6 %.
  public var q4: Double

  /// The limits in use.
  public static let standard = PrecisionLimits(int8: 0.02, q4: 0.12)

  /// See the properties.
  public init(int8: Double, q4: Double) {
    self.int8 = int8
    self.q4 = q4
  }

  func limit(_ precision: Precision) -> Double {
    switch precision {
    case .fp32, .bf16: .infinity
    case .int8: int8
    case .q4: q4
    }
  }
}

/// How a layer came out.
public struct PackedLayerReport: Sendable, Equatable, Codable {
  /// The weight's name.
  public let name: String
  /// Its extents, [out, in].
  public let shape: [Int]
  /// The precision it was to get.
  public let asked: String
  /// The precision it got.
  public let kept: String
  /// ‖W′ − W‖ / ‖W‖ at the precision asked for; nil where that is no quantisation.
  public let relativeError: Double?
  /// Bytes it takes now.
  public var byteCount = 0
}

extension Compute {
  /// Most inputs of a layer in int8 and q4.
  static let int8InputsMax = 1 << 16

  /// Packs a weight at `precision`, or in bf16 where that would lose more than `limits` allow. Layers are packed here
  /// both when a model is loaded and for files, so that both get the same bytes.
  package func prepareLinear(
    _ name: String, weight: Tensor, bias: Tensor? = nil, precision: Precision, rotates: Bool,
    limits: PrecisionLimits = .standard
  ) -> (layer: Linear, report: PackedLayerReport) {
    func report(_ kept: Precision, _ error: Double?) -> PackedLayerReport {
      PackedLayerReport(
        name: name, shape: weight.shape.dimensions, asked: precision.rawValue, kept: kept.rawValue, relativeError: error
      )
    }
    // Sums of more products of 8-bit numbers may not fit into 32 bits.
    if [.int8, .q4].contains(precision), weight.shape[1] > Self.int8InputsMax {
      return (prepareLinear(weight: weight, bias: bias, precision: .bf16), report(.bf16, nil))
    }
    let layer = prepareLinear(weight: weight, bias: bias, precision: precision, rotates: rotates)
    guard precision == .int8 || precision == .q4 else { return (layer, report(precision, nil)) }
    let error = relativeError(of: layer, from: weight)
    // NaN is not within any limit.
    if error <= limits.limit(precision) { return (layer, report(precision, error)) }
    return (prepareLinear(weight: weight, bias: bias, precision: .bf16), report(.bf16, error))
  }
}

/// Streams a component from a source to files, packing layers on the way. One tensor is in memory at a time, or a piece
/// of one that is only copied.
public struct WeightPacker: Sendable {
  /// Does the arithmetic; its own precision does not matter.
  public let compute: Compute
  /// Which layers stay in bf16.
  public let limits: PrecisionLimits
  /// What becomes of a layer that a limit keeps in bf16: packed in bf16, or written as published unless that is
  /// quantised.
  public let packsKeptLayers: Bool

  private static let pieceBytes = 32 << 20

  /// See the properties.
  public init(compute: Compute, limits: PrecisionLimits = .standard, packsKeptLayers: Bool = false) {
    self.compute = compute
    self.limits = limits
    self.packsKeptLayers = packsKeptLayers
  }

  /// Writes `plan` in its order.
  ///
  /// - Parameter progress: called with the number of values read so far; it may throw to stop.
  /// - Returns: a report per layer that was to be packed.
  /// - Throws: `WeightsError`, or what `progress` throws.
  public func write(
    _ plan: [PlannedTensor], from source: some WeightSource, to writer: ShardedWriter, progress: (Int) throws -> Void
  ) throws -> [PackedLayerReport] {
    var reports: [PackedLayerReport] = []
    var done = 0
    for tensor in plan {
      switch tensor.treatment {
      case .copied: try copy(tensor, from: source, to: writer)
      case .packed(let precision, let rotates):
        reports.append(try pack(tensor, precision, rotates: rotates, from: source, to: writer))
      }
      done += tensor.shape.elementCount
      try progress(done)
    }
    return reports
  }

  private func pack(
    _ tensor: PlannedTensor, _ precision: Precision, rotates: Bool, from source: some WeightSource,
    to writer: ShardedWriter
  ) throws(WeightsError) -> PackedLayerReport {
    defer { source.releasePages(of: tensor.name) }
    let stored = try source.linearWeight(tensor.name, tensor.shape)
    var (layer, report) = compute.prepareLinear(
      tensor.name, stored: stored, precision: precision, rotates: rotates, limits: limits)
    if layer.precision != precision, !packsKeptLayers, case .plain(let weight) = stored {
      try writer.append(tensor.name, weight)
      report.byteCount = weight.byteCount
    } else {
      report.byteCount = try writer.append(weight: tensor.name, of: layer)
    }
    return report
  }

  private func copy(_ tensor: PlannedTensor, from source: some WeightSource, to writer: ShardedWriter)
    throws(WeightsError)
  {
    let dtype = try source.dtype(of: tensor.name, tensor.shape), rows = tensor.shape.dimensions.first ?? 1
    let rowBytes = max(tensor.shape.elementCount / max(rows, 1) * dtype.byteWidth, 1)
    try writer.append(tensor.name, tensor.shape, dtype, rowsAtATime: max(1, Self.pieceBytes / rowBytes)) {
      range throws(WeightsError) in
      defer { source.releasePages(of: tensor.name) }
      return try source.rows(range, of: tensor.name, tensor.shape)
    }
  }
}
