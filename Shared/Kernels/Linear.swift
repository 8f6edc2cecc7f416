import CKernels
import TensorCore

/// What a linear layer applies to its result.
public enum Activation: Sendable {
  /// Nothing.
  case none
  /// ½x(1 + tanh(√(2/π)(x + 0.044715x³))).
  case geluTanh
  /// x·Φ(x), with the distribution function Φ of the normal distribution.
  case gelu
  /// x·σ(x).
  case silu

  var kernelActivation: Int32 {
    switch self {
    case .none: Int32(CK_NONE)
    case .geluTanh: Int32(CK_GELU_TANH)
    case .gelu: Int32(CK_GELU)
    case .silu: Int32(CK_SILU)
    }
  }
}

/// A linear layer with packed weights: x ↦ x·(W + ΔW)ᵀ + b, where ΔW is what adapters add
/// (``Compute/updated(_:by:)``), if any.
public struct Linear: Sendable {
  /// Extent of the result.
  public let outFeatures: Int
  /// Extent of the input.
  public let inFeatures: Int
  /// Inputs that are rotated together, ``rotationGroup(inFeatures:)``, before they are multiplied with weights that
  /// were rotated alike; 1: they are not.
  public let rotation: Int
  let weight: PreparedWeight
  /// fp32 [out].
  let bias: Tensor?
  /// ΔW; nil: there is none.
  var update: LinearUpdate? = nil
}

extension Linear {
  /// The numbers of inputs that can be rotated together, the largest first.
  public static let rotationGroups = [256, 64, 16]

  /// Inputs that a layer with `inFeatures` of them rotates together: the most of 16, 64 and 256 that divide them; 1:
  /// none do.
  public static func rotationGroup(inFeatures: Int) -> Int { rotationGroups.first { inFeatures % $0 == 0 } ?? 1 }
}

/// The kernels' form of a weight matrix [out, in]; panels are described in ckernels.h.
enum PreparedWeight: Sendable {
  /// fp32 as it was given, possibly a file mapping; for OpenBLAS.
  case rowMajor(Tensor)
  /// Panels of fp32.
  case fp32(Tensor)
  /// Panels of bf16.
  case bf16(Tensor)
  /// Panels of int8, and per output channel a scale (fp32) and 128 times the sum of its weights (int32).
  case int8(Tensor, scales: Tensor, offsets: Tensor)
  /// Panels of 4-bit groups that are expanded to int8, and the same per output channel.
  case q4(Tensor, scales: Tensor, offsets: Tensor)
}

extension Compute {
  /// Packs a weight [out, in] of type fp32, bf16 or fp16, and a bias [out] of any of these types. A layer may be kept
  /// at another precision than the rest; all but fp32 take part in a computation at any other.
  ///
  /// - Parameter rotates: whether groups of inputs, of weights and activations, are multiplied with a Hadamard matrix
  ///   before they are quantised (ConvRot, https://arxiv.org/abs/2512.03673): what is large in one input is spread over
  ///   its group. Without effect on precisions that do not quantise.
  public func prepareLinear(
    weight: Tensor, bias: Tensor? = nil, precision: Precision? = nil, rotates: Bool = false
  ) -> Linear {
    precondition(weight.shape.rank == 2 && weight.elementCount > 0, "weight \(weight.shape) is not a matrix")
    let out = weight.shape[0], depth = weight.shape[1]
    precondition(bias.map { $0.elementCount == out } ?? true, "bias \(bias!.shape) for weight \(weight.shape)")
    let precision = precision ?? self.precision
    let rotation = rotates && [.int8, .q4].contains(precision) ? Linear.rotationGroup(inFeatures: depth) : 1
    let prepared: PreparedWeight =
      switch precision {
      case .fp32: matrixLibrary == .openBLAS ? .rowMajor(fp32(weight)) : .fp32(packed(weight, functions.fp32))
      case .bf16: .bf16(packed(weight, functions.bf16))
      case .int8: packedInt8(weight, rotation)
      case .q4: packedQ4(weight, rotation)
      }
    return Linear(
      outFeatures: out, inFeatures: depth, rotation: rotation, weight: prepared, bias: bias.map(fp32))
  }

  /// act(x·Wᵀ + b) for x [M, in] → [M, out] of type `output` (by default ``activationDType``). fp32 input is rounded to
  /// the activation type while it is packed.
  public func linear(_ x: Tensor, _ w: Linear, activation: Activation = .none, output: DType? = nil) -> Tensor {
    var out = MutableTensor(uninitialized: [x.shape.rowExtents.rows, w.outFeatures], output ?? activationDType)
    linear(x, w, activation: activation, into: &out)
    return out.finish()
  }

  /// act(x·Wᵀ + b) into the M rows of `out` [≥ M, out], fp32 or bf16, that begin at `start`.
  public func linear(
    _ x: Tensor, _ w: Linear, activation: Activation = .none, into out: inout MutableTensor, rowsFrom start: Int = 0
  ) {
    multiply(
      x, w, into: &out, rowsFrom: start, Treatment(activation: activation.kernelActivation, mode: Int32(CK_STORE)))
  }

  /// As ``linear(_:_:activation:into:rowsFrom:)`` of rows that other layers read too.
  public func linear(
    _ x: SharedRows, _ w: Linear, activation: Activation = .none, into out: inout MutableTensor,
    rowsFrom start: Int = 0
  ) {
    multiply(
      x.rows, shared: x, w, into: &out, rowsFrom: start,
      Treatment(activation: activation.kernelActivation, mode: Int32(CK_STORE)))
  }

  /// residual [M, out] fp32 += gate ⊙ (x·Wᵀ + b) in place; gate [out] fp32, or nil for ones.
  public func linear(_ x: Tensor, _ w: Linear, addingTo residual: inout Tensor, gate: Tensor? = nil) {
    precondition(residual.dtype == .fp32, "residual of type \(residual.dtype)")
    precondition(
      gate.map { $0.dtype == .fp32 && $0.elementCount == w.outFeatures } ?? true,
      "gate \(gate!.shape) for \(w.outFeatures) outputs")
    add(x, w, to: &residual, Treatment(gate: gate?.pointer(count: w.outFeatures), mode: Int32(CK_ADD)))
    withExtendedLifetime(gate) {}
  }

  /// As ``linear(_:_:addingTo:gate:)`` with gates [out] of their own for ranges of rows, which follow one another from
  /// the first row to the last.
  public func linear(
    _ x: Tensor, _ w: Linear, addingTo residual: inout Tensor, gates: [(rows: Range<Int>, gate: Tensor)]
  ) {
    if gates.count == 1, gates[0].rows == 0..<residual.shape[0] {
      return linear(x, w, addingTo: &residual, gate: gates[0].gate)
    }
    precondition(residual.dtype == .fp32, "residual of type \(residual.dtype)")
    var pointers: [UnsafePointer<Float>?] = []
    for (rows, gate) in gates {
      precondition(rows.lowerBound == pointers.count, "gate for rows \(rows) after \(pointers.count)")
      precondition(
        gate.dtype == .fp32 && gate.elementCount == w.outFeatures, "gate \(gate.shape) for \(w.outFeatures) outputs")
      pointers += Array(repeating: gate.pointer(count: w.outFeatures), count: rows.count)
    }
    precondition(pointers.count == residual.shape[0], "gates for \(pointers.count) rows of \(residual.shape)")
    pointers.withUnsafeBufferPointer {
      add(x, w, to: &residual, Treatment(rowGates: $0.baseAddress, mode: Int32(CK_ADD)))
    }
    withExtendedLifetime(gates) {}
  }

  private func add(_ x: Tensor, _ w: Linear, to residual: inout Tensor, _ treatment: Treatment) {
    precondition(
      residual.shape.rowExtents.rows == x.shape.rowExtents.rows, "products of \(x.shape) added to \(residual.shape)")
    residual.withMutableTensor { multiply(x, w, into: &$0, rowsFrom: 0, treatment) }
  }

  /// What becomes of the products of a layer.
  private struct Treatment {
    /// [out], or nil.
    var gate: UnsafePointer<Float>?
    /// For every row a gate [out], or nil.
    var rowGates: UnsafePointer<UnsafePointer<Float>?>?
    var activation = Int32(CK_NONE)
    var mode: Int32
  }

  private func multiply(
    _ x: Tensor, shared: SharedRows? = nil, _ w: Linear, into out: inout MutableTensor, rowsFrom start: Int,
    _ treatment: Treatment
  ) {
    let (rows, depth) = x.shape.rowExtents
    precondition(depth == w.inFeatures, "input \(x.shape) for a layer of \(w.inFeatures) inputs")
    out.requireRows(rows, w.outFeatures, from: start, for: "a linear layer")
    if rows == 0 || w.outFeatures == 0 { return }
    let addend = w.update.flatMap { kroneckerProducts(x, $0, outFeatures: w.outFeatures) }
    let lowRank = w.update?.lowRank
    out.write(reading: x, w.bias, addend) { out in
      let result = out.address(start * w.outFeatures, count: rows * w.outFeatures)
      let epilogue = ck_epilogue(
        row_scale: nil, column_scale: nil, column_offset: nil, addend: addend?.pointer(count: rows * w.outFeatures),
        bias: w.bias?.pointer(count: w.outFeatures), gate: treatment.gate,
        row_gates: treatment.rowGates, activation: treatment.activation, mode: treatment.mode, out: result,
        out_type: out.dtype.activationType, ldo: w.outFeatures)
      switch w.weight {
      case .rowMajor(let weight): multiply(x, rowMajor: weight, lowRank, epilogue)
      case .fp32(let panels):
        let operand = PackedOperand(operand: .fp32, panels: panels, lowRank: lowRank, shared: shared)
        multiply(x, operand, outFeatures: w.outFeatures, epilogue)
      case .bf16(let panels):
        let operand = PackedOperand(operand: .bf16, panels: panels, lowRank: lowRank, shared: shared)
        multiply(x, operand, outFeatures: w.outFeatures, epilogue)
      case .int8(let panels, let scales, let offsets), .q4(let panels, let scales, let offsets):
        var epilogue = epilogue
        epilogue.column_scale = scales.pointer(count: w.outFeatures)
        epilogue.column_offset = offsets.pointer(count: w.outFeatures)
        var rowScales = MutableTensor(uninitialized: [min(rows, Self.slabRows)])
        rowScales.write(reading: scales, offsets) { rowScales in
          epilogue.row_scale = UnsafePointer(rowScales.pointer(count: rowScales.elementCount, as: Float.self))
          multiply(
            x,
            PackedOperand(
              operand: .int8, panels: panels, format: Int32(w.precision == .q4 ? CK_Q4 : CK_PLAIN),
              rotation: w.rotation, rowScales: rowScales, lowRank: lowRank, shared: shared),
            outFeatures: w.outFeatures, epilogue)
        }
      }
    }
  }
}
