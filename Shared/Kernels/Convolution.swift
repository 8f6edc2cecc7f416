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
  /// fp32 [out, kernelSize, kernelSize, in].
  let weight: Tensor
  /// fp32 [out].
  let bias: Tensor
}

extension Compute {
  /// Lays out a weight [out, in, 3, 3] or [out, in, 1, 1] and a bias [out], of any floating-point type.
  public func prepareConvolution(weight: Tensor, bias: Tensor) -> Convolution {
    let shape = weight.shape
    precondition(shape.rank == 4 && shape[2] == shape[3] && (shape[2] == 1 || shape[2] == 3), "convolution weight \(shape)")
    precondition(bias.elementCount == shape[0], "bias \(bias.shape) for convolution weight \(shape)")
    let (outChannels, inChannels, size) = (shape[0], shape[1], shape[2])
    let source = fp32(weight), taps = size * size
    let result = Tensor(uninitialized: [outChannels, taps, inChannels])
    let from: UnsafeMutablePointer<Float> = source.pointer(), to: UnsafeMutablePointer<Float> = result.pointer()
    for out in 0..<outChannels {
      for tap in 0..<taps {
        for channel in 0..<inChannels { to[(out * taps + tap) * inChannels + channel] = from[(out * inChannels + channel) * taps + tap] }
      }
    }
    return withExtendedLifetime((source, result)) {
      Convolution(outChannels: outChannels, inChannels: inChannels, kernelSize: size, weight: result, bias: fp32(bias))
    }
  }

  /// x [H, W, in] fp32 → [H, W, out] fp32, at every precision.
  public func convolution(_ x: Tensor, _ w: Convolution) -> Tensor {
    precondition(
      x.shape.rank == 3 && x.dtype == .fp32 && x.shape[2] == w.inChannels, "convolution of \(x.dtype) \(x.shape), \(w.inChannels) channels")
    let height = x.shape[0], width = x.shape[1], pixels = height * width
    let depth = w.kernelSize * w.kernelSize * w.inChannels
    let result = Tensor(uninitialized: [height, width, w.outChannels])
    let epilogue = ck_epilogue(
      bias: w.bias.pointer(), gate: nil, activation: Int32(CK_NONE), mode: Int32(CK_STORE), out: result.address(0),
      out_type: Int32(CK_FP32), ldo: w.outChannels)
    let tile = Sgemm.tileRows
    pool.parallel((pixels + tile - 1) / tile) { index in
      let first = index * tile, count = min(tile, pixels - first)
      withUnsafeTemporaryAllocation(of: Float.self, capacity: w.kernelSize == 1 ? 0 : count * depth) { patches in
        var input = UnsafePointer<Float>(x.pointer(as: Float.self) + first * w.inChannels)
        if w.kernelSize == 3 {
          gatherPatches(x, first..<first + count, patches.baseAddress!)
          input = UnsafePointer(patches.baseAddress!)
        }
        for column in stride(from: 0, to: w.outChannels, by: Sgemm.tileColumns) {
          let columns = min(Sgemm.tileColumns, w.outChannels - column)
          sgemmTile(input, rows: count, depth: depth, weight: w.weight.pointer() + column * depth, columns: columns) { acc in
            withUnsafePointer(to: epilogue) { functions.epilogue($0, acc, columns, first, count, column, columns) }
          }
        }
      }
    }
    return withExtendedLifetime((x, w)) { result }
  }

  /// The 3×3 neighbourhoods of `pixels` (row-major numbers) of x [H, W, C] as rows [3·3·C], zero outside the picture.
  private func gatherPatches(_ x: Tensor, _ pixels: Range<Int>, _ patches: UnsafeMutablePointer<Float>) {
    let (height, width, channels) = (x.shape[0], x.shape[1], x.shape[2])
    let source: UnsafeMutablePointer<Float> = x.pointer()
    var patch = patches
    for pixel in pixels {
      let (row, column) = pixel.quotientAndRemainder(dividingBy: width)
      for y in row - 1...row + 1 {
        for x in column - 1...column + 1 {
          if (0..<height).contains(y) && (0..<width).contains(x) {
            patch.update(from: source + (y * width + x) * channels, count: channels)
          } else {
            patch.update(repeating: 0, count: channels)
          }
          patch += channels
        }
      }
    }
  }

  /// x / max(‖x‖₂, 1e-12) · √C · γ over the channels of x [H, W, C] fp32, then SiLU if asked; γ holds C elements.
  public func channelRMSNorm(_ x: Tensor, gamma: Tensor, silu: Bool) -> Tensor {
    precondition(x.dtype == .fp32 && x.shape.rank >= 1, "channelRMSNorm of \(x.dtype) \(x.shape)")
    let channels = x.shape[-1], gamma = fp32(gamma)
    precondition(gamma.elementCount == channels, "gamma \(gamma.shape) for \(x.shape)")
    let result = Tensor(uninitialized: x.shape)
    parallelRows(channels == 0 ? 0 : x.elementCount / channels, bytesPerRow: channels * 8) { range in
      functions.channel_rms_norm(
        result.pointer() + range.lowerBound * channels, x.pointer() + range.lowerBound * channels, gamma.pointer(), range.count,
        channels, silu ? 1 : 0)
    }
    return withExtendedLifetime((x, gamma)) { result }
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
