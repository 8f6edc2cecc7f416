import CKernels
import TensorCore

/// Rows that several layers read: the forms in which the layers' products take them are made once. Results are those of
/// the rows themselves, byte for byte.
///
/// For one thread, and not for long: it holds what is packed until it is released.
public final class SharedRows {
  /// [M, in], of an activation type.
  public let rows: Tensor
  private var forms: [Form: Packed] = [:]

  /// Larger forms are made again for every layer, a slab at a time.
  private let maxFormBytes: Int

  /// A form of the rows: what a product takes.
  struct Form: Hashable {
    enum Operand { case fp32, bf16, int8 }
    let operand: Operand
    /// ``Linear/rotation``.
    let rotation: Int
  }

  /// Rows in one form, and their scales [M], where they have some.
  struct Packed {
    let rows: Tensor
    let scales: Tensor?
  }

  /// `rows` for several layers, in forms of at most `maxFormBytes` each.
  public init(_ rows: Tensor, maxFormBytes: Int = 64 << 20) {
    self.rows = rows
    self.maxFormBytes = maxFormBytes
  }

  /// The rows in a form, which `make` makes the first time; nil: it is too large to be kept.
  func packed(_ form: Form, byteCount: Int, make: () -> Packed) -> Packed? {
    if let packed = forms[form] { return packed }
    guard byteCount <= maxFormBytes else { return nil }
    let packed = make()
    forms[form] = packed
    return packed
  }
}

extension Compute {
  /// As ``linear(_:_:activation:output:)-(Tensor,_,_,_)`` of rows that other layers read too.
  public func linear(_ x: SharedRows, _ w: Linear, activation: Activation = .none, output: DType? = nil) -> Tensor {
    var out = MutableTensor(uninitialized: [x.rows.shape.rowExtents.rows, w.outFeatures], output ?? activationDType)
    linear(x, w, activation: activation, into: &out)
    return out.finish()
  }

  func matmul(_ operand: SharedRows.Form.Operand) -> ck_matmul {
    switch operand {
    case .fp32: functions.fp32
    case .bf16: functions.bf16
    case .int8: functions.int8
    }
  }

  /// All of `x` as a product takes it; nil: too much to be kept.
  func packed(_ x: SharedRows, _ form: SharedRows.Form) -> SharedRows.Packed? {
    let (rows, depth) = x.rows.shape.rowExtents, matmul = matmul(form.operand)
    let byteCount = matmul.packed_a_bytes(rows, depth), panelBytes = matmul.packed_a_bytes(1, depth)
    let isQuantised = form.operand == .int8
    return x.packed(form, byteCount: byteCount) {
      var panels = MutableTensor(uninitialized: [byteCount], .uint8)
      var scales = MutableTensor(uninitialized: [isQuantised ? rows : 0])
      panels.write(reading: x.rows) { panels in
        scales.write { scales in
          parallelRows(rows, bytesPerRow: depth * 4, grain: matmul.panel_rows) { range in
            let bytes = matmul.packed_a_bytes(range.count, depth)
            packRows(
              range, of: x.rows, matmul, rotation: form.rotation,
              panels.address(range.lowerBound / matmul.panel_rows * panelBytes, count: bytes),
              isQuantised ? scales.pointer(range.lowerBound, count: range.count) : nil)
          }
        }
      }
      return SharedRows.Packed(rows: panels.finish(), scales: isQuantised ? scales.finish() : nil)
    }
  }
}
