import Kernels
import TensorCore
import Weights

/// Reads one component's tensors by name, prepares them for the compute mode, and remembers which were asked for, so
/// that a checkpoint with extra tensors is refused by their names.
package final class ModuleReader {
  /// The arithmetic that the tensors are prepared for.
  package let compute: Compute
  private let layers: LayerPrecision
  private let weights: ComponentWeights
  private var used: Set<String> = []

  /// Reads `weights` for networks that compute with `compute`; `layers` are the rules of the family.
  package init(_ weights: ComponentWeights, compute: Compute, layers: LayerPrecision) {
    self.weights = weights
    self.layers = layers
    self.compute = compute
  }

  /// The stored tensor `name`, which must have `shape`.
  package func tensor(_ name: String, _ shape: Shape) throws(WeightsError) -> Tensor {
    used.insert(name)
    return try weights.tensor(name, shape)
  }

  /// The table of embeddings `name`, which must have `shape`.
  package func table(_ name: String, _ shape: Shape) throws(WeightsError) -> EmbeddingTable {
    used.insert(name)
    try weights.require(name, shape)
    if case .encoded(let table) = try weights.linearWeight(name, shape) { return .encoded(table) }
    return .plain(try weights.tensor(name, shape))
  }

  /// `name.weight` [output, input] and, unless `bias` is false, `name.bias` [output].
  package func linear(_ name: String, input: Int, output: Int, bias: Bool = true) throws(WeightsError) -> Linear {
    try source(ofLinear: name, input: input, output: output, bias: bias).layer(compute)
  }

  /// A linear layer that is not packed yet, unless its file has it packed.
  package func source(ofLinear name: String, input: Int, output: Int, bias: Bool = true) throws(WeightsError)
    -> LinearSource
  {
    let weightName = "\(name).weight"
    let bias = bias ? try tensor("\(name).bias", [output]) : nil
    used.insert(weightName)
    if let packed = try weights.packedLayer(weightName, output: output, input: input, bias: bias, compute: compute) {
      return LinearSource(name: weightName, form: .packed(packed), weights: weights, layers: layers)
    }
    let weight = try weights.linearWeight(weightName, [output, input])
    return LinearSource(name: weightName, form: .stored(weight, bias: bias), weights: weights, layers: layers)
  }

  /// `name.weight` [output, input, kernel, kernel]. Convolutions that are stored with a time axis keep only the last of
  /// their taps: the causal padding in front of a single frame is zero, so the others see nothing (SPEC §7).
  package func convolution(
    _ name: String, input: Int, output: Int, kernel: Int, storedTimeTaps: Int? = nil, stride: Int = 1
  ) throws(WeightsError) -> Convolution {
    defer { weights.releasePages(of: "\(name).weight") }
    let bias = try tensor("\(name).bias", [output])
    guard let taps = storedTimeTaps else {
      return compute.prepareConvolution(
        weight: try tensor("\(name).weight", [output, input, kernel, kernel]), bias: bias, stride: stride)
    }
    let stored = try tensor("\(name).weight", [output, input, taps, kernel, kernel])
    return compute.prepareConvolution(weight: lastTimeTap(of: stored), bias: bias, stride: stride)
  }

  /// The packed weights whose names begin with `prefix` and that run in every step.
  package func mapped(prefix: String) -> MappedWeights {
    weights.mapped { $0.hasPrefix(prefix) && !layers.isModulation($0) }
  }

  /// Fails when the component holds tensors that no module asked for, unless `ignoring` says they are known to be
  /// unused.
  package func finish(ignoring: (String) -> Bool = { _ in false }) throws(WeightsError) {
    try weights.requireOnly(used, ignoring: ignoring)
  }

  private func lastTimeTap(of weight: Tensor) -> Tensor {
    let (output, input, taps, height, width) = (
      weight.shape[0], weight.shape[1], weight.shape[2], weight.shape[3], weight.shape[4]
    )
    let planes = weight.reshaped([output * input * taps, height, width])
    return planes.rows(from: taps - 1, by: taps).reshaped([output, input, height, width])
  }
}

/// Where a linear layer comes from.
package struct LinearSource: Sendable {
  fileprivate enum Form: Sendable {
    case packed(Linear)
    case stored(StoredWeight, bias: Tensor?)
  }
  fileprivate let name: String
  fileprivate let form: Form
  fileprivate let weights: ComponentWeights
  fileprivate let layers: LayerPrecision
  /// What adapters add to the layer.
  private var update: [LinearUpdate.Term] = []

  fileprivate init(name: String, form: Form, weights: ComponentWeights, layers: LayerPrecision) {
    self.name = name
    self.form = form
    self.weights = weights
    self.layers = layers
  }

  /// The source of the layer with what adapters add to it.
  func updated(by terms: [LinearUpdate.Term]) -> LinearSource {
    var source = self
    source.update = terms
    return source
  }

  /// The layer, packed by the rules of the mode, with what adapters add to it. The source's pages are given back.
  package func layer(_ compute: Compute) -> Linear { compute.updated(packedLayer(compute), by: update) }

  private func packedLayer(_ compute: Compute) -> Linear {
    switch form {
    case .packed(let layer): return layer
    case .stored(let weight, let bias):
      defer { weights.releasePages(of: name) }
      let precision = layers.precision(of: name, in: compute.precision, stored: weight.precision)
      return compute.prepareLinear(
        name, stored: weight, bias: bias, precision: precision,
        rotates: layers.rotates(at: precision, stored: weight.blockFormat)
      ).layer
    }
  }

  /// Gives the pages of the file back, of a packed layer too; where memory is short, those in the page cache as well.
  package func releasePages(isMemoryShort: Bool) {
    if isMemoryShort { weights.evictPages(of: name) } else { weights.releasePages(of: name) }
  }
}
