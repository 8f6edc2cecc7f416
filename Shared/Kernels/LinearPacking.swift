import CKernels
import TensorCore

// Weights of linear layers in the form that the products take.
extension Compute {
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

  func packedInt8(_ weight: Tensor, _ rotation: Int) -> PreparedWeight {
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
    requireInt8Inputs(weight)
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

  func packedQ4(_ weight: Tensor, _ rotation: Int) -> PreparedWeight {
    let depth = weight.shape[1]
    return packedQ4(weight) { rows, panel, offsets, scales in
      withRows(rows, of: weight, rotation: rotation) { source, type in
        functions.pack_q4(panel, scales, offsets, source, type, depth, rows.count, depth)
      }
    }
  }

  /// A weight [out, in] as panels of 4-bit groups: `pack` gets the rows of a panel, and writes it, their offsets and
  /// their scales.
  func packedQ4(
    _ weight: Tensor,
    pack: (Range<Int>, UnsafeMutableRawPointer, UnsafeMutablePointer<Int32>, UnsafeMutablePointer<Float>) -> Void
  ) -> PreparedWeight {
    requireInt8Inputs(weight)
    let out = weight.shape[0], depth = weight.shape[1], panelBytes = functions.q4_bytes(1, depth)
    var scales = MutableTensor(uninitialized: [out]), offsets = MutableTensor(uninitialized: [out], .int32)
    var panels = MutableTensor(uninitialized: [functions.q4_bytes(out, depth)], .uint8)
    panels.write(reading: weight) { panels in
      scales.write { scales in
        offsets.write { offsets in
          parallelPanels(weight, functions.int8) { panel, rows in
            let row = rows.lowerBound, count = rows.count
            pack(
              rows, panels.address(panel * panelBytes, count: panelBytes), offsets.pointer(row, count: count),
              scales.pointer(row, count: count))
          }
        }
      }
    }
    return .q4(panels.finish(), scales: scales.finish(), offsets: offsets.finish())
  }

  private func requireInt8Inputs(_ weight: Tensor) {
    precondition(weight.shape[1] <= 1 << 16, "\(weight.shape[1]) inputs: 32-bit sums of 8-bit products might overflow")
  }
}
