import Kernels
import TensorCore
import Weights

extension Adapter {
  /// What the adapter adds to each layer, in the order of the file's names, times `scale`.
  ///
  /// - Returns: layers by the network's names, and what is added to them.
  func terms(
    for targets: AdapterTargets, scale: Double
  ) throws(WeightsError) -> [(layer: String, term: LinearUpdate.Term)] {
    var all: [(layer: String, term: LinearUpdate.Term)] = [], used: [String: String] = [:]
    for (name, parts) in layers.sorted(by: { $0.key < $1.key }) {
      guard let some = parts.values.min() else { continue }
      let target = try target(name, some, in: targets)
      let reader = LayerFactors(adapter: self, name: name, parts: parts, target: target)
      for (layer, term) in try reader.terms(scale: scale) {
        if let other = used.updateValue(name, forKey: layer) {
          throw .malformedEntry(
            file: file.path, tensor: some,
            reason: "is for \(layer), and so is \"\(printable(other, max: 200))\" by another name")
        }
        all.append((layer, term))
      }
      for tensor in parts.values { file.releasePages(of: tensor) }
    }
    return all
  }

  /// Checks whether the network has the adapter's layers, in the shapes of those tensors that have the extents of
  /// their layer.
  func check(for targets: AdapterTargets) throws(WeightsError) {
    for (name, parts) in layers.sorted(by: { $0.key < $1.key }) {
      guard let some = parts.values.min() else { continue }
      let target = try target(name, some, in: targets)
      for (part, axis) in [(AdapterPart.down, 1), (.up, 0), (.hadaW1B, 1), (.hadaW1A, 0)] {
        let extent = axis == 0 ? target.outFeatures : target.inFeatures
        guard let tensor = parts[part], let shape = file.header.entries[tensor]?.shape, shape.rank >= 2,
          shape[axis] != extent
        else { continue }
        var expected = shape.dimensions
        expected[axis] = extent
        throw .misshapenTensor(file: file.path, tensor: tensor, expected: Shape(expected), found: shape)
      }
    }
  }

  private func target(
    _ name: String, _ tensor: String, in targets: AdapterTargets
  ) throws(WeightsError) -> AdapterTargets.Target {
    if let target = targets.target(name) { return target }
    throw .foreignTensor(
      file: file.path, tensor: tensor,
      meaning: "is for a layer that the denoising network does not have; adapters are for one architecture only")
  }
}

extension LinearUpdate.Term {
  /// What the term adds to the rank of a layer.
  var rank: Int { if case .lowRank(let down, _, _) = self { down.shape[0] } else { 0 } }
}

/// The tensors of one layer of an adapter.
private struct LayerFactors {
  let adapter: Adapter
  /// The file's name of the layer.
  let name: String
  let parts: [AdapterPart: String]
  let target: AdapterTargets.Target

  private var path: String { adapter.file.path }

  /// Most ranks of one layer, of one adapter.
  private static let maxRank = 4096

  func terms(scale: Double) throws(WeightsError) -> [(String, LinearUpdate.Term)] {
    let kinds = Set(parts.keys).subtracting([.alpha])
    if kinds.isSubset(of: [.down, .up]) { return try lora(scale) }
    if kinds.isSubset(of: [.hadaW1A, .hadaW1B, .hadaW2A, .hadaW2B]) { return try loha(scale) }
    if kinds.isSubset(of: [.lokrW1, .lokrW1A, .lokrW1B, .lokrW2, .lokrW2A, .lokrW2B]) { return try lokr(scale) }
    throw .malformedEntry(
      file: path, tensor: parts.values.min() ?? name,
      reason: "and others of its layer are of different kinds of adapters")
  }

  // MARK: - Kinds

  private func lora(_ scale: Double) throws(WeightsError) -> [(String, LinearUpdate.Term)] {
    let down = try matrix(.down, columns: target.inFeatures)
    let up = try matrix(.up, rows: target.outFeatures, columns: down.shape[0])
    return try lowRank(down: down, up: up, scale: self.scale(scale, rank: down.shape[0]))
  }

  /// (A₁B₁) ⊙ (A₂B₂) is the product of the row-wise Khatri–Rao product of the As and the column-wise one of the Bs.
  private func loha(_ scale: Double) throws(WeightsError) -> [(String, LinearUpdate.Term)] {
    let b1 = try matrix(.hadaW1B, columns: target.inFeatures), b2 = try matrix(.hadaW2B, columns: target.inFeatures)
    let (r1, r2) = (b1.shape[0], b2.shape[0])
    for rank in [r1, r2] { try checkRank(rank, of: .hadaW1B) }
    try checkRank(r1 * r2, of: .hadaW1B)
    let a1 = try matrix(.hadaW1A, rows: target.outFeatures, columns: r1)
    let a2 = try matrix(.hadaW2A, rows: target.outFeatures, columns: r2)
    let (x1, x2, y1, y2) = (a1.floats(), a2.floats(), b1.floats(), b2.floats())
    let (rows, columns) = (target.outFeatures, target.inFeatures)
    let up = Self.filled(rows, r1 * r2) { row, index in x1[row * r1 + index / r2] * x2[row * r2 + index % r2] }
    let down = Self.filled(r1 * r2, columns) { index, column in
      y1[index / r2 * columns + column] * y2[index % r2 * columns + column]
    }
    return try lowRank(down: down, up: up, scale: self.scale(scale, rank: r1))
  }

  /// w₁ ⊗ w₂ as it is, or, where w₂ is a product and less is to be multiplied so, as a product of rank
  /// min(rows, columns of w₁) · rank of w₂.
  private func lokr(_ scale: Double) throws(WeightsError) -> [(String, LinearUpdate.Term)] {
    guard target.layers.count == 1 else {
      throw .foreignTensor(
        file: path, tensor: parts.values.min() ?? name,
        meaning: "is of a LoKr for several layers as one, which cannot be divided among them")
    }
    let layer = target.layers[0].name
    let (left, leftRank) = try kroneckerFactor(.lokrW1, .lokrW1A, .lokrW1B)
    let (p, q) = (left.shape[0], left.shape[1])
    guard p > 0, q > 0, target.outFeatures % p == 0, target.inFeatures % q == 0 else {
      throw .malformedEntry(
        file: path, tensor: parts[.lokrW1] ?? parts[.lokrW1A] ?? name,
        reason: "makes a factor of shape \(left.shape), which does not divide the layer's \(layerShape)")
    }
    let (rows, columns) = (target.outFeatures / p, target.inFeatures / q)
    guard parts[.lokrW2] == nil else {
      let right = try matrix(.lokrW2, rows: rows, columns: columns)
      try checkAbsent(.lokrW2A, .lokrW2B, beside: .lokrW2)
      let scale = try self.scale(scale, rank: leftRank, hasFullFactors: leftRank == nil)
      return [(layer, .kronecker(left: left, right: right, scale: scale))]
    }
    let b = try matrix(.lokrW2B, columns: columns), a = try matrix(.lokrW2A, rows: rows, columns: b.shape[0])
    let scale = try self.scale(scale, rank: b.shape[0]), rank = min(p, q) * b.shape[0]
    let isSmall = rank * (target.outFeatures + target.inFeatures) < target.inFeatures * rows + target.outFeatures * q
    guard isSmall, rank <= Self.maxRank else {
      return [(layer, .kronecker(left: left, right: Self.product(a, b), scale: scale))]
    }
    let (up, down) = Self.factors(left, a, b)
    return [(layer, .lowRank(down: down, up: up, scale: scale))]
  }

  /// left ⊗ (a·b) as up·down: (left ⊗ a)(1 ⊗ b), or (1 ⊗ a)(left ⊗ b), whichever has the smaller rank.
  private static func factors(_ left: Tensor, _ a: Tensor, _ b: Tensor) -> (up: Tensor, down: Tensor) {
    let (p, q) = (left.shape[0], left.shape[1])
    return p < q ? (kronecker(identity(p), a), kronecker(left, b)) : (kronecker(left, a), kronecker(identity(q), b))
  }

  private static func identity(_ n: Int) -> Tensor { filled(n, n) { $0 == $1 ? 1 : 0 } }

  private static func kronecker(_ left: Tensor, _ right: Tensor) -> Tensor {
    let (l, r) = (left.floats(), right.floats())
    let (q, rows, columns) = (left.shape[1], right.shape[0], right.shape[1])
    return filled(left.shape[0] * rows, q * columns) { row, column in
      l[row / rows * q + column / columns] * r[row % rows * columns + column % columns]
    }
  }

  private static func product(_ a: Tensor, _ b: Tensor) -> Tensor {
    let (x, y) = (a.floats(), b.floats()), (rank, columns) = (a.shape[1], b.shape[1])
    var values = [Float](repeating: 0, count: a.shape[0] * columns)
    for row in 0..<a.shape[0] {
      for index in 0..<rank {
        let factor = x[row * rank + index]
        for column in 0..<columns { values[row * columns + column] += factor * y[index * columns + column] }
      }
    }
    return Tensor(values, shape: [a.shape[0], columns])
  }

  private static func filled(_ rows: Int, _ columns: Int, _ value: (_ row: Int, _ column: Int) -> Float) -> Tensor {
    var values = [Float](repeating: 0, count: rows * columns)
    for row in 0..<rows { for column in 0..<columns { values[row * columns + column] = value(row, column) } }
    return Tensor(values, shape: [rows, columns])
  }

  /// w₁ of LoKr, and its rank where it is a product.
  private func kroneckerFactor(
    _ whole: AdapterPart, _ a: AdapterPart, _ b: AdapterPart
  ) throws(WeightsError) -> (factor: Tensor, rank: Int?) {
    if parts[whole] != nil {
      try checkAbsent(a, b, beside: whole)
      return (try matrix(whole), nil)
    }
    let second = try matrix(b), first = try matrix(a, columns: second.shape[0])
    guard first.shape[0] <= target.outFeatures, second.shape[1] <= target.inFeatures else {
      throw .malformedEntry(
        file: path, tensor: parts[a] ?? name,
        reason: "makes a factor of shape \([first.shape[0], second.shape[1]]), larger than the layer's \(layerShape)")
    }
    return (Self.product(first, second), second.shape[0])
  }

  /// The factors as a term for the layer, or, where several are kept as one, for each of them.
  private func lowRank(
    down: Tensor, up: Tensor, scale: Float
  ) throws(WeightsError) -> [(String, LinearUpdate.Term)] {
    try checkRank(down.shape[0], of: parts[.down] == nil ? .hadaW1B : .down)
    var first = 0
    return target.layers.map { layer in
      defer { first += layer.outFeatures }
      return (
        layer.name, .lowRank(down: down, up: up.rows(first..<first + layer.outFeatures), scale: scale)
      )
    }
  }

  // MARK: - Tensors

  private var layerShape: Shape { [target.outFeatures, target.inFeatures] }

  /// A part as a finite fp32 matrix; extents that are given must be so.
  private func matrix(_ part: AdapterPart, rows: Int? = nil, columns: Int? = nil) throws(WeightsError) -> Tensor {
    guard let tensor = parts[part] else {
      throw .missingTensor(component: path, tensor: "\(name).\(part.rawValue)", expected: nil)
    }
    guard let entry = adapter.file.header.entries[tensor] else {
      throw .missingTensor(component: path, tensor: tensor, expected: nil)
    }
    // Scripts for networks with convolutions write linear layers as such of one pixel.
    let extents = Array(entry.shape.dimensions.prefix(2))
    guard entry.shape.elementCount > 0 else {
      throw .malformedEntry(file: path, tensor: tensor, reason: "is empty, of shape \(entry.shape)")
    }
    guard entry.shape.rank >= 2, entry.shape.dimensions.dropFirst(2).allSatisfy({ $0 == 1 }),
      rows ?? extents[0] == extents[0], columns ?? extents[1] == extents[1]
    else {
      if let expected = expected(rows, columns, entry.shape) {
        throw .misshapenTensor(file: path, tensor: tensor, expected: expected, found: entry.shape)
      }
      throw .malformedEntry(file: path, tensor: tensor, reason: "has shape \(entry.shape), which is no matrix")
    }
    guard let dtype = entry.dtype, ComponentWeights.weightDTypes.contains(dtype) else {
      throw .unsupportedDType(
        file: path, tensor: tensor, found: entry.dtypeName, supported: ComponentWeights.weightDTypes.map(\.rawValue))
    }
    let values = try adapter.file.tensor(tensor).floats()
    if let index = values.firstIndex(where: { !$0.isFinite }) {
      throw .malformedEntry(file: path, tensor: tensor, reason: "has \(values[index]) as element \(index)")
    }
    return Tensor(values, shape: Shape(extents))
  }

  private func expected(_ rows: Int?, _ columns: Int?, _ found: Shape) -> Shape? {
    guard rows != nil || columns != nil, found.rank >= 2 else { return nil }
    return [rows ?? found[0], columns ?? found[1]]
  }

  private func checkRank(_ rank: Int, of part: AdapterPart) throws(WeightsError) {
    guard rank > Self.maxRank else { return }
    throw .malformedEntry(
      file: path, tensor: parts[part] ?? name, reason: "makes a rank of \(rank); the limit is \(Self.maxRank)")
  }

  private func checkAbsent(_ others: AdapterPart..., beside part: AdapterPart) throws(WeightsError) {
    for other in others {
      guard let tensor = parts[other] else { continue }
      throw .malformedEntry(
        file: path, tensor: tensor, reason: "is there although \(part.rawValue) is, which takes its place")
    }
  }

  // MARK: - Scale

  /// What ΔW is multiplied with: `scale`, times α over the rank.
  ///
  /// - Parameter hasFullFactors: of LoKr without a rank, whose α of a tensor means nothing.
  private func scale(_ scale: Double, rank: Int?, hasFullFactors: Bool = false) throws(WeightsError) -> Float {
    let own: Double
    if !hasFullFactors, let rank, let alpha = try alpha() {
      own = alpha / Double(rank)
    } else {
      own = adapter.configuration?.scale(of: target.layers[0].name, rank: hasFullFactors ? nil : rank) ?? 1
    }
    let product = Float(scale * own)
    guard product.isFinite else {
      throw .malformedEntry(
        file: path, tensor: parts[.alpha] ?? parts.values.min() ?? name, reason: "makes a scale of \(scale * own)")
    }
    return product
  }

  /// The single number of the layer's `alpha`; nil: there is none.
  private func alpha() throws(WeightsError) -> Double? {
    guard let tensor = parts[.alpha], let entry = adapter.file.header.entries[tensor] else { return nil }
    guard entry.shape.elementCount == 1 else {
      throw .misshapenTensor(file: path, tensor: tensor, expected: [], found: entry.shape)
    }
    let bytes = try adapter.file.readBytes(of: tensor, in: 0..<entry.byteCount)
    let bits = bytes.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    let value: Double
    switch entry.dtypeName {
    case "F32": value = Double(Float(bitPattern: UInt32(bits)))
    case "F64": value = Double(bitPattern: bits)
    case "BF16": value = Double(Float(bitPattern: UInt32(bits) << 16))
    case "F16": value = Double(Float(halfBits: UInt16(bits)))
    case "I64": value = Double(Int64(bitPattern: bits))
    case "I32": value = Double(Int32(bitPattern: UInt32(bits)))
    default:
      throw .unsupportedDType(
        file: path, tensor: tensor, found: entry.dtypeName, supported: ["F32", "F64", "BF16", "F16", "I64", "I32"])
    }
    guard value.isFinite else {
      throw .malformedEntry(file: path, tensor: tensor, reason: "is \(value); it must be finite")
    }
    return value
  }
}
