import CKernels
import TensorCore

/// Cosines and sines of rotary position embedding, both fp32 [n, headDim/2].
public struct RotaryTable: Sendable {
  /// Cosines [n, headDim/2].
  public let cos: Tensor
  /// Sines [n, headDim/2].
  public let sin: Tensor

  /// A table of equal-shaped fp32 tensors.
  public init(cos: Tensor, sin: Tensor) {
    precondition(cos.shape == sin.shape && cos.shape.rank == 2, "cosines \(cos.shape), sines \(sin.shape)")
    precondition(cos.dtype == .fp32 && sin.dtype == .fp32, "rotary tables of type \(cos.dtype), \(sin.dtype)")
    self.cos = cos
    self.sin = sin
  }
}

/// Which channels rotary embedding rotates together.
public enum RotaryStyle: Sendable {
  /// Channels 2j and 2j+1 (the MMDiT).
  case interleaved
  /// Channels j and j + headDim/2 (Qwen2.5-VL).
  case rotateHalf
}

extension Compute {
  /// x / √(mean(x²) + ε) ⊙ weight over the rows of x [M, D] fp32, with fp32 statistics; weight [D] of any
  /// floating-point type.
  public func rmsNorm(_ x: Tensor, weight: Tensor, epsilon: Float, output: DType? = nil) -> Tensor {
    let (rows, width) = x.shape.rowExtents
    precondition(
      x.dtype == .fp32 && weight.elementCount == width, "rmsNorm of \(x.dtype) \(x.shape) with weight \(weight.shape)")
    let weight = fp32(weight)
    return filled(x.shape, output ?? activationDType, reading: x, weight) { result in
      parallelRows(rows, bytesPerRow: width * 8) { range in
        let first = range.lowerBound * width, count = range.count * width
        functions.rms_norm(
          result.address(first, count: count), result.dtype.activationType, x.pointer(first, count: count),
          weight.pointer(count: width),
          range.count, width, epsilon)
      }
    }
  }

  /// LayerNorm without affine, then ·(1 + scale) + shift, over the rows of x [M, D] fp32; shift and scale [D] fp32.
  /// → [M, D] of ``activationDType``.
  public func layerNormModulate(_ x: Tensor, shift: Tensor, scale: Tensor, epsilon: Float) -> Tensor {
    var result = MutableTensor(uninitialized: x.shape, activationDType)
    layerNormModulate(x, shift: shift, scale: scale, epsilon: epsilon, into: &result)
    return result.finish()
  }

  /// As ``layerNormModulate(_:shift:scale:epsilon:)`` into the M rows of `result` [≥ M, D], fp32 or bf16, that begin at
  /// `start`.
  public func layerNormModulate(
    _ x: Tensor, shift: Tensor, scale: Tensor, epsilon: Float, into result: inout MutableTensor, rowsFrom start: Int = 0
  ) {
    let (rows, width) = x.shape.rowExtents
    result.requireRows(rows, width, from: start, for: "layerNormModulate")
    precondition(x.dtype == .fp32 && shift.dtype == .fp32 && scale.dtype == .fp32, "layerNormModulate takes fp32")
    precondition(
      shift.elementCount == width && scale.elementCount == width,
      "shift \(shift.shape), scale \(scale.shape) for \(x.shape)")
    result.write(reading: x, shift, scale) { result in
      parallelRows(rows, bytesPerRow: width * 8) { range in
        let first = range.lowerBound * width, count = range.count * width
        functions.layer_norm_modulate(
          result.address(start * width + first, count: count), result.dtype.activationType,
          x.pointer(first, count: count),
          shift.pointer(count: width), scale.pointer(count: width), range.count, width, epsilon)
      }
    }
  }

  /// silu(gate) ⊙ up, of equal shapes and types → ``activationDType``.
  public func siluMultiply(_ gate: Tensor, _ up: Tensor) -> Tensor {
    precondition(
      gate.shape == up.shape && gate.dtype == up.dtype,
      "siluMultiply of \(gate.dtype) \(gate.shape) and \(up.dtype) \(up.shape)")
    return filled(gate.shape, activationDType, reading: gate, up) { result in
      parallelRows(gate.elementCount, bytesPerRow: 8, grain: 16) { range in
        let first = range.lowerBound, count = range.count
        functions.silu_multiply(
          result.address(first, count: count), result.dtype.activationType, gate.address(first, count: count),
          up.address(first, count: count), gate.dtype.activationType, count)
      }
    }
  }

  /// x·σ(x), fp32 → fp32.
  public func silu(_ x: Tensor) -> Tensor { elementwise(x, functions.silu) }

  /// eˣ, fp32 → fp32.
  public func exp(_ x: Tensor) -> Tensor { elementwise(x, functions.exp) }

  private func elementwise(
    _ x: Tensor, _ function: (UnsafeMutablePointer<Float>?, UnsafePointer<Float>?, Int) -> Void
  ) -> Tensor {
    precondition(x.dtype == .fp32, "a function of fp32 numbers on \(x.dtype)")
    return filled(x.shape, reading: x) { result in
      parallelRows(x.elementCount, bytesPerRow: 8, grain: 16) { range in
        function(
          result.pointer(range.lowerBound, count: range.count), x.pointer(range.lowerBound, count: range.count),
          range.count)
      }
    }
  }

  /// In place on x [n, heads·headDim], fp32 or bf16: RMS norm of every head (if there is a weight [headDim]), then
  /// rotary embedding by tables of n rows. The head is kept in fp32 between the two.
  public func headNormRotary(
    _ x: inout Tensor, heads: Int, normWeight: Tensor?, epsilon: Float, rotary: RotaryTable, style: RotaryStyle
  ) {
    x.withMutableTensor {
      headNormRotary(
        &$0, rows: 0..<$0.shape[0], heads: heads, normWeight: normWeight, epsilon: epsilon, rotary: rotary, style: style
      )
    }
  }

  /// As ``headNormRotary(_:heads:normWeight:epsilon:rotary:style:)``, on some rows of x.
  public func headNormRotary(
    _ x: inout MutableTensor, rows: Range<Int>, heads: Int, normWeight: Tensor?, epsilon: Float, rotary: RotaryTable,
    style: RotaryStyle
  ) {
    let width = x.shape.rowExtents.width, shape = x.shape
    x.requireRows(rows.count, width, from: rows.lowerBound, for: "headNormRotary")
    precondition(heads > 0 && width % heads == 0 && width / heads % 2 == 0, "\(heads) heads in \(shape)")
    let headDim = width / heads, half = headDim / 2, weight = normWeight.map(fp32)
    precondition(
      rotary.cos.shape == [rows.count, half],
      "rotary table \(rotary.cos.shape) for \(rows) of \(shape) in \(heads) heads")
    precondition(
      weight.map { $0.elementCount == headDim } ?? true, "norm weight \(normWeight!.shape) for heads of \(headDim)")
    x.write(reading: weight, rotary.cos, rotary.sin) { x in
      parallelRows(rows.count, bytesPerRow: width * x.dtype.byteWidth * 2) { range in
        let start = (rows.lowerBound + range.lowerBound) * width, angle = range.lowerBound * half
        functions.head_norm_rotary(
          x.address(start, count: range.count * width), x.dtype.activationType, range.count, heads, headDim,
          weight?.pointer(count: headDim), epsilon, rotary.cos.pointer(angle, count: range.count * half),
          rotary.sin.pointer(angle, count: range.count * half),
          style == .interleaved ? Int32(CK_INTERLEAVED) : Int32(CK_ROTATE_HALF))
      }
    }
  }

  /// Rows `ids` of a table [V, D] of any floating-point type → fp32 [ids.count, D]. Traps on an id outside the table.
  public func gatherRows(_ table: Tensor, _ ids: [Int]) -> Tensor {
    let (rows, width) = table.shape.rowExtents
    return filled([ids.count, width], reading: table) { result in
      for (position, id) in ids.enumerated() {
        precondition((0..<rows).contains(id), "row \(id) of a table of \(rows)")
        functions.convert(
          result.address(position * width, count: width), DType.fp32.kernelType,
          table.address(id * width, count: width),
          table.dtype.kernelType, width)
      }
    }
  }

  /// Some columns of x [n, D] → [n, columns.count] of the same type.
  public func columns(_ columns: Range<Int>, of x: Tensor) -> Tensor {
    let (rows, width) = x.shape.rowExtents, count = columns.count, bytes = count * x.dtype.byteWidth
    precondition(columns.lowerBound >= 0 && columns.upperBound <= width, "columns \(columns) of \(x.shape)")
    return filled([rows, count], x.dtype, reading: x) { result in
      parallelRows(rows, bytesPerRow: 2 * bytes) { range in
        for row in range {
          result.address(row * count, count: count).copyMemory(
            from: x.address(row * width + columns.lowerBound, count: count), byteCount: bytes)
        }
      }
    }
  }

  /// a += b in place, of equal shapes; fp32 or bf16 each.
  public func add(_ a: inout Tensor, _ b: Tensor) { add(&a, rows: 0..<a.shape[0], b) }

  /// As ``add(_:_:)``, to some rows of a.
  public func add(_ a: inout Tensor, rows: Range<Int>, _ b: Tensor) {
    a.withMutableRows(rows) {
      let shape = $0.shape
      precondition(shape == b.shape, "add of \(shape) and \(b.shape)")
      $0.write(reading: b) { a in
        parallelRows(a.elementCount, bytesPerRow: 8, grain: 16) { range in
          functions.add(
            a.address(range.lowerBound, count: range.count), a.dtype.activationType,
            b.address(range.lowerBound, count: range.count), b.dtype.activationType, range.count)
        }
      }
    }
  }
}

extension MutableTensor {
  /// Traps unless the tensor has `rows` rows of `width` elements from `start` on.
  func requireRows(_ rows: Int, _ width: Int, from start: Int, for operation: String) {
    let extents = shape.rowExtents
    precondition(
      extents.width == width && start >= 0 && start + rows <= extents.rows,
      "\(operation) into rows \(start)..<\(start + rows) of \(shape), \(width) elements each")
  }
}
