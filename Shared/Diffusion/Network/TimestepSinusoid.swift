import Foundation
import TensorCore

/// The sinusoids that timestep embeddings begin with (diffusers `Timesteps`, flip_sin_to_cos = true).
package enum TimestepSinusoid {
  /// Length of an embedding; fixed by the models.
  package static let width = 256

  /// [steps, 256]: cosines, then sines, of 1000·t·10000^(-j/128). The products are rounded in the reference's order,
  /// since arguments near 1000 turn a last-place difference into 6e-5.
  package static func rows(_ times: [Float]) -> Tensor {
    let half = width / 2
    let logBase: Float = -9.210340371976184
    let frequencies = (0..<half).map { Float(exp(Double(logBase * Float($0) / Float(half)))) }
    var values = [Float](repeating: 0, count: times.count * width)
    for (row, time) in times.enumerated() {
      for (j, frequency) in frequencies.enumerated() {
        let angle = Double(1000 * (time * frequency))
        values[row * width + j] = Float(cos(angle))
        values[row * width + half + j] = Float(sin(angle))
      }
    }
    return Tensor(values, shape: [times.count, width])
  }
}
