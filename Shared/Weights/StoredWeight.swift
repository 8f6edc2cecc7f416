import Kernels
import TensorCore

/// A weight as a component's files hold it.
public enum StoredWeight: Sendable {
  /// Numbers of a floating-point type.
  case plain(Tensor)
  /// Quantised by another program; see ``StoredQuantisation``.
  case int8(Int8Weight)
  /// In blocks that are expanded before they are used.
  case encoded(EncodedTensor)
  /// Several weights, of which each has some of the rows.
  case stacked([StoredWeight])

  /// The precision that a layer has which takes the weight as it is, without quantising it again; nil: plain numbers,
  /// or what is expanded.
  public var precision: Precision? {
    switch self {
    case .int8: .int8
    case .encoded(let tensor): tensor.format == .int4 ? .int8 : nil
    case .plain, .stacked: nil
    }
  }

  /// The format of the blocks that hold it, of several parts the first quantised one's; nil: it is in none.
  public var blockFormat: BlockFormat? {
    switch self {
    case .plain, .int8: nil
    case .encoded(let tensor): tensor.format
    case .stacked(let parts):
      parts.first { if case .plain = $0 { false } else { true } }?.blockFormat
    }
  }

  /// The type of ``values(_:)``.
  var valueDType: DType {
    switch self {
    case .plain(let tensor): tensor.dtype
    case .int8, .encoded: .fp32
    case .stacked(let parts):
      parts.allSatisfy { $0.valueDType == parts[0].valueDType } ? parts[0].valueDType : .fp32
    }
  }

  /// The weight in floating-point numbers; fp32 if it is quantised.
  package func values(_ compute: Compute) -> Tensor {
    switch self {
    case .plain(let tensor): tensor
    case .int8(let weight): compute.values(of: weight)
    case .encoded(let tensor): compute.values(of: tensor)
    case .stacked(let parts):
      Tensor.stacking(
        parts.map {
          let values = $0.values(compute)
          return values.dtype == valueDType ? values : compute.converted(values, to: .fp32)
        })
    }
  }

  /// Whether these are numbers that any tensor may have; only weights of layers are quantised as integers.
  var hasPlainValues: Bool {
    switch self {
    case .plain: true
    case .int8: false
    case .encoded(let tensor): tensor.format != .int4
    case .stacked(let parts): parts.allSatisfy(\.hasPlainValues)
    }
  }

  /// The numbers, expanded on the calling thread; nil: there are none.
  func plainValues() -> Tensor? {
    guard hasPlainValues else { return nil }
    switch self {
    case .plain(let tensor): return tensor
    case .int8: return nil
    case .encoded(let tensor): return tensor.values()
    case .stacked(let parts):
      return Tensor.stacking(
        parts.compactMap { $0.plainValues() }.map {
          $0.dtype == valueDType ? $0 : Tensor($0.floats(), shape: $0.shape)
        })
    }
  }

  /// Some rows of the outermost dimension.
  func rows(_ range: Range<Int>) -> StoredWeight {
    switch self {
    case .plain(let tensor): return .plain(tensor.rows(range))
    case .int8: preconditionFailure("rows of a weight in 8 bits")
    case .encoded(let tensor): return .encoded(tensor.rows(range))
    case .stacked(let parts):
      var start = 0, found: [StoredWeight] = []
      for part in parts {
        let own = start..<start + part.rowCount, common = own.clamped(to: range)
        if !common.isEmpty { found.append(part.rows(common.lowerBound - start..<common.upperBound - start)) }
        start = own.upperBound
      }
      return .stacked(found)
    }
  }

  private var rowCount: Int {
    switch self {
    case .plain(let tensor): tensor.shape[0]
    case .int8(let weight): weight.numbers.shape[0]
    case .encoded(let tensor): tensor.shape[0]
    case .stacked(let parts): parts.reduce(0) { $0 + $1.rowCount }
    }
  }
}

extension ComponentWeights {
  /// The weight of a linear layer, or another tensor, as the files hold it: views into mapped files.
  ///
  /// - Parameter shape: [out, in] of a layer.
  /// - Throws: ``WeightsError/missingTensor(component:tensor:expected:)``,
  ///   ``WeightsError/misshapenTensor(file:tensor:expected:found:)``,
  ///   ``WeightsError/unsupportedDType(file:tensor:found:supported:)``, and
  ///   ``WeightsError/malformedEntry(file:tensor:reason:)`` for what is packed, and for scales that cannot be meant.
  public func linearWeight(_ name: String, _ shape: Shape) throws(WeightsError) -> StoredWeight {
    if isSynthetic { return .plain(SyntheticWeights.tensor(name, shape)) }
    if let layer = packed[name] {
      throw .malformedEntry(
        file: file(ofPacked: name), tensor: name,
        reason: "is packed as \(layer.description) where plain numbers are needed")
    }
    guard let location = locations[name] else { throw missing(name, shape) }
    guard let entry = entry(name) else {
      throw .malformedEntry(
        file: files[location.file].path, tensor: location.storedName,
        reason: "and the other parts of \"\(name)\" do not fit together")
    }
    let dividedRows = location.partCount == 1 ? entry.shape.dimensions.first : storedRows(location) / location.partCount
    guard entry.shape == shape, entry.shape.dimensions.first == dividedRows else {
      throw .misshapenTensor(
        file: files[location.file].path, tensor: location.storedName, expected: shape, found: entry.shape)
    }
    guard location.pieces.count > 1 else { return try weight(location, shape, quantisations[name]) }
    var parts: [StoredWeight] = []
    for piece in location.pieces {
      let entry = try files[piece.file].region.entry(piece.storedName)
      let format = BlockFormat(rawValue: entry.dtypeName).map { StoredQuantisation($0) }
      parts.append(try weight(TensorLocation(pieces: [piece]), entry.shape, format))
    }
    return location.axis == .rows ? .stacked(parts) : .plain(Self.joinedTaps(parts, shape))
  }

  private func storedRows(_ location: TensorLocation) -> Int {
    files[location.file].entries[location.storedName]?.shape.dimensions.first ?? 0
  }

  /// The tensor `name` in floating-point numbers: in its stored element type (fp32, bf16 or fp16), as a view into the
  /// mapped file; what is stored in blocks is expanded to fp32.
  ///
  /// - Throws: what ``linearWeight(_:_:)`` throws, and ``WeightsError/malformedEntry(file:tensor:reason:)`` for
  ///   quantised weights of layers.
  public func tensor(_ name: String, _ shape: Shape) throws(WeightsError) -> Tensor {
    guard let values = try numbers(name, shape).plainValues() else { throw quantised(name) }
    return values.shape == shape ? values : values.reshaped(shape)
  }

  /// Requires what ``tensor(_:_:)`` would read, and reads nothing.
  public func require(_ name: String, _ shape: Shape) throws(WeightsError) { _ = try numbers(name, shape) }

  /// A tensor that is no weight of a layer, as the files hold it.
  func numbers(_ name: String, _ shape: Shape) throws(WeightsError) -> StoredWeight {
    let weight = try linearWeight(name, shape)
    guard weight.hasPlainValues else { throw quantised(name) }
    return weight
  }

  private func quantised(_ name: String) -> WeightsError {
    let location = locations[name]
    return .malformedEntry(
      file: location.map { files[$0.file].path } ?? directory, tensor: location?.storedName ?? name,
      reason: "is quantised (\(quantisations[name]?.description ?? "")) where plain numbers are needed")
  }

  /// The weight of one stored tensor, or of a part of its rows.
  private func weight(
    _ location: TensorLocation, _ shape: Shape, _ quantisation: StoredQuantisation?
  ) throws(WeightsError) -> StoredWeight {
    let file = files[location.file], name = location.storedName, region = file.region
    let count = shape.rank == 0 ? 1 : shape[0], rows = location.part * count..<(location.part + 1) * count
    guard let quantisation else {
      let found = try region.entry(name)
      guard let dtype = found.dtype, Self.weightDTypes.contains(dtype) else {
        throw .unsupportedDType(
          file: file.path, tensor: name, found: found.dtypeName, supported: Self.weightDTypes.map(\.rawValue))
      }
      let tensor = try region.tensor(name)
      return .plain(location.partCount > 1 ? tensor.rows(rows) : tensor)
    }
    let all = count * location.partCount
    let scales = try quantisation.scales.map { name throws(WeightsError) in try self.scales(name, region) }
    guard let format = quantisation.format else {
      let numbers = try region.tensor(name), factors = scales?.floats() ?? [1]
      let own = factors.count == 1 ? Array(repeating: factors[0], count: count) : Array(factors[rows])
      return .int8(
        Int8Weight(
          numbers: location.partCount > 1 ? numbers.rows(rows) : numbers, scales: Tensor(own, shape: [count]),
          rotation: quantisation.rotation))
    }
    let whole = EncodedTensor(
      try region.bytes(of: name), format, shape: shape.rank == 0 ? [1] : Shape([all] + shape.dimensions.dropFirst()),
      scales: scales, rotation: quantisation.rotation)
    return .encoded(location.partCount > 1 ? whole.rows(rows) : whole)
  }

  /// Scales, of which none may be negative or infinite.
  private func scales(_ name: String, _ region: TensorRegion) throws(WeightsError) -> Tensor {
    let scales = try region.tensor(name).floats()
    if let row = scales.firstIndex(where: { !$0.isFinite || $0 < 0 }) {
      throw .malformedEntry(
        file: region.path, tensor: name,
        reason: "is \(scales[row]) in row \(row); scales are finite and not negative, so the file is damaged; "
          + "download it again")
    }
    return Tensor(scales, shape: [scales.count])
  }

  /// [out, in, height, width] of each tap → `shape` [out, in, taps, height, width], fp32.
  private static func joinedTaps(_ taps: [StoredWeight], _ shape: Shape) -> Tensor {
    let values = taps.map { $0.plainValues()?.floats() ?? [] }, plane = shape.dimensions.dropFirst(3).reduce(1, *)
    var joined: [Float] = []
    joined.reserveCapacity(shape.elementCount)
    for start in stride(from: 0, to: values[0].count, by: max(plane, 1)) {
      for tap in values { joined += tap[start..<start + plane] }
    }
    return Tensor(joined, shape: shape)
  }
}

extension Compute {
  /// As ``prepareLinear(_:weight:bias:precision:rotates:limits:)``; a weight that is stored at `precision` is taken as
  /// it is, and its report has no error.
  package func prepareLinear(
    _ name: String, stored weight: StoredWeight, bias: Tensor? = nil, precision: Precision, rotates: Bool,
    limits: PrecisionLimits = .standard
  ) -> (layer: Linear, report: PackedLayerReport) {
    func unchanged(_ layer: Linear) -> (layer: Linear, report: PackedLayerReport) {
      let report = PackedLayerReport(
        name: name, shape: [layer.outFeatures, layer.inFeatures], asked: precision.rawValue, kept: precision.rawValue,
        relativeError: nil)
      return (layer, report)
    }
    if case .int8(let weight) = weight, precision == .int8, weight.numbers.shape[1] <= Self.int8InputsMax {
      return unchanged(prepareLinear(weight, bias: bias))
    }
    if case .encoded(let weight) = weight, weight.format == .int4, precision == .q4,
      weight.shape[1] <= Self.int8InputsMax
    {
      return unchanged(prepareLinear(in4Bits: weight.widenedToInt8(), bias: bias))
    }
    if case .encoded(let weight) = weight, weight.format == .int4, precision == .int8 {
      return prepareLinear(
        name, stored: .int8(weight.widenedToInt8()), bias: bias, precision: precision, rotates: rotates, limits: limits)
    }
    return prepareLinear(
      name, weight: weight.values(self), bias: bias, precision: precision, rotates: rotates, limits: limits)
  }
}
