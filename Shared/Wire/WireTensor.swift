import TensorCore

/// A tensor that travels as a raw frame beside the envelope.
public struct WireTensor: Sendable, Equatable {
  /// The tensor's role, unique in its message: `prompt_embeds`, `latents`, `image`…
  public var name: String
  /// The type of its elements.
  public var dtype: DType
  /// Its dimensions, outermost first; empty for a scalar.
  public var shape: [Int]
  /// Its elements, row-major: `WireTensor.byteCount(shape:dtype:)` bytes.
  public var bytes: FrameBuffer

  /// Puts the parts together; `WireCodec` checks that they agree.
  public init(name: String, dtype: DType, shape: [Int], bytes: FrameBuffer) {
    self.name = name
    self.dtype = dtype
    self.shape = shape
    self.bytes = bytes
  }

  /// The bytes that `shape` takes, or nil if a dimension is negative or the product overflows.
  public static func byteCount(shape: [Int], dtype: DType) -> Int? {
    var count = dtype.byteWidth
    for dimension in shape {
      let (product, overflow) = count.multipliedReportingOverflow(by: dimension)
      guard dimension >= 0, !overflow else { return nil }
      count = product
    }
    return count
  }
}

extension DType {
  /// The number of the element type in tensor.proto.
  public var wireNumber: UInt32 {
    switch self {
    case .fp32: 1
    case .bf16: 2
    case .fp16: 3
    case .int64: 4
    case .int32: 5
    case .int8: 6
    case .uint8: 7
    }
  }

  /// The element type with a number of tensor.proto; nil: none has it.
  public init?(wireNumber: UInt32) {
    guard let dtype = Self.allCases.first(where: { $0.wireNumber == wireNumber }) else { return nil }
    self = dtype
  }
}
