@_spi(TensorMemory) import TensorCore
import Wire

/// Conversion between the models' tensors and the wire's. Neither direction copies elements, except of misaligned
/// frames: a frame borrows a tensor's memory and a tensor a frame's, by address, each keeping the other's owner alive.
/// This is why pointers appear here, above Kernels.
extension WireTensor {
  /// `tensor` under the name that its receiver looks for.
  public init(_ name: String, _ tensor: Tensor) {
    let owner = TensorOwner(tensor)
    self.init(
      name: name, dtype: WireDType(tensor.dtype), shape: tensor.shape.dimensions,
      bytes: FrameBuffer(tensor.unsafeBytes, keepingAlive: owner))
  }

  /// A one-dimensional tensor of `bytes`.
  public init(_ name: String, bytes: [UInt8]) {
    self.init(name: name, dtype: .u8, shape: [bytes.count], bytes: FrameBuffer(copying: bytes))
  }

  /// The elements as a tensor of the models.
  public func tensor() -> Tensor {
    bytes.withUnsafeBytes { memory in
      let shape = Shape(self.shape)
      let dtype = DType(self.dtype)
      let isAligned = UInt(bitPattern: memory.baseAddress) % UInt(dtype.byteWidth) == 0
      guard isAligned else { return Tensor(copying: memory.bytes, shape: shape, dtype: dtype) }
      return Tensor(shape: shape, dtype: dtype, storage: TensorStorage(borrowing: memory, owner: bytes), byteOffset: 0)
    }
  }
}

/// Keeps a tensor's storage alive for a frame that borrows it.
private final class TensorOwner: Sendable {
  private let tensor: Tensor
  init(_ tensor: Tensor) { self.tensor = tensor }
}

extension WireDType {
  fileprivate init(_ dtype: DType) {
    self =
      switch dtype {
      case .fp32: .f32
      case .bf16: .bf16
      case .fp16: .f16
      case .int64: .i64
      case .int32: .i32
      case .int8: .i8
      case .uint8: .u8
      }
  }
}

extension DType {
  fileprivate init(_ dtype: WireDType) {
    self =
      switch dtype {
      case .f32: .fp32
      case .bf16: .bf16
      case .f16: .fp16
      case .i64: .int64
      case .i32: .int32
      case .i8: .int8
      case .u8: .uint8
      }
  }
}
