import CKernels
import TensorCore

/// A two-dimensional convolution with packed weights: 3×3 with zero padding of 1, or 1×1; or 3×3 with stride 2 and zero
/// padding of a row below and a column on the right.
public struct Convolution: Sendable {
  /// Channels of the result.
  public let outChannels: Int
  /// Channels of the input.
  public let inChannels: Int
  /// 3 or 1.
  public let kernelSize: Int
  /// 1, or 2: the result is half as high and wide, rounded down.
  public let stride: Int
  let weight: PreparedKernel
  /// fp32 [out].
  let bias: Tensor

  /// Rows of zeros above the image, and columns left of it.
  var leadingPadding: Int { stride == 1 ? kernelSize / 2 : 0 }

  /// The rows of an image of `height` rows, taken `scale` times, that `rows` of the result depend on.
  func inputRows(of rows: Range<Int>, height: Int, scale: Int) -> Range<Int> {
    let first = rows.lowerBound * stride - leadingPadding
    let end = (rows.upperBound - 1) * stride - leadingPadding + kernelSize
    return max(0, first) / scale..<(min(scale * height, end) + scale - 1) / scale
  }
}

/// The kernels' form of a convolution's weight.
enum PreparedKernel: Sendable {
  /// 3×3 transformed for Winograd's algorithm: fp32 panels for each of 36 points, see ckernels.h.
  case winograd(Tensor)
  /// 1×1, or 3×3 with stride 2, as fp32 panels of a matrix [out, kernelSize · kernelSize · in].
  case panels(Tensor)
  /// fp32 [out, kernelSize, kernelSize, in], for OpenBLAS.
  case rowMajor(Tensor)
}

extension Compute {
  /// Packs a weight [out, in, 3, 3] or [out, in, 1, 1] and a bias [out], of any floating-point type. A transformed 3×3
  /// weight takes 36/9 of its fp32 size; with stride 2 it is not transformed.
  public func prepareConvolution(weight: Tensor, bias: Tensor, stride: Int = 1) -> Convolution {
    let shape = weight.shape
    precondition(
      shape.rank == 4 && shape[2] == shape[3] && (shape[2] == 1 || shape[2] == 3), "convolution weight \(shape)")
    precondition(stride == 1 || stride == 2 && shape[2] == 3, "stride \(stride) for convolution weight \(shape)")
    precondition(bias.elementCount == shape[0], "bias \(bias.shape) for convolution weight \(shape)")
    let prepared: PreparedKernel =
      if matrixLibrary == .openBLAS {
        .rowMajor(channelsLast(fp32(weight)))
      } else if shape[2] == 1 {
        .panels(packed(weight.reshaped([shape[0], shape[1]]), functions.fp32))
      } else if stride == 2 {
        .panels(packed(channelsLast(fp32(weight)).reshaped([shape[0], 9 * shape[1]]), functions.fp32))
      } else {
        .winograd(transformed(fp32(weight)))
      }
    return Convolution(
      outChannels: shape[0], inChannels: shape[1], kernelSize: shape[2], stride: stride, weight: prepared,
      bias: fp32(bias))
  }

  private func transformed(_ weight: Tensor) -> Tensor {
    let columns = functions.fp32.panel_columns, (outChannels, inChannels) = (weight.shape[0], weight.shape[1])
    let byteCount = ck_winograd_weight_bytes(outChannels, inChannels, columns)
    return filled([byteCount / 4], reading: weight) { result in
      pool.parallel((outChannels + columns - 1) / columns) { panel in
        // A panel's numbers lie apart, one part for each of the 36 points.
        ck_winograd_weights(
          result.pointer(count: result.elementCount), weight.pointer(count: weight.elementCount), outChannels,
          inChannels, columns, panel)
      }
    }
  }

  private func channelsLast(_ weight: Tensor) -> Tensor {
    let (outChannels, inChannels, taps) = (weight.shape[0], weight.shape[1], weight.shape[2] * weight.shape[3])
    var result = MutableTensor(uninitialized: [outChannels, taps, inChannels])
    weight.withElements(as: Float.self) { from in
      result.withElements(as: Float.self) { to in
        for out in 0..<outChannels {
          for tap in 0..<taps {
            for channel in 0..<inChannels {
              to[(out * taps + tap) * inChannels + channel] = from[(out * inChannels + channel) * taps + tap]
            }
          }
        }
      }
    }
    return result.finish()
  }

  /// x [H, W, in] fp32 → [H, W, out] fp32, at every precision. If `upsampled`, x is taken as ``upsampleNearest2x(_:)``
  /// of itself, which is never stored, and the result is [2H, 2W, out]; with stride 2 it is [H / 2, W / 2, out].
  public func convolution(_ x: Tensor, _ w: Convolution, upsampled: Bool = false) -> Tensor {
    let scale = upsampled ? 2 : 1
    precondition(x.shape.rank == 3, "convolution of \(x.shape)")
    let height = scale * x.shape[0] / w.stride, width = scale * x.shape[1] / w.stride
    var result = MutableImageRows(MutableTensor(uninitialized: [height, width, w.outChannels]))
    convolution(ImageRows(x), w, upsampled: upsampled, rows: 0..<height, into: &result)
    return result.finish().finish()
  }

  /// As ``convolution(_:_:upsampled:)``, added to `sum` [H, W, out] fp32 in place.
  public func convolution(_ x: Tensor, _ w: Convolution, upsampled: Bool = false, addingTo sum: inout Tensor) {
    precondition(sum.shape.rank == 3, "a sum \(sum.shape)")
    let height = sum.shape[0]
    sum.withMutableTensor { pixels in
      var rows = MutableImageRows(pixels)
      convolution(ImageRows(x), w, upsampled: upsampled, rows: 0..<height, into: &rows, adds: true)
      pixels = rows.finish()
    }
  }

  /// x / max(‖x‖₂, 1e-12) · √C · γ over the channels of x [H, W, C] fp32, then SiLU if asked; γ holds C elements.
  public func channelRMSNorm(_ x: Tensor, gamma: Tensor, silu: Bool) -> Tensor {
    precondition(x.dtype == .fp32 && x.shape.rank >= 1, "channelRMSNorm of \(x.dtype) \(x.shape)")
    let gamma = channelGamma(gamma, x.shape)
    return filled(x.shape, reading: x, gamma) { result in
      channelRMSNorm(
        x.pointer(count: x.elementCount), gamma, silu, result.pointer(count: x.elementCount), count: x.elementCount)
    }
  }

  /// As ``channelRMSNorm(_:gamma:silu:)``, in place on the rows `rows` of x [H, W, C].
  public func channelRMSNorm(_ x: inout MutableTensor, rows: Range<Int>, gamma: Tensor, silu: Bool) {
    let (count, first) = channelRows(rows, x.shape, x.dtype), gamma = channelGamma(gamma, x.shape)
    x.write(reading: gamma) { x in
      let pixels = x.pointer(first, count: count, as: Float.self)
      channelRMSNorm(pixels, gamma, silu, pixels, count: count)
    }
  }

  /// As ``channelRMSNorm(_:gamma:silu:)`` into the rows of `result` [≥ H, W, C] that begin at `start`.
  public func channelRMSNorm(
    _ x: Tensor, gamma: Tensor, silu: Bool, into result: inout MutableTensor, rowsFrom start: Int
  ) {
    let (count, first) = channelRows(start..<start + x.shape[0], result.shape, result.dtype),
      gamma = channelGamma(gamma, x.shape)
    precondition(
      x.dtype == .fp32 && x.shape.dimensions.dropFirst() == result.shape.dimensions.dropFirst(),
      "channelRMSNorm of \(x.dtype) \(x.shape) into \(result.shape)")
    result.write(reading: x, gamma) { result in
      channelRMSNorm(x.pointer(count: count), gamma, silu, result.pointer(first, count: count), count: count)
    }
  }

  /// How many elements some rows of an image have, and the first of them.
  private func channelRows(_ rows: Range<Int>, _ shape: Shape, _ dtype: DType) -> (count: Int, first: Int) {
    precondition(
      dtype == .fp32 && shape.rank >= 1 && rows.lowerBound >= 0 && rows.upperBound <= shape[0],
      "channelRMSNorm of rows \(rows) of \(dtype) \(shape)")
    let width = shape.rowExtents.width
    return (rows.count * width, rows.lowerBound * width)
  }

  private func channelGamma(_ gamma: Tensor, _ shape: Shape) -> Tensor {
    precondition(gamma.elementCount == shape[-1], "gamma \(gamma.shape) for \(shape)")
    return fp32(gamma)
  }

  /// The norm of `count` elements of `x`, whole pixels, into `result`, which may be `x`.
  private func channelRMSNorm(
    _ x: UnsafePointer<Float>, _ gamma: Tensor, _ silu: Bool, _ result: UnsafeMutablePointer<Float>, count: Int
  ) {
    let channels = gamma.elementCount
    parallelRows(channels == 0 ? 0 : count / channels, bytesPerRow: channels * 8) { range in
      functions.channel_rms_norm(
        result + range.lowerBound * channels, x + range.lowerBound * channels, gamma.pointer(count: channels),
        range.count, channels,
        silu ? 1 : 0)
    }
  }

  /// Every pixel of x [H, W, C] fp32 twice in both directions → [2H, 2W, C].
  public func upsampleNearest2x(_ x: Tensor) -> Tensor {
    precondition(x.dtype == .fp32 && x.shape.rank == 3, "upsampleNearest2x of \(x.dtype) \(x.shape)")
    let (height, width, channels) = (x.shape[0], x.shape[1], x.shape[2])
    return filled([2 * height, 2 * width, channels], reading: x) { result in
      parallelRows(2 * height, bytesPerRow: width * channels * 12) { range in
        for row in range {
          let source = x.pointer(row / 2 * width * channels, count: width * channels, as: Float.self)
          let target = result.pointer(row * 2 * width * channels, count: 2 * width * channels, as: Float.self)
          for column in 0..<2 * width {
            (target + column * channels).initialize(from: source + column / 2 * channels, count: channels)
          }
        }
      }
    }
  }
}
