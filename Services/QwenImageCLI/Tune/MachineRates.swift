import Diffusion
import Kernels

/// How fast a machine does what denoising networks consist of.
package struct MachineRates: Sendable {
  /// The weights of a layer.
  package struct Layer: Hashable, Sendable {
    package var inFeatures: Int
    package var outFeatures: Int
    /// Whether inputs are rotated before they are quantised.
    package var isRotated: Bool

    package init(inFeatures: Int, outFeatures: Int, isRotated: Bool) {
      (self.inFeatures, self.outFeatures, self.isRotated) = (inFeatures, outFeatures, isRotated)
    }
  }

  /// What attention looks at.
  package struct Heads: Hashable, Sendable {
    package var keys: Int
    package var count: Int
    package var dim: Int

    package init(keys: Int, count: Int, dim: Int) { (self.keys, self.count, self.dim) = (keys, count, dim) }
  }

  /// Multiplications and additions a second of products with layers, by mode.
  package var layers: [Precision: [Layer: Double]] = [:]
  /// The same of attention.
  package var attention: [Precision: [Heads: Double]] = [:]
  /// Bytes a second that all threads together read from memory.
  package var memoryBytesPerSecond = 0.0

  package init() {}

  /// An allowance for the time of what is no product (norms, rotations, gates, activations), as a part of that of the
  /// products.
  package static let otherWork = 0.06

  /// Seconds of a step; nil: some product has not been measured. It is never less than reading the weights takes.
  ///
  /// - Parameter weightBytes: of the network, in the mode.
  package func stepSeconds(
    _ work: DenoisingWork, _ mode: Precision, isRotated: Bool, weightBytes: Int
  ) -> Double? {
    var seconds = 0.0
    for product in work.products {
      let layer = Layer(inFeatures: product.inFeatures, outFeatures: product.outFeatures, isRotated: isRotated)
      guard let rate = layers[mode]?[layer], rate > 0 else { return nil }
      seconds += product.operations / rate
    }
    for attention in work.attention {
      let heads = Heads(keys: attention.keys, count: attention.heads, dim: attention.headDim)
      guard let rate = self.attention[mode]?[heads], rate > 0 else { return nil }
      seconds += attention.operations / rate
    }
    seconds *= 1 + Self.otherWork
    return memoryBytesPerSecond > 0 ? max(seconds, Double(weightBytes) / memoryBytesPerSecond) : seconds
  }
}
