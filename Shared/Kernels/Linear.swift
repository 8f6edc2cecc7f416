import CKernels
import TensorCore

/// What a linear layer applies to its result.
public enum Activation: Sendable {
  /// Nothing.
  case none
  /// ½x(1 + tanh(√(2/π)(x + 0.044715x³))).
  case geluTanh
  /// x·σ(x).
  case silu

  var kernelActivation: Int32 {
    switch self {
    case .none: Int32(CK_NONE)
    case .geluTanh: Int32(CK_GELU_TANH)
    case .silu: Int32(CK_SILU)
    }
  }
}

/// A linear layer whose weight has been laid out for the kernels: x ↦ x·Wᵀ + b.
public struct Linear: Sendable {
  /// Extent of the result.
  public let outFeatures: Int
  /// Extent of the input.
  public let inFeatures: Int
  let weight: PreparedWeight
  /// fp32 [out].
  let bias: Tensor?
}

/// The kernels' form of a weight matrix [out, in].
enum PreparedWeight: Sendable {
  /// fp32 as it was given, possibly a file mapping; for OpenBLAS.
  case rowMajor(Tensor)
  /// Panels of fp32 or bf16, by the precision; see ckernels.h.
  case panels(Tensor)
}

extension Compute {
  /// Lays out a weight [out, in] of type fp32, bf16 or fp16, and a bias [out] of any of these types.
  public func prepareLinear(weight: Tensor, bias: Tensor? = nil) -> Linear {
    precondition(weight.shape.rank == 2, "weight \(weight.shape) is not a matrix")
    let out = weight.shape[0], depth = weight.shape[1]
    precondition(bias.map { $0.elementCount == out } ?? true, "bias \(bias!.shape) for weight \(weight.shape)")
    let useBLAS = precision == .fp32 && matrixLibrary == .openBLAS
    let prepared: PreparedWeight = useBLAS ? .rowMajor(fp32(weight)) : .panels(packed(weight, matmul))
    return Linear(outFeatures: out, inFeatures: depth, weight: prepared, bias: bias.map(fp32))
  }

  /// A weight [out, in] as panels of the operand type of `matmul`.
  func packed(_ weight: Tensor, _ matmul: ck_matmul) -> Tensor {
    let out = weight.shape[0], depth = weight.shape[1]
    let panels = Tensor(uninitialized: [matmul.packed_b_bytes(out, depth)], .uint8)
    let panelBytes = matmul.packed_b_bytes(1, depth)
    let target = panels.mutableBytes.baseAddress!
    pool.parallel((out + matmul.panel_columns - 1) / matmul.panel_columns) { index in
      let column = index * matmul.panel_columns
      matmul.pack_b(
        target + index * panelBytes, weight.address(column * depth), weight.dtype.kernelType, depth,
        min(matmul.panel_columns, out - column), depth)
    }
    return withExtendedLifetime(weight) { panels }
  }

  /// act(x·Wᵀ + b) for x [M, in] → [M, out] of type `output` (by default ``activationDType``). fp32 input is rounded to the
  /// activation type while it is packed.
  public func linear(_ x: Tensor, _ w: Linear, activation: Activation = .none, output: DType? = nil) -> Tensor {
    let out = Tensor(uninitialized: [x.rowExtents.rows, w.outFeatures], output ?? activationDType)
    linear(x, w, activation: activation, into: out)
    return out
  }

  /// act(x·Wᵀ + b) into `out` [M, out], fp32 or bf16: a tensor of its own or rows of a larger one.
  public func linear(_ x: Tensor, _ w: Linear, activation: Activation = .none, into out: Tensor) {
    multiply(x, w, into: out, gate: nil, activation: activation, mode: Int32(CK_STORE))
  }

  /// residual [M, out] fp32 += gate ⊙ (x·Wᵀ + b) in place; gate [out] fp32, or nil for ones.
  public func linear(_ x: Tensor, _ w: Linear, addingTo residual: inout Tensor, gate: Tensor? = nil) {
    precondition(residual.dtype == .fp32, "residual of type \(residual.dtype)")
    precondition(
      gate.map { $0.dtype == .fp32 && $0.elementCount == w.outFeatures } ?? true, "gate \(gate!.shape) for \(w.outFeatures) outputs")
    multiply(x, w, into: residual, gate: gate, activation: .none, mode: Int32(CK_ADD))
  }

  private func multiply(_ x: Tensor, _ w: Linear, into out: Tensor, gate: Tensor?, activation: Activation, mode: Int32) {
    let (rows, depth) = x.rowExtents
    precondition(depth == w.inFeatures, "input \(x.shape) for a layer of \(w.inFeatures) inputs")
    precondition(out.rowExtents == (rows, w.outFeatures), "result \(out.shape) of \(rows) rows and \(w.outFeatures) outputs")
    if rows == 0 || w.outFeatures == 0 { return }
    let epilogue = ck_epilogue(
      bias: w.bias.map { UnsafePointer($0.pointer(as: Float.self)) }, gate: gate.map { UnsafePointer($0.pointer(as: Float.self)) },
      activation: activation.kernelActivation, mode: mode, out: out.address(0), out_type: out.dtype.kernelType, ldo: w.outFeatures)
    switch w.weight {
    case .rowMajor(let weight): multiply(x, rowMajor: weight, epilogue)
    case .panels(let panels): multiply(x, panels: panels, outFeatures: w.outFeatures, matmul, epilogue)
    }
    withExtendedLifetime((x, w, out, gate)) {}
  }

  // Activations are packed in slabs, which bounds the scratch; a slab's tiles are small enough to share out evenly.
  private static let slabRows = 1536
  private static let tileRows = 384
  private static let tilePanels = 4

  /// The product of x [M, in], read row by row, with packed weights.
  func multiply(_ x: Tensor, panels: Tensor, outFeatures: Int, _ matmul: ck_matmul, _ epilogue: ck_epilogue) {
    let (rows, depth) = x.rowExtents
    let panelCount = (outFeatures + matmul.panel_columns - 1) / matmul.panel_columns
    let panelBytes = matmul.packed_a_bytes(1, depth)
    let scratch = TensorStorage(byteCount: matmul.packed_a_bytes(min(rows, Self.slabRows), depth))
    let packed = Tensor(shape: [scratch.byteCount], dtype: .uint8, storage: scratch, byteOffset: 0)
    for slab in stride(from: 0, to: rows, by: Self.slabRows) {
      let slabRows = min(Self.slabRows, rows - slab)
      parallelRows(slabRows, bytesPerRow: depth * 4, grain: matmul.panel_rows) { range in
        matmul.pack_a(
          packed.address(range.lowerBound / matmul.panel_rows * panelBytes), x.address((slab + range.lowerBound) * depth),
          x.dtype.kernelType, depth, range.count, depth)
      }
      var slabEpilogue = epilogue
      slabEpilogue.out = epilogue.out + slab * outFeatures * (epilogue.out_type == Int32(CK_FP32) ? 4 : 2)
      let gemm = ck_gemm(m: slabRows, n: outFeatures, k: depth, a: packed.address(0), b: panels.address(0), epilogue: slabEpilogue)
      let rowTiles = (slabRows + Self.tileRows - 1) / Self.tileRows
      let columnTiles = (panelCount + Self.tilePanels - 1) / Self.tilePanels
      pool.parallel(rowTiles * columnTiles) { index in
        let row = index % rowTiles * Self.tileRows, panel = index / rowTiles * Self.tilePanels
        let height = min(Self.tileRows, slabRows - row), panels = min(Self.tilePanels, panelCount - panel)
        withUnsafeTemporaryAllocation(byteCount: matmul.tile_scratch_bytes(height, panels), alignment: 64) { scratch in
          withUnsafePointer(to: gemm) { matmul.tile($0, row, height, panel, panels, scratch.baseAddress) }
        }
      }
    }
    withExtendedLifetime((packed, panels)) {}
  }

  private func multiply(_ x: Tensor, rowMajor weight: Tensor, _ epilogue: ck_epilogue) {
    precondition(x.dtype == .fp32, "input of type \(x.dtype) for an fp32 layer")
    let (rows, depth) = x.rowExtents, outFeatures = weight.shape[0]
    let rowTiles = (rows + Sgemm.tileRows - 1) / Sgemm.tileRows
    let columnTiles = (outFeatures + Sgemm.tileColumns - 1) / Sgemm.tileColumns
    pool.parallel(rowTiles * columnTiles) { index in
      let row = index % rowTiles * Sgemm.tileRows, column = index / rowTiles * Sgemm.tileColumns
      let height = min(Sgemm.tileRows, rows - row), width = min(Sgemm.tileColumns, outFeatures - column)
      let input = UnsafePointer(x.pointer(as: Float.self) + row * depth)
      sgemmTile(input, rows: height, depth: depth, weight: weight.pointer(as: Float.self) + column * depth, columns: width) { acc in
        withUnsafePointer(to: epilogue) { functions.epilogue($0, acc, width, row, height, column, width) }
      }
    }
    withExtendedLifetime((x, weight)) {}
  }

  /// Calls `body` with the products [rows, columns] of a tile's input rows [rows, depth] and weight rows [columns, depth].
  func sgemmTile(
    _ input: UnsafePointer<Float>, rows: Int, depth: Int, weight: UnsafePointer<Float>, columns: Int,
    _ body: (UnsafePointer<Float>) -> Void
  ) {
    withUnsafeTemporaryAllocation(of: Float.self, capacity: rows * columns) { acc in
      Sgemm.tile(acc.baseAddress!, input, lda: depth, weight, ldw: depth, rows: rows, columns: columns, depth: depth)
      body(acc.baseAddress!)
    }
  }
}
