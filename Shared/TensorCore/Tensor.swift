/// A dense row-major tensor: a shape and an element type over shared storage.
///
/// A tensor is a view; copying the value does not copy elements. Operations allocate their results, except those that take
/// `inout` tensors and say so.
public struct Tensor: Sendable {
  /// Extents, outermost first.
  public let shape: Shape
  /// Element type.
  public let dtype: DType
  private let storage: TensorStorage
  private let byteOffset: Int

  /// Allocates an uninitialised tensor.
  public init(uninitialized shape: Shape, _ dtype: DType = .fp32) {
    self.init(shape: shape, dtype: dtype, storage: TensorStorage(byteCount: shape.elementCount * dtype.byteWidth), byteOffset: 0)
  }

  /// Views `storage` from `byteOffset`, which must leave room for `shape`.
  public init(shape: Shape, dtype: DType, storage: TensorStorage, byteOffset: Int) {
    precondition(byteOffset >= 0 && byteOffset + shape.elementCount * dtype.byteWidth <= storage.byteCount, "view outside its storage")
    self.shape = shape
    self.dtype = dtype
    self.storage = storage
    self.byteOffset = byteOffset
  }

  /// An fp32 tensor with the given elements.
  public init(_ elements: [Float], shape: Shape) {
    precondition(elements.count == shape.elementCount, "\(elements.count) elements for shape \(shape)")
    self.init(uninitialized: shape, .fp32)
    elements.withUnsafeBytes { bytes in
      if let source = bytes.baseAddress { mutableBytes.baseAddress!.copyMemory(from: source, byteCount: bytes.count) }
    }
  }

  /// A tensor with a copy of little-endian `bytes`, whose count must match.
  public init(copying bytes: UnsafeRawBufferPointer, shape: Shape, dtype: DType) {
    precondition(bytes.count == shape.elementCount * dtype.byteWidth, "\(bytes.count) bytes for \(shape) \(dtype)")
    self.init(uninitialized: shape, dtype)
    if let source = bytes.baseAddress { mutableBytes.baseAddress!.copyMemory(from: source, byteCount: bytes.count) }
  }

  /// An fp32 tensor of zeros.
  public static func zeros(_ shape: Shape) -> Tensor {
    let tensor = Tensor(uninitialized: shape, .fp32)
    tensor.mutableBytes.initializeMemory(as: UInt8.self, repeating: 0)
    return tensor
  }

  /// Number of elements.
  public var elementCount: Int { shape.elementCount }

  /// Size in bytes.
  public var byteCount: Int { elementCount * dtype.byteWidth }

  /// The elements' bytes. Valid while the tensor is alive: use it inside `withExtendedLifetime`, or on a function's parameter.
  public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: storage.base + byteOffset, count: byteCount) }

  /// The elements' bytes for the operation that is filling this tensor; same lifetime rule as ``bytes``.
  public var mutableBytes: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(start: storage.base + byteOffset, count: byteCount)
  }

  /// Pointer to elements of type `T`, whose width must be the dtype's; same lifetime rule as ``bytes``.
  public func pointer<T>(as type: T.Type = T.self) -> UnsafeMutablePointer<T> {
    precondition(MemoryLayout<T>.stride == dtype.byteWidth, "\(T.self) pointer into a \(dtype) tensor")
    return (storage.base + byteOffset).assumingMemoryBound(to: T.self)
  }

  /// The same elements under another shape of equal size.
  public func reshaped(_ shape: Shape) -> Tensor {
    precondition(shape.elementCount == elementCount, "cannot view \(self.shape) as \(shape)")
    return Tensor(shape: shape, dtype: dtype, storage: storage, byteOffset: byteOffset)
  }

  /// The rows `range` of the outermost dimension, without a copy.
  public func rows(_ range: Range<Int>) -> Tensor {
    precondition(shape.rank >= 1 && range.lowerBound >= 0 && range.upperBound <= shape[0], "rows \(range) of \(shape)")
    let rowBytes = shape[0] == 0 ? 0 : byteCount / shape[0]
    return Tensor(
      shape: Shape([range.count] + shape.dimensions.dropFirst()), dtype: dtype, storage: storage,
      byteOffset: byteOffset + range.lowerBound * rowBytes)
  }

  /// The rows of two tensors of equal type and width, one after the other, in storage of their own.
  public func appending(_ other: Tensor) -> Tensor {
    let width = Array(shape.dimensions.dropFirst())
    precondition(
      shape.rank >= 1 && dtype == other.dtype && width == Array(other.shape.dimensions.dropFirst()), "\(shape) and \(other.shape)")
    let result = Tensor(uninitialized: Shape([shape[0] + other.shape[0]] + width), dtype)
    withExtendedLifetime((self, other)) {
      result.rows(0..<shape[0]).mutableBytes.copyMemory(from: bytes)
      result.rows(shape[0]..<result.shape[0]).mutableBytes.copyMemory(from: other.bytes)
    }
    return result
  }

  /// A copy in storage of its own.
  public func copied() -> Tensor { withExtendedLifetime(self) { Tensor(copying: bytes, shape: shape, dtype: dtype) } }

  /// The elements as floats; only for floating-point tensors.
  public func floats() -> [Float] {
    withExtendedLifetime(self) {
      switch dtype {
      case .fp32: Array(UnsafeBufferPointer(start: pointer(as: Float.self), count: elementCount))
      case .bf16: UnsafeBufferPointer(start: pointer(as: UInt16.self), count: elementCount).map { Float(bitPattern: UInt32($0) << 16) }
      case .fp16: UnsafeBufferPointer(start: pointer(as: UInt16.self), count: elementCount).map(Float.init(halfBits:))
      case .int64, .int32, .int8, .uint8: preconditionFailure("floats() of a \(dtype) tensor")
      }
    }
  }
}

extension Float {
  /// The value of an IEEE 754 binary16 number. Written out because `Float16` does not exist on every platform Swift runs on.
  public init(halfBits: UInt16) {
    let sign: Float = halfBits & 0x8000 == 0 ? 1 : -1
    let exponent = Int(halfBits >> 10) & 0x1f
    let fraction = Float(halfBits & 0x3ff)
    switch exponent {
    case 0: self = sign * fraction * 0x1p-24
    case 31: self = fraction == 0 ? sign * .infinity : .nan
    default: self = sign * (1 + fraction / 1024) * Float(sign: .plus, exponent: exponent - 15, significand: 1)
    }
  }
}
