import TensorCore

/// [H, W, C] → [C, H, W], the order in which the reference records.
package func channelsFirst(_ x: Tensor) -> Tensor {
  let (plane, channels) = (x.shape[0] * x.shape[1], x.shape[2])
  var result = MutableTensor(uninitialized: [channels, x.shape[0], x.shape[1]])
  x.withElements(as: Float.self) { source in
    result.withElements(as: Float.self) { target in
      for position in 0..<plane {
        for channel in 0..<channels { target[channel * plane + position] = source[position * channels + channel] }
      }
    }
  }
  return result.finish()
}

/// Limits decoded pixels, fp32, to [-1, 1].
package func clampPixels(_ x: inout Tensor) {
  x.withMutableTensor {
    $0.withElements(as: Float.self) { values in for i in values.indices { values[i] = min(max(values[i], -1), 1) } }
  }
}

/// Traps unless pixels are ones that an encoder takes.
///
/// - Parameters:
///   - channels: of its images.
///   - scale: pixels of a side for each latent pixel.
package func requirePixels(_ pixels: Tensor, channels: Int, scale: Int) {
  precondition(
    pixels.dtype == .fp32 && pixels.shape.rank == 3 && pixels.shape[2] == channels,
    "pixels \(pixels.dtype) \(pixels.shape) where fp32 [H, W, \(channels)] is expected")
  precondition(
    pixels.elementCount > 0 && pixels.shape[0] % scale == 0 && pixels.shape[1] % scale == 0,
    "pixels \(pixels.shape) where sides are multiples of \(scale)")
}
