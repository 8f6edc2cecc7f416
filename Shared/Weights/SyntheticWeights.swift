import TensorCore

/// Weights as a function of a tensor's name, shape and element index.
///
/// The reference generator `Tests/Golden/make_fullsize.py` computes the same numbers, so that modules can be compared
/// at their published sizes without gigabytes of files.
public enum SyntheticWeights {
  /// The bf16 tensor `name`: uniform with variance 1 / fan-in for matrices and convolutions (of whose taps in time only
  /// one counts), within 0.05 of 0 for biases, within 0.1 of 1 for norm gains.
  public static func tensor(_ name: String, _ shape: Shape) -> Tensor {
    let (scale, offset) = distribution(name, shape)
    var result = MutableTensor(uninitialized: shape, .bf16)
    let seed = fnv1a(name)
    result.withElements(as: UInt16.self) { target in
      for index in target.indices { target[index] = bf16(Float(uniform(seed, index) * scale + offset)) }
    }
    return result.finish()
  }

  /// `count` numbers in [-1, 1) belonging to `name`, fp32.
  public static func uniforms(_ name: String, count: Int) -> [Float] {
    let seed = fnv1a(name)
    return (0..<count).map { Float(uniform(seed, $0)) }
  }

  private static func distribution(_ name: String, _ shape: Shape) -> (scale: Double, offset: Double) {
    let components = name.split(separator: ".")
    let owner = components.count > 1 ? components[components.count - 2] : ""
    if owner.contains("norm") || name.contains("layernorm") || name.hasSuffix("gamma") { return (0.1, 1) }
    guard shape.rank > 1 else { return (0.05, 0) }
    let fanIn = shape[1] * (shape.rank > 2 ? shape[-1] * shape[-2] : 1)
    return ((3 / Double(fanIn)).squareRoot(), 0)
  }

  private static func fnv1a(_ name: String) -> UInt64 {
    name.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }

  /// splitmix64 of `seed` advanced by `index`; the top 24 bits as a number in [-1, 1).
  private static func uniform(_ seed: UInt64, _ index: Int) -> Double {
    var z = seed &+ UInt64(index) &* 0x9e37_79b9_7f4a_7c15
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return Double((z ^ (z >> 31)) >> 40) * (2 / 0x1p24) - 1
  }

  /// Rounds to nearest, ties to even; the values here are finite.
  private static func bf16(_ value: Float) -> UInt16 {
    let bits = value.bitPattern
    return UInt16(truncatingIfNeeded: (bits &+ 0x7fff &+ ((bits >> 16) & 1)) >> 16)
  }
}
