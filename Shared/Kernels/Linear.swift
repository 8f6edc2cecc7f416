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

/// A linear layer with packed weights: x ↦ x·Wᵀ + b.
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
  /// Panels of 4-bit groups.
  case q4(Tensor)
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
      case .q4: .q4(packedQ4(weight, rotation))
      }
    return Linear(
      outFeatures: out, inFeatures: depth, rotation: rotation, weight: prepared, bias: bias.map(fp32))
  }

  /// Calls `body` with the panel numbers of a weight [out, in] and the rows that each holds, in parallel.
  private func parallelPanels(_ weight: Tensor, _ matmul: ck_matmul, _ body: (Int, Range<Int>) -> Void) {
    let out = weight.shape[0], columns = matmul.panel_columns
    pool.parallel((out + columns - 1) / columns) { panel in
      body(panel, panel * columns..<min(out, (panel + 1) * columns))
    }
  }

  /// A weight [out, in] as panels of the operand type of `matmul`, which is a floating-point one.
  func packed(_ weight: Tensor, _ matmul: ck_matmul) -> Tensor {
    let depth = weight.shape[1], panelBytes = matmul.packed_b_bytes(1, depth)
    return filled([matmul.packed_b_bytes(weight.shape[0], depth)], .uint8, reading: weight) { panels in
      parallelPanels(weight, matmul) { panel, rows in
        matmul.pack_b(
          panels.address(panel * panelBytes, count: panelBytes),
          weight.address(rows.lowerBound * depth, count: rows.count * depth),
          weight.dtype.kernelType, depth, rows.count, depth)
      }
    }
  }

  /// Calls `body` with some rows of a weight [out, in], rotated unless `rotation` is 1, and their element type.
  private func withRows(
    _ rows: Range<Int>, of weight: Tensor, rotation: Int, _ body: (UnsafeRawPointer, Int32) -> Void
  ) {
    let depth = weight.shape[1], count = rows.count * depth
    let source = weight.address(rows.lowerBound * depth, count: count)
    if rotation == 1 { return body(source, weight.dtype.kernelType) }
    withUnsafeTemporaryAllocation(of: Float.self, capacity: count) { rotated in
      functions.rotate(rotated.baseAddress, source, weight.dtype.kernelType, count, rotation)
      body(UnsafeRawPointer(rotated.baseAddress!), Int32(CK_FP32))
    }
  }

  private func packedInt8(_ weight: Tensor, _ rotation: Int) -> PreparedWeight {
    packedInt8(weight) { rows, numbers, scales in
      withRows(rows, of: weight, rotation: rotation) { source, type in
        functions.quantize_int8(numbers, scales, source, type, rows.count, weight.shape[1])
      }
    }
  }

  /// A weight [out, in] as panels of 8-bit numbers: `quantise` gets some of its rows, and writes their numbers and
  /// scales.
  func packedInt8(
    _ weight: Tensor, quantise: (Range<Int>, UnsafeMutablePointer<Int8>, UnsafeMutablePointer<Float>) -> Void
  ) -> PreparedWeight {
    precondition(weight.shape[1] <= 1 << 16, "\(weight.shape[1]) inputs: 32-bit sums of 8-bit products might overflow")
    let out = weight.shape[0], depth = weight.shape[1], matmul = functions.int8,
      panelBytes = matmul.packed_b_bytes(1, depth)
    var scales = MutableTensor(uninitialized: [out]), offsets = MutableTensor(uninitialized: [out], .int32)
    var panels = MutableTensor(uninitialized: [matmul.packed_b_bytes(out, depth)], .uint8)
    panels.write(reading: weight) { panels in
      scales.write { scales in
        offsets.write { offsets in
          parallelPanels(weight, matmul) { panel, rows in
            let row = rows.lowerBound, count = rows.count
            withUnsafeTemporaryAllocation(of: Int8.self, capacity: count * depth) { quantized in
              quantise(rows, quantized.baseAddress!, scales.pointer(row, count: count))
              functions.int8_offsets(offsets.pointer(row, count: count), quantized.baseAddress, count, depth)
              matmul.pack_b(
                panels.address(panel * panelBytes, count: panelBytes), quantized.baseAddress, 0, depth, count, depth)
            }
          }
        }
      }
    }
    return .int8(panels.finish(), scales: scales.finish(), offsets: offsets.finish())
  }

  private func packedQ4(_ weight: Tensor, _ rotation: Int) -> Tensor {
    let depth = weight.shape[1], panelBytes = functions.q4_bytes(1, depth)
    return filled([functions.q4_bytes(weight.shape[0], depth)], .uint8, reading: weight) { panels in
      parallelPanels(weight, functions.bf16) { panel, rows in
        withRows(rows, of: weight, rotation: rotation) { source, type in
          functions.pack_q4(
            panels.address(panel * panelBytes, count: panelBytes), source, type, depth, rows.count, depth)
        }
      }
    }
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
    _ x: Tensor, _ w: Linear, into out: inout MutableTensor, rowsFrom start: Int, _ treatment: Treatment
  ) {
    let (rows, depth) = x.shape.rowExtents
    precondition(depth == w.inFeatures, "input \(x.shape) for a layer of \(w.inFeatures) inputs")
    out.requireRows(rows, w.outFeatures, from: start, for: "a linear layer")
    if rows == 0 || w.outFeatures == 0 { return }
    out.write(reading: x, w.bias) { out in
      let result = out.address(start * w.outFeatures, count: rows * w.outFeatures)
      let epilogue = ck_epilogue(
        row_scale: nil, column_scale: nil, column_offset: nil, bias: w.bias?.pointer(count: w.outFeatures),
        gate: treatment.gate,
        row_gates: treatment.rowGates, activation: treatment.activation, mode: treatment.mode, out: result,
        out_type: out.dtype.activationType, ldo: w.outFeatures)
      switch w.weight {
      case .rowMajor(let weight): multiply(x, rowMajor: weight, epilogue)
      case .fp32(let panels):
        multiply(x, PackedOperand(matmul: functions.fp32, panels: panels), outFeatures: w.outFeatures, epilogue)
      case .bf16(let panels):
        multiply(x, PackedOperand(matmul: functions.bf16, panels: panels), outFeatures: w.outFeatures, epilogue)
      case .q4(let panels):
        multiply(
          x, PackedOperand(matmul: functions.bf16, panels: panels, format: Int32(CK_Q4), rotation: w.rotation),
          outFeatures: w.outFeatures, epilogue)
      case .int8(let panels, let scales, let offsets):
        var epilogue = epilogue
        epilogue.column_scale = scales.pointer(count: w.outFeatures)
        epilogue.column_offset = offsets.pointer(count: w.outFeatures)
        var rowScales = MutableTensor(uninitialized: [min(rows, Self.slabRows)])
        rowScales.write(reading: scales, offsets) { rowScales in
          epilogue.row_scale = UnsafePointer(rowScales.pointer(count: rowScales.elementCount, as: Float.self))
          multiply(
            x,
            PackedOperand(matmul: functions.int8, panels: panels, rotation: w.rotation, rowScales: rowScales),
            outFeatures: w.outFeatures, epilogue)
        }
      }
    }
  }

  /// Packed weights, and the product that takes them.
  struct PackedOperand {
    var matmul: ck_matmul
    var panels: Tensor
    var format = Int32(CK_PLAIN)
    /// ``Linear/rotation``.
    var rotation = 1
    /// Receives the scales of a slab's rows, fp32, where the product quantizes them.
    var rowScales: Output?
  }

  // Activations are packed in slabs, which bounds the scratch; a slab's tiles are small enough to share out evenly.
  private static let slabRows = 1536
  private static let tileRows = 384
  private static let tilePanels = 4

  /// The product of x [M, in], read row by row, with packed weights; `epilogue.out` has space for M rows of
  /// `outFeatures`.
  func multiply(_ x: Tensor, _ w: PackedOperand, outFeatures: Int, _ epilogue: ck_epilogue) {
    let (rows, depth) = x.shape.rowExtents
    multiply(rows: rows, depth: depth, of: x, w, outFeatures: outFeatures, epilogue) { range, packed, rowScales in
      let source = x.address(range.lowerBound * depth, count: range.count * depth)
      if w.rotation == 1 {
        w.matmul.pack_a(packed, rowScales, source, x.dtype.activationType, depth, range.count, depth)
      } else {
        packRotated(rows: range.count, depth: depth, of: source, x.dtype.activationType, w, packed, rowScales)
      }
    }
  }

  /// Rotates rows [rows, depth] and packs them, a panel at a time.
  private func packRotated(
    rows: Int, depth: Int, of source: UnsafeRawPointer, _ type: Int32, _ w: PackedOperand,
    _ packed: UnsafeMutableRawPointer, _ rowScales: UnsafeMutablePointer<Float>?
  ) {
    let matmul = w.matmul, panelRows = matmul.panel_rows, panelBytes = matmul.packed_a_bytes(1, depth)
    let rowBytes = depth * (type == Int32(CK_FP32) ? 4 : 2)
    withUnsafeTemporaryAllocation(of: Float.self, capacity: panelRows * depth) { rotated in
      for start in stride(from: 0, to: rows, by: panelRows) {
        let count = min(panelRows, rows - start)
        functions.rotate(rotated.baseAddress, source + start * rowBytes, type, count * depth, w.rotation)
        matmul.pack_a(
          packed + start / panelRows * panelBytes, rowScales.map { $0 + start }, rotated.baseAddress, Int32(CK_FP32),
          depth, count, depth)
      }
    }
  }

  /// As ``multiply(_:_:outFeatures:_:)``, of rows that `pack` writes in the product's form: it is called with a range
  /// of rows of one slab, where they go, and where their scales go.
  func multiply(
    rows: Int, depth: Int, of x: Tensor, _ w: PackedOperand, outFeatures: Int, _ epilogue: ck_epilogue,
    pack: (Range<Int>, UnsafeMutableRawPointer, UnsafeMutablePointer<Float>?) -> Void
  ) {
    let matmul = w.matmul, panelBytes = matmul.packed_a_bytes(1, depth)
    let outWidth = outFeatures * (epilogue.out_type == Int32(CK_FP32) ? 4 : 2)
    let slabBytes = matmul.packed_a_bytes(min(rows, Self.slabRows), depth)
    var packed = MutableTensor(uninitialized: [slabBytes], .uint8)
    packed.write(reading: x, w.panels) { packed in
      for slab in stride(from: 0, to: rows, by: Self.slabRows) {
        let slabRows = min(Self.slabRows, rows - slab)
        parallelRows(slabRows, bytesPerRow: depth * 4, grain: matmul.panel_rows) { range in
          let panel = range.lowerBound / matmul.panel_rows, bytes = matmul.packed_a_bytes(range.count, depth)
          pack(
            slab + range.lowerBound..<slab + range.upperBound, packed.address(panel * panelBytes, count: bytes),
            w.rowScales?.pointer(range.lowerBound, count: range.count))
        }
        var slabEpilogue = epilogue
        slabEpilogue.row_gates = epilogue.row_gates.map { $0 + slab }
        slabEpilogue.out = epilogue.out + slab * outWidth
        multiplySlab(
          ck_gemm(
            m: slabRows, n: outFeatures, k: depth, a: packed.address(count: slabBytes),
            b: w.panels.address(count: w.panels.elementCount),
            b_format: w.format, epilogue: slabEpilogue),
          matmul)
      }
    }
  }

  private func multiplySlab(_ gemm: ck_gemm, _ matmul: ck_matmul) {
    let panelCount = (gemm.n + matmul.panel_columns - 1) / matmul.panel_columns
    let rowTiles = (gemm.m + Self.tileRows - 1) / Self.tileRows,
      columnTiles = (panelCount + Self.tilePanels - 1) / Self.tilePanels
    pool.parallel(rowTiles * columnTiles) { index in
      let row = index % rowTiles * Self.tileRows, panel = index / rowTiles * Self.tilePanels
      let height = min(Self.tileRows, gemm.m - row), panels = min(Self.tilePanels, panelCount - panel)
      withScratch(matmul.tile_scratch_bytes(height, panels, gemm.b_format)) { scratch in
        withUnsafePointer(to: gemm) { matmul.tile($0, row, height, panel, panels, scratch) }
      }
    }
  }

  private func multiply(_ x: Tensor, rowMajor weight: Tensor, _ epilogue: ck_epilogue) {
    precondition(x.dtype == .fp32, "input of type \(x.dtype) for an fp32 layer")
    let (rows, depth) = x.shape.rowExtents, outFeatures = weight.shape[0]
    let rowTiles = (rows + Sgemm.tileRows - 1) / Sgemm.tileRows
    let columnTiles = (outFeatures + Sgemm.tileColumns - 1) / Sgemm.tileColumns
    pool.parallel(rowTiles * columnTiles) { index in
      let row = index % rowTiles * Sgemm.tileRows, column = index / rowTiles * Sgemm.tileColumns
      let height = min(Sgemm.tileRows, rows - row), width = min(Sgemm.tileColumns, outFeatures - column)
      sgemmTile(
        x.pointer(row * depth, count: height * depth), rows: height, depth: depth,
        weight: weight.pointer(column * depth, count: width * depth), columns: width
      ) { acc in
        withUnsafePointer(to: epilogue) { functions.epilogue($0, acc, width, row, height, column, width) }
      }
    }
    withExtendedLifetime((x, weight)) {}
  }

  /// Calls `body` with the products [rows, columns] of a tile's input rows [rows, depth] and weight rows [columns,
  /// depth].
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
