import Kernels
import TensorCore

/// Mean and standard deviation of every latent channel: the denoising network works with (z - mean) / deviation.
package struct LatentStatistics: Sendable {
  private let means: [Float]
  private let deviations: [Float]

  /// The values of a configuration, one for each channel.
  package init(means: [Double], deviations: [Double]) {
    precondition(means.count == deviations.count, "\(means.count) means, \(deviations.count) deviations")
    self.means = means.map(Float.init)
    self.deviations = deviations.map(Float.init)
  }

  /// z · deviation + mean per channel; [C, h, w] → [h, w, C], fp32.
  package func denormalised(_ latents: Tensor) -> Tensor {
    let (channels, plane) = (latents.shape[0], latents.shape[1] * latents.shape[2])
    precondition(channels == means.count, "latents \(latents.shape) where \(means.count) channels are expected")
    var result = MutableTensor(uninitialized: [latents.shape[1], latents.shape[2], channels])
    latents.withElements(as: Float.self) { source in
      result.withElements(as: Float.self) { target in
        for channel in 0..<channels {
          let (mean, deviation) = (means[channel], deviations[channel])
          for position in 0..<plane {
            target[position * channels + channel] = source[channel * plane + position] * deviation + mean
          }
        }
      }
    }
    return result.finish()
  }

  /// A posterior's normalised mean or sample: (mean + exp(½ logvar) · ε - means) / deviations per channel, with logvar
  /// in -30…20.
  ///
  /// - Parameters:
  ///   - moments: mean ‖ logvar [2 · C, h, w], fp32.
  ///   - noise: ε [C, h, w], fp32; nil: the mean is taken.
  /// - Returns: [C, h, w], fp32.
  package func normalised(posterior moments: Tensor, noise: Tensor?, _ compute: Compute) -> Tensor {
    let channels = means.count, plane = moments.shape[1] * moments.shape[2]
    let shape: Shape = [channels, moments.shape[1], moments.shape[2]]
    precondition(moments.shape[0] == 2 * channels, "moments \(moments.shape) of \(channels) channels")
    precondition(
      noise.map { $0.dtype == .fp32 && $0.shape == shape } ?? true,
      "noise \(noise!.dtype) \(noise!.shape) for latents \(shape)")
    var result = MutableTensor(uninitialized: shape)
    result.copy(moments.rows(0..<channels), toRowsFrom: 0)
    if let noise {
      let spread = Self.deviations(moments.rows(channels..<2 * channels), compute)
      Self.add(noise, times: spread, to: &result)
    }
    result.withElements(as: Float.self) { values in
      for channel in 0..<channels {
        let (mean, deviation) = (means[channel], deviations[channel])
        for at in channel * plane..<(channel + 1) * plane { values[at] = (values[at] - mean) / deviation }
      }
    }
    return result.finish()
  }

  /// exp(½ logvar), with logvar in -30…20.
  private static func deviations(_ logVariances: Tensor, _ compute: Compute) -> Tensor {
    var exponents = MutableTensor(uninitialized: logVariances.shape)
    logVariances.withElements(as: Float.self) { source in
      exponents.withElements(as: Float.self) { target in
        for at in source.indices { target[at] = 0.5 * min(max(source[at], -30), 20) }
      }
    }
    return compute.exp(exponents.finish())
  }

  private static func add(_ noise: Tensor, times deviations: Tensor, to means: inout MutableTensor) {
    noise.withElements(as: Float.self) { noise in
      deviations.withElements(as: Float.self) { deviations in
        means.withElements(as: Float.self) { means in
          for at in means.indices { means[at] += deviations[at] * noise[at] }
        }
      }
    }
  }
}
