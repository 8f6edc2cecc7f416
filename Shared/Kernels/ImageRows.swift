import CKernels
import TensorCore

/// Consecutive rows of an image, the others of which need not be in memory.
public struct ImageRows: Sendable {
  /// [rows, W, channels], fp32.
  public let pixels: Tensor
  /// The image's row that `pixels` begins with.
  public let first: Int
  /// Rows of the whole image.
  public let height: Int

  /// Rows from `first` on of an image of `height` rows.
  public init(_ pixels: Tensor, first: Int, height: Int) {
    precondition(pixels.shape.rank == 3 && pixels.dtype == .fp32, "pixels are \(pixels.dtype) \(pixels.shape)")
    precondition(first >= 0 && first + pixels.shape[0] <= height, "rows from \(first) of \(height) are \(pixels.shape)")
    self.pixels = pixels
    self.first = first
    self.height = height
  }

  /// A whole image [H, W, channels].
  public init(_ image: Tensor) { self.init(image, first: 0, height: image.shape[0]) }

  /// The rows that are here.
  public var range: Range<Int> { first..<first + pixels.shape[0] }

  /// Some of the rows, [rows.count, W, channels].
  public subscript(rows: Range<Int>) -> Tensor { pixels.rows(rows.lowerBound - first..<rows.upperBound - first) }
}

/// Consecutive rows of an image that is being computed, the others of which need not be in memory.
public struct MutableImageRows: ~Copyable {
  var pixels: MutableTensor
  /// The image's row that the rows begin with.
  public let first: Int
  /// Rows of the whole image.
  public let height: Int

  /// The rows [rows, W, channels], fp32, from `first` on of an image of `height` rows.
  public init(_ pixels: consuming MutableTensor, first: Int, height: Int) {
    precondition(pixels.shape.rank == 3 && pixels.dtype == .fp32, "pixels are \(pixels.dtype) \(pixels.shape)")
    precondition(first >= 0 && first + pixels.shape[0] <= height, "rows from \(first) of \(height) are \(pixels.shape)")
    self.pixels = pixels
    self.first = first
    self.height = height
  }

  /// A whole image [H, W, channels].
  public init(_ image: consuming MutableTensor) {
    let height = image.shape[0]
    self.init(image, first: 0, height: height)
  }

  /// Extents of the rows: [rows, W, channels].
  public var shape: Shape { pixels.shape }

  /// The rows that are here.
  public var range: Range<Int> { first..<first + pixels.shape[0] }

  /// Copies rows `rows` of an image of the same extents.
  public mutating func copy(_ source: ImageRows, rows: Range<Int>) {
    pixels.copy(source[rows], toRowsFrom: rows.lowerBound - first)
  }

  /// The rows' pixels.
  public consuming func finish() -> MutableTensor { pixels }
}

extension Compute {
  /// Height of the blocks in which a convolution is computed: a part of one begins at a multiple of it.
  public static let convolutionRowGrain = 4

  /// Rows `rows` of a convolution of an image [H, W, in], into rows of an image [H, W, out] (twice as high and wide if
  /// `upsampled`, half with stride 2), or added to them. The image's bytes do not depend on the parts it is computed
  /// in.
  ///
  /// `rows` begins at a multiple of ``convolutionRowGrain`` and ends at one or at the image's end; x holds the rows
  /// beside it too (with a 3×3 kernel): with stride 2 the rows from twice its beginning through twice its end.
  public func convolution(
    _ x: ImageRows, _ w: Convolution, upsampled: Bool = false, rows: Range<Int>, into out: inout MutableImageRows,
    adds: Bool = false
  ) {
    let scale = upsampled ? 2 : 1, (width, grain) = (x.pixels.shape[1], Self.convolutionRowGrain)
    let (outShape, outRange, height) = (out.shape, out.range, out.height)
    precondition(x.pixels.shape[2] == w.inChannels, "convolution of \(x.pixels.shape), \(w.inChannels) channels")
    precondition(!upsampled || w.stride == 1, "convolution of an upsampled image with stride \(w.stride)")
    precondition(
      height == scale * x.height / w.stride && outShape[1] == scale * width / w.stride && outShape[2] == w.outChannels,
      "result \(outShape) of \(height) rows for \(x.pixels.shape) of \(x.height)")
    precondition(
      rows.lowerBound % grain == 0 && (rows.upperBound % grain == 0 || rows.upperBound == height),
      "rows \(rows) of \(height)")
    if rows.isEmpty { return }
    let needed = w.inputRows(of: rows, height: x.height, scale: scale)
    precondition(x.range.contains(needed) && outRange.contains(rows), "rows \(rows) of \(outRange) from \(x.range)")
    let part = ImagePart(rows: rows, first: out.first, height: height, width: outShape[1], adds: adds)
    out.pixels.write(reading: x.pixels, w.bias) { out in
      if case .winograd(let weights) = w.weight {
        winograd(x, weights, w, upsampled: upsampled, part, into: out)
      } else {
        let source =
          upsampled ? ImageRows(upsampleNearest2x(x[needed]), first: 2 * needed.lowerBound, height: height) : x
        product(source, w, part, into: out)
      }
    }
  }

  /// As ``channelRMSNorm(_:gamma:silu:)``, from rows `rows` of an image into the same rows of another one of its
  /// extents.
  public func channelRMSNorm(
    _ x: ImageRows, rows: Range<Int>, gamma: Tensor, silu: Bool, into result: inout MutableImageRows
  ) {
    let start = rows.lowerBound - result.first
    channelRMSNorm(x[rows], gamma: gamma, silu: silu, into: &result.pixels, rowsFrom: start)
  }

  /// As ``channelRMSNorm(_:gamma:silu:)``, in place on rows `rows` of an image.
  public func channelRMSNorm(_ x: inout MutableImageRows, rows: Range<Int>, gamma: Tensor, silu: Bool) {
    let part = rows.lowerBound - x.first..<rows.upperBound - x.first
    channelRMSNorm(&x.pixels, rows: part, gamma: gamma, silu: silu)
  }

  /// The rows of a convolution's result that are to be computed.
  private struct ImagePart {
    let rows: Range<Int>
    /// The image's row that the memory begins with.
    let first: Int
    /// Extents of the whole image.
    let height: Int
    let width: Int
    /// Whether the result is added to what is there.
    let adds: Bool
  }

  private func winograd(
    _ x: ImageRows, _ weights: Tensor, _ w: Convolution, upsampled: Bool, _ part: ImagePart, into out: Output
  ) {
    let job = ck_convolution(
      height: part.height, width: part.width, in_channels: w.inChannels, out_channels: w.outChannels, x_row: x.first,
      out_row: part.first, upsampled: upsampled ? 1 : 0, add: part.adds ? 1 : 0,
      x: x.pixels.pointer(count: x.pixels.elementCount),
      weights: weights.pointer(count: weights.elementCount), bias: w.bias.pointer(count: w.outChannels),
      out: out.pointer(count: out.elementCount))
    let across = (job.width + 3) / 4, grain = Self.convolutionRowGrain
    let first = part.rows.lowerBound / grain * across,
      tiles = (part.rows.upperBound + grain - 1) / grain * across - first
    let blocks = (tiles + Int(CK_WINOGRAD_TILES) - 1) / Int(CK_WINOGRAD_TILES)
    let scratchBytes = withUnsafePointer(to: job) { functions.convolution_scratch_bytes($0) }
    // As many blocks for every thread, of about the same size; their extents change no result.
    let count = (blocks + pool.threadCount - 1) / pool.threadCount * pool.threadCount
    pool.parallel(count) { index in
      let (start, end) = (index * tiles / count, (index + 1) * tiles / count)
      if start == end { return }
      withScratch(scratchBytes) { scratch in
        withUnsafePointer(to: job) { functions.convolution($0, first + start, end - start, scratch) }
      }
    }
    withExtendedLifetime(weights) {}
  }

  /// As a matrix product: of the pixels with a 1×1 kernel, of their neighbourhoods with stride 2 or by OpenBLAS.
  private func product(_ x: ImageRows, _ w: Convolution, _ part: ImagePart, into out: Output) {
    let rowElements = part.width * w.outChannels
    let result = out.address((part.rows.lowerBound - part.first) * rowElements, count: part.rows.count * rowElements)
    let epilogue = ck_epilogue(
      row_scale: nil, column_scale: nil, column_offset: nil, addend: nil,
      bias: w.bias.pointer(count: w.outChannels), gate: nil, row_gates: nil,
      activation: Int32(CK_NONE), mode: Int32(part.adds ? CK_ADD : CK_STORE), out: result, out_type: Int32(CK_FP32),
      ldo: w.outChannels)
    switch w.weight {
    case .winograd: preconditionFailure("not a matrix product")
    case .panels(let panels) where w.stride == 2: patchProduct(x, panels, w, part, epilogue)
    case .panels(let panels):
      let source = x[part.rows], pixels: Shape = [source.shape[0] * source.shape[1], w.inChannels]
      multiply(
        source.reshaped(pixels), PackedOperand(operand: .fp32, panels: panels), outFeatures: w.outChannels,
        epilogue)
    case .rowMajor(let weight): product(x, rowMajor: weight, w, part, epilogue)
    }
  }

  /// With stride 2: patches are gathered while they are packed.
  private func patchProduct(
    _ x: ImageRows, _ panels: Tensor, _ w: Convolution, _ part: ImagePart, _ epilogue: ck_epilogue
  ) {
    let depth = w.kernelSize * w.kernelSize * w.inChannels, first = part.rows.lowerBound * part.width
    let patches = ck_patches(
      height: x.height, width: x.pixels.shape[1], channels: w.inChannels, x_row: x.first,
      x: x.pixels.pointer(count: x.pixels.elementCount))
    multiply(
      rows: part.rows.count * part.width, depth: depth, of: x.pixels,
      PackedOperand(operand: .fp32, panels: panels), outFeatures: w.outChannels, epilogue
    ) { range, packed, _ in
      withUnsafePointer(to: patches) {
        functions.pack_patches(
          packed.assumingMemoryBound(to: Float.self), $0, first + range.lowerBound, range.count)
      }
    }
  }

  private func product(
    _ x: ImageRows, rowMajor weight: Tensor, _ w: Convolution, _ part: ImagePart, _ epilogue: ck_epilogue
  ) {
    let depth = w.kernelSize * w.kernelSize * w.inChannels, tile = Sgemm.tileRows
    let pixels = part.rows.count * part.width
    pool.parallel((pixels + tile - 1) / tile) { index in
      let first = index * tile, count = min(tile, pixels - first)
      withUnsafeTemporaryAllocation(of: Float.self, capacity: count * depth) { patches in
        let start = part.rows.lowerBound * part.width + first
        gatherPatches(x, start..<start + count, of: part.width, w, patches)
        for column in stride(from: 0, to: w.outChannels, by: Sgemm.tileColumns) {
          let columns = min(Sgemm.tileColumns, w.outChannels - column)
          sgemmTile(
            UnsafePointer(patches.baseAddress!), rows: count, depth: depth,
            weight: weight.pointer(column * depth, count: columns * depth), columns: columns
          ) { acc in
            withUnsafePointer(to: epilogue) { functions.epilogue($0, acc, columns, first, count, column, columns) }
          }
        }
      }
    }
    withExtendedLifetime(weight) {}
  }

  /// What `pixels` of the result (row-major numbers in an image of `across` columns) depend on as rows [size·size·C] of
  /// `patches`, zero outside the image.
  private func gatherPatches(
    _ x: ImageRows, _ pixels: Range<Int>, of across: Int, _ w: Convolution,
    _ patches: UnsafeMutableBufferPointer<Float>
  ) {
    let (width, channels, size) = (x.pixels.shape[1], x.pixels.shape[2], w.kernelSize)
    precondition(
      patches.count == pixels.count * size * size * channels, "\(patches.count) elements for \(pixels.count) patches")
    var patch = patches.baseAddress!
    for pixel in pixels {
      let row = pixel / across * w.stride - w.leadingPadding, column = pixel % across * w.stride - w.leadingPadding
      for y in row..<row + size {
        for at in column..<column + size {
          if (0..<x.height).contains(y) && (0..<width).contains(at) {
            patch.update(
              from: x.pixels.pointer(((y - x.first) * width + at) * channels, count: channels), count: channels)
          } else {
            patch.update(repeating: 0, count: channels)
          }
          patch += channels
        }
      }
    }
  }
}
