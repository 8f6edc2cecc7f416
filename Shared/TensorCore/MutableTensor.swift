/// A tensor that is being made: the only user of its storage.
///
/// It cannot be copied: no other code reads elements that are still being written, and no two operations write the same
/// ones. Operations that fill parts of a larger result take it `inout`; ``finish()`` turns it into a ``Tensor`` that
/// can be shared.
public struct MutableTensor: ~Copyable, Sendable {
  /// Extents, outermost first.
  public let shape: Shape
  /// Element type.
  public let dtype: DType
  private let storage: TensorStorage
  private let byteOffset: Int

  /// Allocates an uninitialised tensor; every element must be written before it is finished.
  public init(uninitialized shape: Shape, _ dtype: DType = .fp32) {
    self.init(
      shape: shape, dtype: dtype, storage: TensorStorage(byteCount: shape.elementCount * dtype.byteWidth), byteOffset: 0
    )
  }

  /// Allocates a tensor whose bytes are 0.
  public init(zeros shape: Shape, _ dtype: DType = .fp32) {
    self.init(uninitialized: shape, dtype)
    withUnsafeMutableBytes { $0.initializeMemory(as: UInt8.self, repeating: 0) }
  }

  /// Takes over a part of `storage` that no other code reads or writes.
  init(shape: Shape, dtype: DType, storage: TensorStorage, byteOffset: Int) {
    self.shape = shape
    self.dtype = dtype
    self.storage = storage
    self.byteOffset = byteOffset
  }

  /// Number of elements.
  public var elementCount: Int { shape.elementCount }

  /// Size in bytes.
  public var byteCount: Int { elementCount * dtype.byteWidth }

  /// The tensor, which nothing writes from here on.
  public consuming func finish() -> Tensor {
    Tensor(shape: shape, dtype: dtype, storage: storage, byteOffset: byteOffset)
  }

  /// Calls `body` with the elements' bytes: ``byteCount`` of them, valid until it returns.
  @_spi(TensorMemory) @discardableResult public mutating func withUnsafeMutableBytes<Result>(
    _ body: (UnsafeMutableRawBufferPointer) -> Result
  ) -> Result {
    defer { withExtendedLifetime(storage) {} }
    return body(UnsafeMutableRawBufferPointer(start: storage.base + byteOffset, count: byteCount))
  }

  /// Calls `body` with the elements as numbers of type `Element`, which must have the dtype's width.
  @discardableResult public mutating func withElements<Element: BitwiseCopyable, Result>(
    as type: Element.Type = Element.self, _ body: (inout MutableSpan<Element>) -> Result
  ) -> Result {
    precondition(MemoryLayout<Element>.stride == dtype.byteWidth, "\(Element.self) elements of a \(dtype) tensor")
    return withUnsafeMutableBytes { bytes in
      var elements = bytes.assumingMemoryBound(to: Element.self).mutableSpan
      return body(&elements)
    }
  }

  /// Copies the rows of `source`, of equal type and width, to rows from `start` on.
  public mutating func copy(_ source: Tensor, toRowsFrom start: Int) {
    precondition(source.dtype == dtype, "\(source.dtype) rows into a \(dtype) tensor")
    precondition(
      source.shape.rank >= 1 && source.shape.dimensions.dropFirst() == shape.dimensions.dropFirst(),
      "\(source.shape) into \(shape)")
    precondition(
      start >= 0 && start + source.shape[0] <= shape[0], "\(source.shape[0]) rows from \(start) on of \(shape)")
    let first = start * shape.rowBytes(dtype), count = source.byteCount
    withUnsafeMutableBytes { target in
      source.withBytes { source in
        source.withUnsafeBytes {
          UnsafeMutableRawBufferPointer(rebasing: target[first..<first + count]).copyMemory(from: $0)
        }
      }
    }
  }

  /// Moves rows to those from `start` on, which they may overlap.
  public mutating func moveRows(_ rows: Range<Int>, to start: Int) {
    let width = shape.rowBytes(dtype)
    precondition(
      shape.rank >= 1 && min(rows.lowerBound, start) >= 0 && max(rows.upperBound, start + rows.count) <= shape[0],
      "rows \(rows) to \(start) on of \(shape)")
    withUnsafeMutableBytes { bytes in
      let source = UnsafeRawBufferPointer(rebasing: bytes[rows.lowerBound * width..<rows.upperBound * width])
      UnsafeMutableRawBufferPointer(rebasing: bytes[start * width..<(start + rows.count) * width]).copyMemory(
        from: source)
    }
  }
}
