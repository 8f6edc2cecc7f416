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
    convolve(x, w, upsampled: upsampled, mode: Int32(CK_STORE), into: result)
    return result
  }

  /// As ``convolution(_:_:upsampled:)``, added to `sum` [H, W, out] fp32 in place.
  public func convolution(_ x: Tensor, _ w: Convolution, upsampled: Bool = false, addingTo sum: inout Tensor) {
    convolve(x, w, upsampled: upsampled, mode: Int32(CK_ADD), into: sum)
  }

  private func convolve(_ x: Tensor, _ w: Convolution, upsampled: Bool, mode: Int32, into result: Tensor) {
    let scale = upsampled ? 2 : 1
    precondition(
      x.shape.rank == 3 && x.dtype == .fp32 && x.shape[2] == w.inChannels, "convolution of \(x.dtype) \(x.shape), \(w.inChannels) channels")
    precondition(
      result.dtype == .fp32 && result.shape == [scale * x.shape[0], scale * x.shape[1], w.outChannels],
      "result \(result.shape) for \(x.shape)")
    let epilogue = ck_epilogue(
      row_scale: nil, column_scale: nil, column_offset: nil, bias: w.bias.pointer(), gate: nil, activation: Int32(CK_NONE), mode: mode,
      out: result.address(0), out_type: Int32(CK_FP32),
      ldo: w.outChannels)
    switch w.weight {
    case .winograd(let weights): winograd(x, weights, w, upsampled: upsampled, mode: mode, into: result)
    case .panels(let panels):
      let source = upsampled ? upsampleNearest2x(x) : x
      let rows = source.reshaped([source.shape[0] * source.shape[1], w.inChannels])
      multiply(rows, PackedOperand(matmul: functions.fp32, panels: panels), outFeatures: w.outChannels, epilogue)
    case .rowMajor(let weight): convolve(upsampled ? upsampleNearest2x(x) : x, rowMajor: weight, w, epilogue)
    }
    withExtendedLifetime((x, w, result)) {}
  }

  private func winograd(_ x: Tensor, _ weights: Tensor, _ w: Convolution, upsampled: Bool, mode: Int32, into result: Tensor) {
    let job = ck_convolution(
      height: result.shape[0], width: result.shape[1], in_channels: w.inChannels, out_channels: w.outChannels, upsampled: upsampled ? 1 : 0,
      add: mode == Int32(CK_ADD) ? 1 : 0, x: x.pointer(), weights: weights.address(0).assumingMemoryBound(to: Float.self),
      bias: w.bias.pointer(),
      out: result.pointer())
    let tiles = (job.height + 3) / 4 * ((job.width + 3) / 4), block = Int(CK_WINOGRAD_TILES)
    let scratchBytes = withUnsafePointer(to: job) { functions.convolution_scratch_bytes($0) }
    pool.parallel((tiles + block - 1) / block) { index in
      let first = index * block
      withScratch(scratchBytes) { scratch in
        withUnsafePointer(to: job) { functions.convolution($0, first, min(block, tiles - first), scratch) }
      }
    }
  }

  private func convolve(_ x: Tensor, rowMajor weight: Tensor, _ w: Convolution, _ epilogue: ck_epilogue) {
    let pixels = x.shape[0] * x.shape[1], depth = w.kernelSize * w.kernelSize * w.inChannels, tile = Sgemm.tileRows
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
          sgemmTile(input, rows: count, depth: depth, weight: weight.pointer() + column * depth, columns: columns) { acc in
            withUnsafePointer(to: epilogue) { functions.epilogue($0, acc, columns, first, count, column, columns) }
          }
        }
      }
    }
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
