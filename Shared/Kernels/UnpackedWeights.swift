import CKernels
import TensorCore

// Laid-out weights as numbers again: to measure what a representation lost, and to check files.
extension Compute {
  /// The weight [out, in] of `layer` as its products see it, fp32.
  public func weight(of layer: Linear) -> Tensor {
    if case .rowMajor(let weight) = layer.weight { return weight }
    let result = Tensor(uninitialized: [layer.outFeatures, layer.inFeatures]), columns = functions.bf16.panel_columns
    pool.parallel((layer.outFeatures + columns - 1) / columns) { panel in
      let row = panel * columns
      unpack(layer, panel: panel, into: result.pointer() + row * layer.inFeatures, rows: min(columns, layer.outFeatures - row))
    }
    return withExtendedLifetime(layer) { result }
  }

  /// ‖W′ − W‖ / ‖W‖ (Frobenius) of the weight W [out, in] and what `layer` made of it, W′; 0 for a weight of zeros that stayed zeros.
  public func relativeError(of layer: Linear, from original: Tensor) -> Double {
    precondition(original.shape == [layer.outFeatures, layer.inFeatures], "weight \(original.shape) of a layer of another size")
    let depth = layer.inFeatures, columns = functions.bf16.panel_columns, panels = (layer.outFeatures + columns - 1) / columns
    // One pair of sums per panel, added up in order: the result does not depend on the threads.
    let sums = UnsafeMutableBufferPointer<(error: Double, norm: Double)>.allocate(capacity: panels)
    defer { sums.deallocate() }
    pool.parallel(panels) { panel in
      let row = panel * columns, rows = min(columns, layer.outFeatures - row), count = rows * depth
      withScratch(2 * count * 4) { scratch in
        let found = scratch.assumingMemoryBound(to: Float.self), expected = found + count
        unpack(layer, panel: panel, into: found, rows: rows)
        functions.convert(
          expected, Int32(CK_FP32), original.address(row * depth), original.dtype.kernelType, count)
        sums.initializeElement(at: panel, to: Self.squares(found, expected, count))
      }
    }
    let total = sums.reduce((error: 0.0, norm: 0.0)) { ($0.error + $1.error, $0.norm + $1.norm) }
    return withExtendedLifetime((layer, original)) { total.error == 0 ? 0 : (total.error / total.norm).squareRoot() }
  }

  /// ‖found − expected‖² and ‖expected‖².
  private static func squares(
    _ found: UnsafePointer<Float>, _ expected: UnsafePointer<Float>, _ count: Int
  ) -> (error: Double, norm: Double) {
    var errors = SIMD8<Double>(repeating: 0), norms = errors
    var index = 0
    while index + 8 <= count {
      let f = UnsafeRawPointer(found + index).loadUnaligned(as: SIMD8<Float>.self)
      let e = UnsafeRawPointer(expected + index).loadUnaligned(as: SIMD8<Float>.self)
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
  private func unpack(_ layer: Linear, panel: Int, into target: UnsafeMutablePointer<Float>, rows: Int) {
    let depth = layer.inFeatures
    switch layer.weight {
    case .rowMajor: preconditionFailure("the weight is not laid out")
    case .fp32(let panels):
      let source = panels.address(panel * functions.fp32.packed_b_bytes(1, depth)).assumingMemoryBound(to: Float.self)
      unpackWords(source, group: 1, columns: functions.fp32.panel_columns, depth: depth, rows: rows, target) { $1 }
    case .bf16(let panels):
      let source = panels.address(panel * functions.bf16.packed_b_bytes(1, depth)).assumingMemoryBound(to: UInt16.self)
      unpackWords(source, group: 2, columns: functions.bf16.panel_columns, depth: depth, rows: rows, target) {
        Float(bitPattern: UInt32($1) << 16)
      }
    case .int8(let panels, let scales, _):
      let columns = functions.int8.panel_columns
      let source = panels.address(panel * functions.int8.packed_b_bytes(1, depth)).assumingMemoryBound(to: Int8.self)
      let scale = scales.pointer(as: Float.self) + panel * columns
      unpackWords(source, group: 4, columns: columns, depth: depth, rows: rows, target) { scale[$0] * Float($1) }
    case .q4(let panels):
      unpackQ4(UnsafeRawPointer(panels.address(panel * functions.q4_bytes(1, depth))), depth: depth, rows: rows, target)
    }
  }

  /// Panels of [depth / group][columns][group] elements.
  @inline(__always)
  private func unpackWords<Element>(
    _ source: UnsafePointer<Element>, group: Int, columns: Int, depth: Int, rows: Int, _ target: UnsafeMutablePointer<Float>,
    _ value: (_ row: Int, Element) -> Float
  ) {
    for row in 0..<rows {
      for k in 0..<depth { target[row * depth + k] = value(row, source[(k / group * columns + row) * group + k % group]) }
    }
  }

  /// Rows of groups of 32 inputs: a bf16 scale per column, then a byte per column and pair of inputs (q4.inc).
  private func unpackQ4(_ source: UnsafeRawPointer, depth: Int, rows: Int, _ target: UnsafeMutablePointer<Float>) {
    let columns = functions.bf16.panel_columns, groupBytes = functions.q4_bytes(1, 1)
    for start in stride(from: 0, to: depth, by: 32) {
      let group = source + start / 32 * groupBytes, pairs = group + 2 * columns
      for row in 0..<rows {
        let scale = Float(bitPattern: UInt32(group.load(fromByteOffset: 2 * row, as: UInt16.self)) << 16)
        let to = target + row * depth
        for k in start..<min(start + 32, depth) {
          let pair = pairs.load(fromByteOffset: (k - start) / 2 * columns + row, as: UInt8.self)
          to[k] = Self.roundedToBF16((Float(k % 2 == 0 ? pair & 15 : pair >> 4) - 8) * scale)
        }
      }
    }
  }

  /// The nearest bf16 number, ties to even; NaN stays NaN.
  private static func roundedToBF16(_ value: Float) -> Float {
    guard value.isFinite else { return value }
    let bits = value.bitPattern
    return Float(bitPattern: (bits &+ 0x7fff &+ ((bits >> 16) & 1)) & 0xffff_0000)
  }
}
