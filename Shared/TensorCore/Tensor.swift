/// A dense row-major tensor: a shape and an element type over shared storage.
///
/// A tensor is a value: its elements never change while another tensor shows them. Copies and views share storage. New
/// tensors are written as a ``MutableTensor``; operations in place take an `inout` tensor and go through
/// ``withMutableTensor(_:)``, which copies storage that is shared.
public struct Tensor: Sendable {
  /// Extents, outermost first.
  public let shape: Shape
  /// Element type.
  public let dtype: DType
  private var storage: TensorStorage
  private let byteOffset: Int

  /// Views `storage` from `byteOffset`, which must leave space for `shape`.
  @_spi(TensorMemory) public init(shape: Shape, dtype: DType, storage: TensorStorage, byteOffset: Int) {
    precondition(
      byteOffset >= 0 && byteOffset + shape.elementCount * dtype.byteWidth <= storage.byteCount,
      "view outside its storage")
    self.shape = shape
    self.dtype = dtype
    self.storage = storage
    self.byteOffset = byteOffset
  }

  /// An fp32 tensor with the given elements.
  public init(_ elements: [Float], shape: Shape) { self.init(elements, .fp32, shape: shape) }

  /// A tensor of a given type; `Element` must have its width.
  public init<Element: BitwiseCopyable>(_ elements: [Element], _ dtype: DType, shape: Shape) {
    precondition(elements.count == shape.elementCount, "\(elements.count) elements for shape \(shape)")
    precondition(MemoryLayout<Element>.stride == dtype.byteWidth, "\(Element.self) elements of a \(dtype) tensor")
    self = elements.withUnsafeBytes { Tensor(copying: $0.bytes, shape: shape, dtype: dtype) }
  }

  /// A tensor with a copy of little-endian `bytes`, whose count must match.
  public init(copying bytes: RawSpan, shape: Shape, dtype: DType) {
    precondition(
      bytes.byteCount == shape.elementCount * dtype.byteWidth, "\(bytes.byteCount) bytes for \(shape) \(dtype)")
    var result = MutableTensor(uninitialized: shape, dtype)
    result.withUnsafeMutableBytes { target in bytes.withUnsafeBytes { target.copyMemory(from: $0) } }
    self = result.finish()
  }

  /// An fp32 tensor of zeros.
  public static func zeros(_ shape: Shape) -> Tensor { MutableTensor(zeros: shape).finish() }

  /// Number of elements.
  public var elementCount: Int { shape.elementCount }

  /// Size in bytes.
  public var byteCount: Int { elementCount * dtype.byteWidth }

  /// The elements' bytes: ``byteCount`` of them, valid while the tensor is alive.
  @_spi(TensorMemory) public var unsafeBytes: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: storage.base + byteOffset, count: byteCount)
  }

  // MARK: - Reading

  /// Calls `body` with the elements' bytes.
  public func withBytes<Result, Failure: Error>(_ body: (RawSpan) throws(Failure) -> Result) throws(Failure) -> Result {
    defer { withExtendedLifetime(self) {} }
    return try body(unsafeBytes.bytes)
  }

  /// Calls `body` with the elements as numbers of type `Element`, which must have the dtype's width.
  public func withElements<Element: BitwiseCopyable, Result, Failure: Error>(
    as type: Element.Type = Element.self, _ body: (Span<Element>) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    precondition(MemoryLayout<Element>.stride == dtype.byteWidth, "\(Element.self) elements of a \(dtype) tensor")
    defer { withExtendedLifetime(self) {} }
    return try body(unsafeBytes.assumingMemoryBound(to: Element.self).span)
  }

  /// The elements as floats; only for floating-point tensors.
  public func floats() -> [Float] {
    switch dtype {
    case .fp32: array(of: Float.self) { $0 }
    case .bf16: array(of: UInt16.self) { Float(bitPattern: UInt32($0) << 16) }
    case .fp16: array(of: UInt16.self, Float.init(halfBits:))
    case .int64, .int32, .int8, .uint8: preconditionFailure("floats() of a \(dtype) tensor")
    }
  }

  private func array<Element: BitwiseCopyable>(of type: Element.Type, _ value: (Element) -> Float) -> [Float] {
    withElements(as: type) { elements in
      [Float](unsafeUninitializedCapacity: elements.count) { values, count in
        for index in elements.indices { values.initializeElement(at: index, to: value(elements[index])) }
        count = elements.count
      }
    }
  }

  // MARK: - Views and copies

  /// The same elements under another shape of equal size.
  public func reshaped(_ shape: Shape) -> Tensor {
    precondition(shape.elementCount == elementCount, "cannot view \(self.shape) as \(shape)")
    return Tensor(shape: shape, dtype: dtype, storage: storage, byteOffset: byteOffset)
  }

  /// The rows `range` of the outermost dimension, without a copy.
  public func rows(_ range: Range<Int>) -> Tensor {
    Tensor(
      shape: shape.rows(range), dtype: dtype, storage: storage,
      byteOffset: byteOffset + range.lowerBound * shape.rowBytes(dtype))
  }

  /// The rows of tensors of equal type and width, one after the other: the tensor itself if there is one, else in
  /// storage of their own.
  public static func stacking(_ parts: [Tensor]) -> Tensor {
    guard parts.count != 1 else { return parts[0] }
    precondition(!parts.isEmpty && parts[0].shape.rank >= 1, "rows of \(parts.map(\.shape))")
    let width = parts[0].shape.dimensions.dropFirst()
    var result = MutableTensor(uninitialized: Shape([parts.reduce(0) { $0 + $1.shape[0] }] + width), parts[0].dtype)
    var done = 0
    for part in parts {
      result.copy(part, toRowsFrom: done)
      done += part.shape[0]
    }
    return result.finish()
  }

  /// Every `stride`th row of the outermost dimension, from `start` on, in storage of their own.
  public func rows(from start: Int, by stride: Int) -> Tensor {
    precondition(shape.rank >= 1 && start >= 0 && stride >= 1, "rows \(start), \(start + stride), … of \(shape)")
    let indices = Swift.stride(from: start, to: shape[0], by: stride)
    var result = MutableTensor(uninitialized: Shape([Array(indices).count] + shape.dimensions.dropFirst()), dtype)
    for (row, index) in indices.enumerated() { result.copy(rows(index..<index + 1), toRowsFrom: row) }
    return result.finish()
  }

  /// A copy in storage of its own.
  public func copied() -> Tensor { withBytes { Tensor(copying: $0, shape: shape, dtype: dtype) } }

  // MARK: - In place

  /// Calls `body` with this tensor's elements for writing: in place if no other tensor views the storage and it is not
  /// borrowed, such as from a file mapping, else in a copy.
  public mutating func withMutableTensor(_ body: (inout MutableTensor) -> Void) { write(to: nil, body) }

  /// As ``withMutableTensor(_:)``, for some rows of the outermost dimension. Only they may be written; the others stay
  /// as they are.
  public mutating func withMutableRows(_ rows: Range<Int>, _ body: (inout MutableTensor) -> Void) {
    write(to: rows, body)
  }

  private mutating func write(to rows: Range<Int>?, _ body: (inout MutableTensor) -> Void) {
    if storage.isBorrowed || !isKnownUniquelyReferenced(&storage) { self = copied() }
    let view = rows.map(self.rows) ?? self
    var target = MutableTensor(shape: view.shape, dtype: dtype, storage: storage, byteOffset: view.byteOffset)
    body(&target)
    // The body could have put another tensor in the place of the one that it was given.
    let result = target.finish()
    precondition(
      result.storage === storage && result.byteOffset == view.byteOffset && result.shape == view.shape,
      "a tensor written in place was replaced by another one")
  }
}

extension Shape {
  /// The shape of some rows of the outermost dimension, which must be there.
  func rows(_ range: Range<Int>) -> Shape {
    precondition(rank >= 1 && range.lowerBound >= 0 && range.upperBound <= self[0], "rows \(range) of \(self)")
    return Shape([range.count] + dimensions.dropFirst())
  }

  /// Bytes of a row of the outermost dimension.
  func rowBytes(_ dtype: DType) -> Int { dimensions.dropFirst().reduce(1, *) * dtype.byteWidth }
}

extension Float {
  /// The value of an IEEE 754 binary16 number. Written out because `Float16` does not exist on every platform Swift
  /// runs on.
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
