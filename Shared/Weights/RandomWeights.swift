import Kernels
import TensorCore

/// A component of any size with random weights, made as they are read: bf16, a function of the seed, the tensor's name
/// and the element's index alone.
///
/// Matrices and convolutions are normally distributed with variance 1 / fan-in, norm gains are 1 and biases small, so
/// that activations keep their size through any number of layers; modulations are a third of that, as gates of a
/// trained model are small.
public struct RandomWeights: WeightSource {
  private let seed: UInt64
  private let pool: ThreadPool

  /// The weights that belong to `seed`, made on the threads of `pool`.
  public init(seed: UInt64, pool: ThreadPool) {
    self.seed = seed
    self.pool = pool
  }

  /// bf16.
  public func dtype(of name: String, _ shape: Shape) -> DType { .bf16 }

  /// Nothing is kept.
  public func releasePages(of name: String) {}

  /// Makes some rows of a tensor.
  public func rows(_ range: Range<Int>, of name: String, _ shape: Shape) -> Tensor {
    let rowCount = max(shape[0], 1), width = shape.elementCount / rowCount
    let (scale, offset) = Self.distribution(name, shape)
    let stream =
      Self.mixed(seed &+ 0x9e37_79b9_7f4a_7c15)
      ^ name.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
    let first = range.lowerBound * width
    return pool.tensor(
      Shape([range.count] + shape.dimensions.dropFirst()), .bf16, of: UInt16.self, pieceElements: 1 << 16
    ) { part, elements in
      Self.fill(&elements, firstElement: first + part.lowerBound, stream: stream, scale: scale, offset: offset)
    }
  }

  private static func fill(
    _ target: inout MutableSpan<UInt16>, firstElement: Int, stream: UInt64, scale: Float, offset: Float
  ) {
    for index in target.indices {
      let word = mixed(stream &+ UInt64(firstElement + index) &* 0x9e37_79b9_7f4a_7c15)
      // Four uniform numbers make a nearly normal one, of variance 1 after scaling.
      let sum = Int32(word & 0xffff) + Int32(word >> 16 & 0xffff) + Int32(word >> 32 & 0xffff) + Int32(word >> 48)
      let bits = (Float(sum - 131_070) * (1 / 37_837) * scale + offset).bitPattern
      target[index] = UInt16(truncatingIfNeeded: (bits &+ 0x7fff &+ ((bits >> 16) & 1)) >> 16)
    }
  }

  private static func distribution(_ name: String, _ shape: Shape) -> (scale: Float, offset: Float) {
    if ["norm", "gamma", "ln_q"].contains(where: name.contains), !name.hasPrefix("norm_out.linear") { return (0, 1) }
    guard shape.rank > 1 else { return (0.02, 0) }
    let fanIn = shape[1] * (shape.rank > 2 ? shape[-1] * shape[-2] : 1)
    let isModulation = name.contains("_mod.") || name.hasPrefix("norm_out.linear")
    return ((isModulation ? 0.3 : 1) / Float(fanIn).squareRoot(), 0)
  }

  /// The finaliser of splitmix64.
  private static func mixed(_ value: UInt64) -> UInt64 {
    var z = value
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
