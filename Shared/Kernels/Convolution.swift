import CKernels
import TensorCore

/// A two-dimensional convolution whose weight has been laid out for the kernels: 3×3 with zero padding of 1, or 1×1.
public struct Convolution: Sendable {
  /// Channels of the result.
  public let outChannels: Int
  /// Channels of the input.
  public let inChannels: Int
  /// 3 or 1.
  public let kernelSize: Int
  let weight: PreparedKernel
  /// fp32 [out].
  let bias: Tensor
}

/// The kernels' form of a convolution's weight.
enum PreparedKernel: Sendable {
  /// 3×3 transformed for Winograd's algorithm: fp32 panels for each of 36 points, see ckernels.h.
  case winograd(Tensor)
  /// 1×1 as fp32 panels of a matrix [out, in].
  case panels(Tensor)
  /// fp32 [out, kernelSize, kernelSize, in], for OpenBLAS.
  case rowMajor(Tensor)
}

extension Compute {
  /// Lays out a weight [out, in, 3, 3] or [out, in, 1, 1] and a bias [out], of any floating-point type. A transformed 3×3 weight
  /// takes 36/9 of its fp32 size.
  public func prepareConvolution(weight: Tensor, bias: Tensor) -> Convolution {
    let shape = weight.shape
    precondition(shape.rank == 4 && shape[2] == shape[3] && (shape[2] == 1 || shape[2] == 3), "convolution weight \(shape)")
    precondition(bias.elementCount == shape[0], "bias \(bias.shape) for convolution weight \(shape)")
    let prepared: PreparedKernel =
      if matrixLibrary == .openBLAS {
        .rowMajor(channelsLast(fp32(weight)))
      } else if shape[2] == 1 {
        .panels(packed(weight.reshaped([shape[0], shape[1]]), functions.fp32))
      } else {
        .winograd(transformed(fp32(weight)))
      }
    return Convolution(outChannels: shape[0], inChannels: shape[1], kernelSize: shape[2], weight: prepared, bias: fp32(bias))
  }

  private func transformed(_ weight: Tensor) -> Tensor {
    let columns = functions.fp32.panel_columns, (outChannels, inChannels) = (weight.shape[0], weight.shape[1])
    let result = Tensor(uninitialized: [ck_winograd_weight_bytes(outChannels, inChannels, columns)], .uint8)
    let target = result.address(0).assumingMemoryBound(to: Float.self)
    pool.parallel((outChannels + columns - 1) / columns) { panel in
      ck_winograd_weights(target, weight.pointer(), outChannels, inChannels, columns, panel)
    }
    return withExtendedLifetime(weight) { result }
  }

  private func channelsLast(_ weight: Tensor) -> Tensor {
    let (outChannels, inChannels, taps) = (weight.shape[0], weight.shape[1], weight.shape[2] * weight.shape[3])
    let result = Tensor(uninitialized: [outChannels, taps, inChannels])
    let from: UnsafeMutablePointer<Float> = weight.pointer(), to: UnsafeMutablePointer<Float> = result.pointer()
    for out in 0..<outChannels {
      for tap in 0..<taps {
        for channel in 0..<inChannels { to[(out * taps + tap) * inChannels + channel] = from[(out * inChannels + channel) * taps + tap] }
      }
    }
    return withExtendedLifetime(weight) { result }
  }

  /// x [H, W, in] fp32 → [H, W, out] fp32, at every precision. If `upsampled`, x is taken as ``upsampleNearest2x(_:)`` of itself,
  /// which is never stored, and the result is [2H, 2W, out].
  public func convolution(_ x: Tensor, _ w: Convolution, upsampled: Bool = false) -> Tensor {
    let scale = upsampled ? 2 : 1
    precondition(x.shape.rank == 3, "convolution of \(x.shape)")
    let result = Tensor(uninitialized: [scale * x.shape[0], scale * x.shape[1], w.outChannels])
    convolution(PictureRows(x), w, upsampled: upsampled, rows: 0..<result.shape[0], into: PictureRows(result))
    return result
  }

  /// As ``convolution(_:_:upsampled:)``, added to `sum` [H, W, out] fp32 in place.
  public func convolution(_ x: Tensor, _ w: Convolution, upsampled: Bool = false, addingTo sum: inout Tensor) {
    precondition(sum.shape.rank == 3, "a sum \(sum.shape)")
    convolution(PictureRows(x), w, upsampled: upsampled, rows: 0..<sum.shape[0], into: PictureRows(sum), adds: true)
  }

  /// x / max(‖x‖₂, 1e-12) · √C · γ over the channels of x [H, W, C] fp32, then SiLU if asked; γ holds C elements.
  public func channelRMSNorm(_ x: Tensor, gamma: Tensor, silu: Bool) -> Tensor {
    let result = Tensor(uninitialized: x.shape)
    channelRMSNorm(x, gamma: gamma, silu: silu, into: result)
    return result
  }

  /// As ``channelRMSNorm(_:gamma:silu:)`` into `result`, which may be x itself.
  public func channelRMSNorm(_ x: Tensor, gamma: Tensor, silu: Bool, into result: Tensor) {
    precondition(x.dtype == .fp32 && x.shape.rank >= 1, "channelRMSNorm of \(x.dtype) \(x.shape)")
    precondition(result.dtype == .fp32 && result.shape == x.shape, "channelRMSNorm of \(x.shape) into \(result.dtype) \(result.shape)")
    let channels = x.shape[-1], gamma = fp32(gamma)
    precondition(gamma.elementCount == channels, "gamma \(gamma.shape) for \(x.shape)")
    parallelRows(channels == 0 ? 0 : x.elementCount / channels, bytesPerRow: channels * 8) { range in
      functions.channel_rms_norm(
        result.pointer() + range.lowerBound * channels, x.pointer() + range.lowerBound * channels, gamma.pointer(), range.count,
        channels, silu ? 1 : 0)
    }
    withExtendedLifetime((x, gamma, result)) {}
  }

  /// Every pixel of x [H, W, C] fp32 twice in both directions → [2H, 2W, C].
  public func upsampleNearest2x(_ x: Tensor) -> Tensor {
    precondition(x.dtype == .fp32 && x.shape.rank == 3, "upsampleNearest2x of \(x.dtype) \(x.shape)")
    let (height, width, channels) = (x.shape[0], x.shape[1], x.shape[2])
    let result = Tensor(uninitialized: [2 * height, 2 * width, channels])
    let source: UnsafeMutablePointer<Float> = x.pointer(), target: UnsafeMutablePointer<Float> = result.pointer()
    parallelRows(2 * height, bytesPerRow: width * channels * 12) { range in
      for row in range {
        for column in 0..<2 * width {
          (target + (row * 2 * width + column) * channels).initialize(
            from: source + (row / 2 * width + column / 2) * channels, count: channels)
        }
      }
    }
    return withExtendedLifetime(x) { result }
  }
}
