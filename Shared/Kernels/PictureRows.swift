import CKernels
import TensorCore

/// Consecutive rows of a picture, the others of which need not be in memory.
public struct PictureRows: Sendable {
  /// [rows, W, channels], fp32.
  public let pixels: Tensor
  /// The picture's row that `pixels` begins with.
  public let first: Int
  /// Rows of the whole picture.
  public let height: Int

  /// Rows from `first` on of a picture of `height` rows.
  public init(_ pixels: Tensor, first: Int, height: Int) {
    precondition(pixels.shape.rank == 3 && pixels.dtype == .fp32, "pixels are \(pixels.dtype) \(pixels.shape)")
    precondition(first >= 0 && first + pixels.shape[0] <= height, "rows from \(first) of \(height) are \(pixels.shape)")
    self.pixels = pixels
    self.first = first
    self.height = height
  }

  /// A whole picture [H, W, channels].
  public init(_ picture: Tensor) { self.init(picture, first: 0, height: picture.shape[0]) }

  /// The rows that are here.
  public var range: Range<Int> { first..<first + pixels.shape[0] }

  /// Some of the rows, [rows.count, W, channels].
  public subscript(rows: Range<Int>) -> Tensor { pixels.rows(rows.lowerBound - first..<rows.upperBound - first) }
}

extension Compute {
  /// Height of the blocks in which a convolution is computed: a part of one begins at a multiple of it.
  public static let convolutionRowGrain = 4

  /// Rows `rows` of a convolution of a picture [H, W, in], into rows of a picture [H, W, out] (twice as high and wide if `upsampled`),
  /// or added to them. The picture's bytes do not depend on the parts it is computed in.
  ///
  /// `rows` begins at a multiple of ``convolutionRowGrain`` and ends at one or at the picture's end; x holds the rows beside
  /// it too (with a 3×3 kernel).
  public func convolution(
    _ x: PictureRows, _ w: Convolution, upsampled: Bool = false, rows: Range<Int>, into out: PictureRows, adds: Bool = false
  ) {
    let scale = upsampled ? 2 : 1, halo = w.kernelSize / 2, (width, grain) = (x.pixels.shape[1], Self.convolutionRowGrain)
    precondition(x.pixels.shape[2] == w.inChannels, "convolution of \(x.pixels.shape), \(w.inChannels) channels")
    precondition(
      out.height == scale * x.height && out.pixels.shape[1] == scale * width && out.pixels.shape[2] == w.outChannels,
      "result \(out.pixels.shape) of \(out.height) rows for \(x.pixels.shape) of \(x.height)")
    precondition(
      rows.lowerBound % grain == 0 && (rows.upperBound % grain == 0 || rows.upperBound == out.height), "rows \(rows) of \(out.height)")
    if rows.isEmpty { return }
    let needed = max(0, rows.lowerBound - halo) / scale..<(min(out.height, rows.upperBound + halo) + scale - 1) / scale
    precondition(x.range.contains(needed) && out.range.contains(rows), "rows \(rows) of \(out.range) from \(x.range)")
    if case .winograd(let weights) = w.weight {
      winograd(x, weights, w, upsampled: upsampled, rows: rows, into: out, adds: adds)
    } else {
      let source = upsampled ? PictureRows(upsampleNearest2x(x[needed]), first: 2 * needed.lowerBound, height: out.height) : x
      product(source, w, rows: rows, into: out, adds: adds)
    }
    withExtendedLifetime((x, w, out)) {}
  }

  private func winograd(
    _ x: PictureRows, _ weights: Tensor, _ w: Convolution, upsampled: Bool, rows: Range<Int>, into out: PictureRows, adds: Bool
  ) {
    let job = ck_convolution(
      height: out.height, width: out.pixels.shape[1], in_channels: w.inChannels, out_channels: w.outChannels, x_row: x.first,
      out_row: out.first, upsampled: upsampled ? 1 : 0, add: adds ? 1 : 0, x: x.pixels.pointer(),
      weights: weights.address(0).assumingMemoryBound(to: Float.self), bias: w.bias.pointer(), out: out.pixels.pointer())
    let across = (job.width + 3) / 4, grain = Self.convolutionRowGrain
    let first = rows.lowerBound / grain * across, tiles = (rows.upperBound + grain - 1) / grain * across - first
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
  }

  /// As a matrix product: of the pixels with a 1×1 kernel, of their neighbourhoods by OpenBLAS.
  private func product(_ x: PictureRows, _ w: Convolution, rows: Range<Int>, into out: PictureRows, adds: Bool) {
    let result = out[rows]
    let epilogue = ck_epilogue(
      row_scale: nil, column_scale: nil, column_offset: nil, bias: w.bias.pointer(), gate: nil, row_gates: nil, activation: Int32(CK_NONE),
      mode: Int32(adds ? CK_ADD : CK_STORE), out: result.address(0), out_type: Int32(CK_FP32), ldo: w.outChannels)
    switch w.weight {
    case .winograd: preconditionFailure("not a matrix product")
    case .panels(let panels):
      let source = x[rows], pixels: Shape = [source.shape[0] * source.shape[1], w.inChannels]
      multiply(source.reshaped(pixels), PackedOperand(matmul: functions.fp32, panels: panels), outFeatures: w.outChannels, epilogue)
    case .rowMajor(let weight): product(x, rowMajor: weight, w, rows: rows, epilogue)
    }
  }

  private func product(_ x: PictureRows, rowMajor weight: Tensor, _ w: Convolution, rows: Range<Int>, _ epilogue: ck_epilogue) {
    let width = x.pixels.shape[1], depth = w.kernelSize * w.kernelSize * w.inChannels, tile = Sgemm.tileRows
    let pixels = rows.count * width
    pool.parallel((pixels + tile - 1) / tile) { index in
      let first = index * tile, count = min(tile, pixels - first)
      withUnsafeTemporaryAllocation(of: Float.self, capacity: count * depth) { patches in
        let start = rows.lowerBound * width + first
        gatherPatches(x, start..<start + count, size: w.kernelSize, patches.baseAddress!)
        for column in stride(from: 0, to: w.outChannels, by: Sgemm.tileColumns) {
          let columns = min(Sgemm.tileColumns, w.outChannels - column)
          let input = UnsafePointer(patches.baseAddress!)
          sgemmTile(input, rows: count, depth: depth, weight: weight.pointer() + column * depth, columns: columns) { acc in
            withUnsafePointer(to: epilogue) { functions.epilogue($0, acc, columns, first, count, column, columns) }
          }
        }
      }
    }
  }

  /// The size×size neighbourhoods of `pixels` (row-major numbers in the picture) as rows [size·size·C], zero outside the picture.
  private func gatherPatches(_ x: PictureRows, _ pixels: Range<Int>, size: Int, _ patches: UnsafeMutablePointer<Float>) {
    let (width, channels, halo) = (x.pixels.shape[1], x.pixels.shape[2], size / 2)
    let source: UnsafeMutablePointer<Float> = x.pixels.pointer()
    var patch = patches
    for pixel in pixels {
      let (row, column) = pixel.quotientAndRemainder(dividingBy: width)
      for y in row - halo...row + halo {
        for at in column - halo...column + halo {
          if (0..<x.height).contains(y) && (0..<width).contains(at) {
            patch.update(from: source + ((y - x.first) * width + at) * channels, count: channels)
          } else {
            patch.update(repeating: 0, count: channels)
          }
          patch += channels
        }
      }
    }
  }
}
