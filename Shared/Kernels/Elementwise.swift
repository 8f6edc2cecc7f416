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
  /// x / √(mean(x²) + ε) ⊙ weight over the rows of x [M, D] fp32, with fp32 statistics; weight [D] of any floating-point type.
  public func rmsNorm(_ x: Tensor, weight: Tensor, epsilon: Float, output: DType? = nil) -> Tensor {
    let (rows, width) = x.rowExtents
    precondition(x.dtype == .fp32 && weight.elementCount == width, "rmsNorm of \(x.dtype) \(x.shape) with weight \(weight.shape)")
    let result = Tensor(uninitialized: x.shape, output ?? activationDType), weight = fp32(weight)
    parallelRows(rows, bytesPerRow: width * 8) { range in
      functions.rms_norm(
        result.address(range.lowerBound * width), result.dtype.kernelType, x.pointer() + range.lowerBound * width, weight.pointer(),
        range.count, width, epsilon)
    }
    return withExtendedLifetime((x, weight)) { result }
  }

  /// LayerNorm without affine, then ·(1 + scale) + shift, over the rows of x [M, D] fp32; shift and scale [D] fp32.
  /// → [M, D] of ``activationDType``.
  public func layerNormModulate(_ x: Tensor, shift: Tensor, scale: Tensor, epsilon: Float) -> Tensor {
    let result = Tensor(uninitialized: x.shape, activationDType)
    layerNormModulate(x, shift: shift, scale: scale, epsilon: epsilon, into: result)
    return result
  }

  /// As ``layerNormModulate(_:shift:scale:epsilon:)`` into `result` [M, D], fp32 or bf16.
  public func layerNormModulate(_ x: Tensor, shift: Tensor, scale: Tensor, epsilon: Float, into result: Tensor) {
    let (rows, width) = x.rowExtents
    precondition(result.shape == x.shape, "layerNormModulate of \(x.shape) into \(result.shape)")
    precondition(x.dtype == .fp32 && shift.dtype == .fp32 && scale.dtype == .fp32, "layerNormModulate takes fp32")
    precondition(shift.elementCount == width && scale.elementCount == width, "shift \(shift.shape), scale \(scale.shape) for \(x.shape)")
    parallelRows(rows, bytesPerRow: width * 8) { range in
      functions.layer_norm_modulate(
        result.address(range.lowerBound * width), result.dtype.kernelType, x.pointer() + range.lowerBound * width, shift.pointer(),
        scale.pointer(), range.count, width, epsilon)
    }
    withExtendedLifetime((x, shift, scale, result)) {}
  }

  /// silu(gate) ⊙ up, of equal shapes and types → ``activationDType``.
  public func siluMultiply(_ gate: Tensor, _ up: Tensor) -> Tensor {
    precondition(
      gate.shape == up.shape && gate.dtype == up.dtype, "siluMultiply of \(gate.dtype) \(gate.shape) and \(up.dtype) \(up.shape)")
    let result = Tensor(uninitialized: gate.shape, activationDType)
    parallelRows(gate.elementCount, bytesPerRow: 8, grain: 16) { range in
      functions.silu_multiply(
        result.address(range.lowerBound), result.dtype.kernelType, gate.address(range.lowerBound), up.address(range.lowerBound),
        gate.dtype.kernelType, range.count)
    }
    return withExtendedLifetime((gate, up)) { result }
  }

  /// x·σ(x), fp32 → fp32.
  public func silu(_ x: Tensor) -> Tensor {
    precondition(x.dtype == .fp32, "silu of \(x.dtype)")
    let result = Tensor(uninitialized: x.shape)
    parallelRows(x.elementCount, bytesPerRow: 8, grain: 16) { range in
      functions.silu(result.pointer() + range.lowerBound, x.pointer() + range.lowerBound, range.count)
    }
    return withExtendedLifetime(x) { result }
  }

  /// In place on x [n, heads·headDim], fp32 or bf16: RMS norm of every head (if there is a weight [headDim]), then rotary
  /// embedding by tables of n rows. The head is kept in fp32 between the two.
  public func headNormRotary(
    _ x: inout Tensor, heads: Int, normWeight: Tensor?, epsilon: Float, rotary: RotaryTable, style: RotaryStyle
  ) {
    let (rows, width) = x.rowExtents
    precondition(heads > 0 && width % heads == 0 && width / heads % 2 == 0, "\(heads) heads in \(x.shape)")
    let headDim = width / heads, target = x, weight = normWeight.map(fp32)
    precondition(rotary.cos.shape == [rows, headDim / 2], "rotary table \(rotary.cos.shape) for \(x.shape) in \(heads) heads")
    precondition(weight.map { $0.elementCount == headDim } ?? true, "norm weight \(normWeight!.shape) for heads of \(headDim)")
    parallelRows(rows, bytesPerRow: width * x.dtype.byteWidth * 2) { range in
      functions.head_norm_rotary(
        target.address(range.lowerBound * width), target.dtype.kernelType, range.count, heads, headDim, weight?.pointer(), epsilon,
        rotary.cos.pointer() + range.lowerBound * (headDim / 2), rotary.sin.pointer() + range.lowerBound * (headDim / 2),
        style == .interleaved ? Int32(CK_INTERLEAVED) : Int32(CK_ROTATE_HALF))
    }
    withExtendedLifetime((target, weight, rotary)) {}
  }

  /// Rows `ids` of a table [V, D] of any floating-point type → fp32 [ids.count, D]. Traps on an id outside the table.
  public func gatherRows(_ table: Tensor, _ ids: [Int]) -> Tensor {
    let (rows, width) = table.rowExtents
    let result = Tensor(uninitialized: [ids.count, width])
    for (position, id) in ids.enumerated() {
      precondition((0..<rows).contains(id), "row \(id) of a table of \(rows)")
      functions.convert(
        result.address(position * width), DType.fp32.kernelType, table.address(id * width), table.dtype.kernelType, width)
    }
    return withExtendedLifetime(table) { result }
  }

  /// a += b in place, of equal shapes; fp32 or bf16 each.
  public func add(_ a: inout Tensor, _ b: Tensor) {
    precondition(a.shape == b.shape, "add of \(a.shape) and \(b.shape)")
    let target = a
    parallelRows(a.elementCount, bytesPerRow: 8, grain: 16) { range in
      functions.add(
        target.address(range.lowerBound), target.dtype.kernelType, b.address(range.lowerBound), b.dtype.kernelType, range.count)
    }
    withExtendedLifetime((target, b)) {}
  }
}
