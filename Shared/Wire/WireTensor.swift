/// Element types of tensors on the wire; elements are little-endian.
public enum WireDType: Int32, Sendable, CaseIterable {
  /// IEEE 754 binary32.
  case f32 = 1
  /// The upper half of a binary32.
  case bf16 = 2
  /// IEEE 754 binary16.
  case f16 = 3
  /// 64-bit signed integer.
  case i64 = 4
  /// 32-bit signed integer.
  case i32 = 5
  /// 8-bit signed integer.
  case i8 = 6
  /// 8-bit unsigned integer.
  case u8 = 7

  /// Bytes per element.
  public var byteWidth: Int {
    switch self {
    case .i64: 8
    case .f32, .i32: 4
    case .bf16, .f16: 2
    case .i8, .u8: 1
    }
  }
}

/// A tensor that travels as a raw frame beside the envelope.
public struct WireTensor: Sendable, Equatable {
  /// The tensor's role, unique in its message: `prompt_embeds`, `latents`, `image`…
  public var name: String
  /// The type of its elements.
  public var dtype: WireDType
  /// Its dimensions, outermost first; empty for a scalar.
  public var shape: [Int]
  /// Its elements, row-major: `WireTensor.byteCount(shape:dtype:)` bytes.
  public var bytes: FrameBuffer

  /// Puts the parts together; `WireCodec` checks that they agree.
  public init(name: String, dtype: WireDType, shape: [Int], bytes: FrameBuffer) {
    self.name = name
    self.dtype = dtype
    self.shape = shape
    self.bytes = bytes
  }

  /// The bytes that `shape` takes, or nil if a dimension is negative or the product overflows.
  public static func byteCount(shape: [Int], dtype: WireDType) -> Int? {
    var count = dtype.byteWidth
    for dimension in shape {
      let (product, overflow) = count.multipliedReportingOverflow(by: dimension)
      guard dimension >= 0, !overflow else { return nil }
      count = product
    }
    return count
  }
}
