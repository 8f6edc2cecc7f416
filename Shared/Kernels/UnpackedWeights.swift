import CKernels
import TensorCore

// Packed weights as numbers again: to measure what a representation lost, and to check files.
extension Compute {
  /// The weight [out, in] of `layer` as its products see it, fp32; of a layer that rotates its inputs, rotated back.
  public func weight(of layer: Linear) -> Tensor {
    if case .rowMajor(let weight) = layer.weight { return weight }
    let columns = functions.bf16.panel_columns, depth = layer.inFeatures
    return filled([layer.outFeatures, depth]) { result in
      pool.parallel((layer.outFeatures + columns - 1) / columns) { panel in
        let row = panel * columns, rows = min(columns, layer.outFeatures - row)
        let target = UnsafeMutableBufferPointer<Float>(
          start: result.pointer(row * depth, count: rows * depth), count: rows * depth)
        unpack(layer, panel: panel, into: target, rows: rows)
        if layer.rotation > 1 {
          functions.rotate(target.baseAddress, target.baseAddress, Int32(CK_FP32), target.count, layer.rotation)
        }
      }
    }
  }

  /// ‖W′ − W‖ / ‖W‖ (Frobenius) of the weight W [out, in] and what `layer` made of it, W′; 0 for a weight of zeros that
  /// stayed zeros.
  public func relativeError(of layer: Linear, from original: Tensor) -> Double {
    precondition(
      original.shape == [layer.outFeatures, layer.inFeatures], "weight \(original.shape) of a layer of another size")
    let depth = layer.inFeatures, columns = functions.bf16.panel_columns,
      panels = (layer.outFeatures + columns - 1) / columns
    var scratch = ScratchLayout()
    let found = scratch.add(columns * depth * 4), expected = scratch.add(columns * depth * 4)
    // One pair of sums per panel, added up in order: the result does not depend on the threads.
    let sums = UnsafeMutableBufferPointer<(error: Double, norm: Double)>.allocate(capacity: panels)
    defer { sums.deallocate() }
    pool.parallel(panels) { panel in
      let row = panel * columns, rows = min(columns, layer.outFeatures - row), count = rows * depth
      withScratch(scratch) { scratch in
        let found = scratch.elements(found, as: Float.self).prefix(count),
          expected = scratch.elements(expected, as: Float.self).prefix(count)
        unpack(layer, panel: panel, into: UnsafeMutableBufferPointer(rebasing: found), rows: rows)
        functions.convert(
          expected.base.baseAddress, Int32(CK_FP32), original.address(row * depth, count: count),
          original.dtype.kernelType, count)
        if layer.rotation > 1 {
          functions.rotate(expected.base.baseAddress, expected.base.baseAddress, Int32(CK_FP32), count, layer.rotation)
        }
        sums.initializeElement(
          at: panel, to: Self.squares(UnsafeBufferPointer(rebasing: found), UnsafeBufferPointer(rebasing: expected)))
      }
    }
    let total = sums.reduce((error: 0.0, norm: 0.0)) { ($0.error + $1.error, $0.norm + $1.norm) }
    return withExtendedLifetime((layer, original)) { total.error == 0 ? 0 : (total.error / total.norm).squareRoot() }
  }

  /// ‖found − expected‖² and ‖expected‖².
  private static func squares(
    _ found: UnsafeBufferPointer<Float>, _ expected: UnsafeBufferPointer<Float>
  ) -> (error: Double, norm: Double) {
    let count = min(found.count, expected.count)
    let (foundBytes, expectedBytes) = (UnsafeRawBufferPointer(found), UnsafeRawBufferPointer(expected))
    var errors = SIMD8<Double>(repeating: 0), norms = errors
    var index = 0
    while index + 8 <= count {
      let f = foundBytes.loadUnaligned(fromByteOffset: 4 * index, as: SIMD8<Float>.self)
      let e = expectedBytes.loadUnaligned(fromByteOffset: 4 * index, as: SIMD8<Float>.self)
      let difference = SIMD8<Double>(f - e), value = SIMD8<Double>(e)
      errors += difference * difference
      norms += value * value
      index += 8
    }
    var (error, norm) = (errors.sum(), norms.sum())
    for rest in index..<count {
      error += Double(found[rest] - expected[rest]) * Double(found[rest] - expected[rest])
      norm += Double(expected[rest]) * Double(expected[rest])
    }
    return (error, norm)
  }

  /// Writes the first `rows` rows of a panel to `target` [rows, in].
  private func unpack(_ layer: Linear, panel: Int, into target: UnsafeMutableBufferPointer<Float>, rows: Int) {
    let depth = layer.inFeatures
    precondition(target.count == rows * depth, "\(target.count) elements for \(rows) rows of \(depth)")
    /// The panel of `panels` whose bytes the layout's own function counts.
    func words<Element>(_ panels: Tensor, _ bytes: Int, as type: Element.Type) -> UnsafeBufferPointer<Element> {
      UnsafeRawBufferPointer(start: panels.address(panel * bytes, count: bytes), count: bytes).assumingMemoryBound(
        to: type)
    }
    switch layer.weight {
    case .rowMajor: preconditionFailure("the weight is not packed")
    case .fp32(let panels):
      let source = words(panels, functions.fp32.packed_b_bytes(1, depth), as: Float.self)
      unpackWords(source, group: 1, columns: functions.fp32.panel_columns, depth: depth, rows: rows, target) { $1 }
    case .bf16(let panels):
      let source = words(panels, functions.bf16.packed_b_bytes(1, depth), as: UInt16.self)
      unpackWords(source, group: 2, columns: functions.bf16.panel_columns, depth: depth, rows: rows, target) {
        Float(bitPattern: UInt32($1) << 16)
      }
    case .int8(let panels, let scales, _):
      let columns = functions.int8.panel_columns
      let source = words(panels, functions.int8.packed_b_bytes(1, depth), as: Int8.self)
      let scale = UnsafeBufferPointer<Float>(start: scales.pointer(panel * columns, count: rows), count: rows)
      unpackWords(source, group: 4, columns: columns, depth: depth, rows: rows, target) { scale[$0] * Float($1) }
    case .q4(let panels, let scales, _):
      let scale = UnsafeBufferPointer<Float>(
        start: scales.pointer(panel * functions.int8.panel_columns, count: rows), count: rows)
      unpackQ4(
        words(panels, functions.q4_bytes(1, depth), as: UInt8.self), depth: depth, rows: rows, scale, target)
    }
    withExtendedLifetime(layer) {}
  }

  /// Panels of [depth / group][columns][group] elements.
  @inline(__always)
  private func unpackWords<Element>(
    _ source: UnsafeBufferPointer<Element>, group: Int, columns: Int, depth: Int, rows: Int,
    _ target: UnsafeMutableBufferPointer<Float>,
    _ value: (_ row: Int, Element) -> Float
  ) {
    for row in 0..<rows {
      for k in 0..<depth {
        target[row * depth + k] = value(row, source[(k / group * columns + row) * group + k % group])
      }
    }
  }

  /// 16 levels, then groups of 16 inputs: a factor per column, then four bytes per column and eight inputs (q4.inc).
  private func unpackQ4(
    _ source: UnsafeBufferPointer<UInt8>, depth: Int, rows: Int, _ scale: UnsafeBufferPointer<Float>,
    _ target: UnsafeMutableBufferPointer<Float>
  ) {
    func signed(_ index: Int) -> Int { Int(Int8(bitPattern: source[index])) }
    let columns = functions.int8.panel_columns, levels = 16, groupBytes = functions.q4_bytes(1, 1) - levels
    for row in 0..<rows {
      for start in stride(from: 0, to: depth, by: 16) {
        let group = levels + start / 16 * groupBytes, factor = signed(group + row)
        for k in start..<min(start + 16, depth) {
          let pair = source[group + columns + ((k - start) / 8 * columns + row) * 4 + k % 4]
          let level = signed(Int(k % 8 < 4 ? pair & 15 : pair >> 4))
          target[row * depth + k] = scale[row] * Float((level * factor + 64) >> 7)
        }
      }
    }
  }
}
