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
      name: name, dtype: tensor.dtype, shape: tensor.shape.dimensions,
      bytes: FrameBuffer(tensor.unsafeBytes, keepingAlive: owner))
  }

  /// A one-dimensional tensor of `bytes`.
  public init(_ name: String, bytes: [UInt8]) {
    self.init(name: name, dtype: .uint8, shape: [bytes.count], bytes: FrameBuffer(copying: bytes))
  }

  /// The elements as a tensor of the models.
  public func tensor() -> Tensor {
    bytes.withUnsafeBytes { memory in
      let shape = Shape(self.shape)
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
