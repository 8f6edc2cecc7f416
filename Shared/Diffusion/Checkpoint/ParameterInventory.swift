import TensorCore

/// One tensor of a published checkpoint.
public struct ParameterDescription: Sendable, Equatable {
  /// Name in the safetensors file.
  public let name: String
  /// Extents in the safetensors file.
  public let shape: Shape
  /// Whether this is the weight matrix of a linear layer.
  public let isLinear: Bool
}

/// The tensors of a component, in file order, derived from its configuration.
///
/// `synth` writes them, `quantize` asks which of them are matrices worth quantising, and the tests compare their number
/// with the published models'.
public struct ParameterInventory: Sendable {
  /// All tensors.
  public private(set) var parameters: [ParameterDescription] = []

  /// An empty inventory, to which a family adds.
  package init() {}

  /// Number of values in all tensors.
  public var valueCount: Int { parameters.reduce(0) { $0 + $1.shape.elementCount } }

  /// Appends a tensor.
  package mutating func add(_ name: String, _ shape: Shape, isLinear: Bool = false) {
    parameters.append(ParameterDescription(name: name, shape: shape, isLinear: isLinear))
  }

  /// Appends `name.weight` [output, input] and, unless `bias` is false, `name.bias` [output].
  package mutating func linear(_ name: String, _ input: Int, _ output: Int, bias: Bool = true) {
    add("\(name).weight", [output, input], isLinear: true)
    if bias { add("\(name).bias", [output]) }
  }

  /// Appends `name.weight` [output, input, kernel…] and `name.bias` [output].
  package mutating func convolution(_ name: String, _ input: Int, _ output: Int, kernel: [Int]) {
    add("\(name).weight", Shape([output, input] + kernel))
    add("\(name).bias", [output])
  }

  /// The tensors for which `isIncluded` holds.
  package func filter(_ isIncluded: (ParameterDescription) -> Bool) -> ParameterInventory {
    var inventory = ParameterInventory()
    inventory.parameters = parameters.filter(isIncluded)
    return inventory
  }
}
