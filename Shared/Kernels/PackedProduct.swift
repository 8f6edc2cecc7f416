import CKernels
import TensorCore

extension Compute {
  /// Packed weights, and the product that takes them.
  struct PackedOperand {
    var operand: SharedRows.Form.Operand
    var panels: Tensor
    var format = Int32(CK_PLAIN)
    /// ``Linear/rotation``.
    var rotation = 1
    /// Receives the scales of a slab's rows, fp32, where the product quantizes them.
    var rowScales: Output?
    /// What is added to the weights; nil: nothing.
    var lowRank: LinearUpdate.LowRank?
    /// The rows, where other layers read them too.
    var shared: SharedRows?

    fileprivate var form: SharedRows.Form { .init(operand: operand, rotation: rotation) }
  }

  // Activations are packed in slabs, which bounds the scratch; a slab's tiles are small enough to share out evenly.
  static let slabRows = 1536
  private static let tileRows = 384
  private static let tilePanels = 4
  /// A product with a few columns has as many tiles only if they have fewer rows.
  private static let factorTileRows = 96

  /// The product of x [M, in], read row by row, with packed weights; `epilogue.out` has space for M rows of
  /// `outFeatures`.
  func multiply(_ x: Tensor, _ w: PackedOperand, outFeatures: Int, _ epilogue: ck_epilogue) {
    let (rows, depth) = x.shape.rowExtents, matmul = matmul(w.operand)
    if let packed = w.shared.flatMap({ packed($0, w.form) }) {
      return multiply(packed, rows: rows, depth: depth, w, outFeatures: outFeatures, epilogue)
    }
    multiply(rows: rows, depth: depth, of: x, w, outFeatures: outFeatures, epilogue) { range, packed, rowScales in
      packRows(range, of: x, matmul, rotation: w.rotation, packed, rowScales)
    }
  }

  /// Packs rows of x [M, in], rotated unless `rotation` is 1, and writes their scales where the product quantises them.
  func packRows(
    _ range: Range<Int>, of x: Tensor, _ matmul: ck_matmul, rotation: Int, _ packed: UnsafeMutableRawPointer,
    _ rowScales: UnsafeMutablePointer<Float>?
  ) {
    let depth = x.shape.rowExtents.width, type = x.dtype.activationType
    let source = x.address(range.lowerBound * depth, count: range.count * depth)
    if rotation == 1 { return matmul.pack_a(packed, rowScales, source, type, depth, range.count, depth) }
    let panelRows = matmul.panel_rows, panelBytes = matmul.packed_a_bytes(1, depth)
    let rowBytes = depth * (type == Int32(CK_FP32) ? 4 : 2)
    withUnsafeTemporaryAllocation(of: Float.self, capacity: panelRows * depth) { rotated in
      for start in stride(from: 0, to: range.count, by: panelRows) {
        let count = min(panelRows, range.count - start)
        functions.rotate(rotated.baseAddress, source + start * rowBytes, type, count * depth, rotation)
        matmul.pack_a(
          packed + start / panelRows * panelBytes, rowScales.map { $0 + start }, rotated.baseAddress, Int32(CK_FP32),
          depth, count, depth)
      }
    }
  }

  /// The product of rows that are packed already.
  private func multiply(
    _ packed: SharedRows.Packed, rows: Int, depth: Int, _ w: PackedOperand, outFeatures: Int, _ epilogue: ck_epilogue
  ) {
    let matmul = matmul(w.operand)
    for slab in stride(from: 0, to: rows, by: Self.slabRows) {
      let count = min(Self.slabRows, rows - slab), bytes = matmul.packed_a_bytes(count, depth)
      var epilogue = epilogue
      epilogue.row_scale = packed.scales.map { UnsafePointer($0.pointer(slab, count: count)) }
      let panels = packed.rows.address(matmul.packed_a_bytes(slab, depth), count: bytes)
      multiplySlab(slab..<slab + count, depth: depth, packed: panels, w, outFeatures: outFeatures, epilogue)
    }
    withExtendedLifetime((packed, w)) {}
  }

  /// As ``multiply(_:_:outFeatures:_:)``, of rows that `pack` writes in the product's form: it is called with a range
  /// of rows of one slab, where they go, and where their scales go.
  func multiply(
    rows: Int, depth: Int, of x: Tensor, _ w: PackedOperand, outFeatures: Int, _ epilogue: ck_epilogue,
    pack: (Range<Int>, UnsafeMutableRawPointer, UnsafeMutablePointer<Float>?) -> Void
  ) {
    let matmul = matmul(w.operand), panelBytes = matmul.packed_a_bytes(1, depth)
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
        multiplySlab(
          slab..<slab + slabRows, depth: depth, packed: packed.address(count: slabBytes), w,
          outFeatures: outFeatures, epilogue)
      }
    }
  }

  /// The product of a slab of rows, which are packed; `epilogue` is that of all rows, but for the scales of the slab's.
  private func multiplySlab(
    _ rows: Range<Int>, depth: Int, packed: UnsafeRawPointer, _ w: PackedOperand, outFeatures: Int,
    _ epilogue: ck_epilogue
  ) {
    let matmul = matmul(w.operand), slab = rows.lowerBound
    var epilogue = epilogue
    epilogue.row_gates = epilogue.row_gates.map { $0 + slab }
    epilogue.addend = epilogue.addend.map { $0 + slab * outFeatures }
    epilogue.out += slab * outFeatures * (epilogue.out_type == Int32(CK_FP32) ? 4 : 2)
    var gemm = ck_gemm(
      m: rows.count, n: outFeatures, k: depth, a: packed, b: w.panels.address(count: w.panels.elementCount),
      b_format: w.format, added_k: 0, added_a: nil, added_b: nil, epilogue: epilogue)
    guard let lowRank = w.lowRank else { return multiplySlab(gemm, matmul) }
    withProjections(of: packed, rows: rows.count, depth: depth, epilogue.row_scale, lowRank) { projections, up in
      (gemm.added_k, gemm.added_a, gemm.added_b) = (lowRank.rank, projections, up)
      multiplySlab(gemm, matmul)
    }
  }

  /// Calls `body` with the products of a slab's rows and the first factor of an update, and with the second factor,
  /// both packed.
  ///
  /// - Parameters:
  ///   - packed: the rows, as they are packed for the layer's weight.
  ///   - rowScales: their scales, where they are quantised.
  private func withProjections(
    of packed: UnsafeRawPointer, rows: Int, depth: Int, _ rowScales: UnsafePointer<Float>?,
    _ update: LinearUpdate.LowRank, _ body: (_ projections: UnsafeRawPointer, _ up: UnsafeRawPointer) -> Void
  ) {
    let rank = update.rank, down = packedFactor(update.down), up = packedFactor(update.up)
    let matmul = matmul(down.operand), second = self.matmul(up.operand)
    var layout = ScratchLayout()
    let sums = layout.add(rows * rank * 4), projections = layout.add(second.packed_a_bytes(rows, rank))
    withScratch(layout) { scratch in
      let epilogue = ck_epilogue(
        row_scale: rowScales, column_scale: down.scales?.pointer(count: rank),
        column_offset: down.offsets?.pointer(count: rank), addend: nil, bias: nil, gate: nil, row_gates: nil,
        activation: Int32(CK_NONE), mode: Int32(CK_STORE), out: scratch(sums), out_type: Int32(CK_FP32), ldo: rank)
      multiplySlab(
        ck_gemm(
          m: rows, n: rank, k: depth, a: packed, b: down.panels.address(count: down.panels.elementCount),
          b_format: Int32(CK_PLAIN), added_k: 0, added_a: nil, added_b: nil, epilogue: epilogue),
        matmul, tileRows: Self.factorTileRows)
      pack(rows, rank, ofFloats: scratch(sums), second, into: scratch(projections))
      body(scratch(projections), up.panels.address(count: up.panels.elementCount))
    }
    withExtendedLifetime(update) {}
  }

  /// Packs [rows, depth] of type fp32 for a floating-point product.
  private func pack(
    _ rows: Int, _ depth: Int, ofFloats source: UnsafeRawPointer, _ matmul: ck_matmul,
    into packed: UnsafeMutableRawPointer
  ) {
    let panelBytes = matmul.packed_a_bytes(1, depth)
    parallelRows(rows, bytesPerRow: depth * 4, grain: matmul.panel_rows) { range in
      matmul.pack_a(
        packed + range.lowerBound / matmul.panel_rows * panelBytes, nil, source + range.lowerBound * depth * 4,
        Int32(CK_FP32), depth, range.count, depth)
    }
  }

  private func multiplySlab(_ gemm: ck_gemm, _ matmul: ck_matmul, tileRows: Int = Self.tileRows) {
    let panelCount = (gemm.n + matmul.panel_columns - 1) / matmul.panel_columns
    let rowTiles = (gemm.m + tileRows - 1) / tileRows,
      columnTiles = (panelCount + Self.tilePanels - 1) / Self.tilePanels
    pool.parallel(rowTiles * columnTiles) { index in
      let row = index % rowTiles * tileRows, panel = index / rowTiles * Self.tilePanels
      let height = min(tileRows, gemm.m - row), panels = min(Self.tilePanels, panelCount - panel)
      withScratch(matmul.tile_scratch_bytes(height, panels, gemm.b_format)) { scratch in
        withUnsafePointer(to: gemm) { matmul.tile($0, row, height, panel, panels, scratch) }
      }
    }
  }

  /// The product of x [M, in] with a weight [out, in], by OpenBLAS.
  func multiply(_ x: Tensor, rowMajor weight: Tensor, _ update: LinearUpdate.LowRank?, _ epilogue: ck_epilogue) {
    precondition(x.dtype == .fp32, "input of type \(x.dtype) for an fp32 layer")
    let (rows, depth) = x.shape.rowExtents, outFeatures = weight.shape[0]
    let added = update.map { rowMajorFactors(x, $0) }
    let rowTiles = (rows + Sgemm.tileRows - 1) / Sgemm.tileRows
    let columnTiles = (outFeatures + Sgemm.tileColumns - 1) / Sgemm.tileColumns
    pool.parallel(rowTiles * columnTiles) { index in
      let row = index % rowTiles * Sgemm.tileRows, column = index / rowTiles * Sgemm.tileColumns
      let height = min(Sgemm.tileRows, rows - row), width = min(Sgemm.tileColumns, outFeatures - column)
      sgemmTile(
        x.pointer(row * depth, count: height * depth), rows: height, depth: depth,
        weight: weight.pointer(column * depth, count: width * depth), columns: width
      ) { acc in
        if let added {
          let rank = added.up.shape[1]
          Sgemm.tile(
            acc, added.projections.pointer(row * rank, count: height * rank), lda: rank,
            added.up.pointer(column * rank, count: width * rank), ldw: rank, rows: height, columns: width, depth: rank,
            accumulates: true)
        }
        withUnsafePointer(to: epilogue) { functions.epilogue($0, acc, width, row, height, column, width) }
      }
    }
    withExtendedLifetime((x, weight, added)) {}
  }

  /// Calls `body` with the products [rows, columns] of a tile's input rows [rows, depth] and weight rows [columns,
  /// depth].
  func sgemmTile(
    _ input: UnsafePointer<Float>, rows: Int, depth: Int, weight: UnsafePointer<Float>, columns: Int,
    _ body: (UnsafeMutablePointer<Float>) -> Void
  ) {
    withUnsafeTemporaryAllocation(of: Float.self, capacity: rows * columns) { acc in
      Sgemm.tile(acc.baseAddress!, input, lda: depth, weight, ldw: depth, rows: rows, columns: columns, depth: depth)
      body(acc.baseAddress!)
    }
  }
}
