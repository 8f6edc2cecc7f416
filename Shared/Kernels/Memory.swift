import CKernels
@_spi(TensorMemory) import TensorCore

// Memory as the C kernels see it. Nothing above this module handles a pointer, and here every pointer is asked for
// together with the number of elements that its user reads or writes: they must be there. A pointer is valid while its
// tensor is alive and, if it is for writing, inside the closure that got the `Output`.

extension Tensor {
  /// The address of `count` elements from `index` on.
  func address(_ index: Int = 0, count: Int) -> UnsafeRawPointer {
    precondition(
      index >= 0 && count >= 0 && index + count <= elementCount, "elements \(index)..<\(index + count) of \(shape)")
    return unsafeBytes.baseAddress! + index * dtype.byteWidth
  }

  /// As ``address(_:count:)``, for elements of type `Element`, which must have the dtype's width.
  func pointer<Element>(_ index: Int = 0, count: Int, as type: Element.Type = Element.self) -> UnsafePointer<Element> {
    precondition(MemoryLayout<Element>.stride == dtype.byteWidth, "\(Element.self) pointer into a \(dtype) tensor")
    return address(index, count: count).assumingMemoryBound(to: Element.self)
  }
}

/// The elements of a tensor that kernels write. Several threads may do so at once, each to elements of its own.
///
/// Unlike the tensor it can be copied, into the closures of parallel loops; it must not leave the closure that it was
/// given to.
struct Output {
  private let base: UnsafeMutableRawPointer
  let dtype: DType
  let elementCount: Int

  fileprivate init(_ bytes: UnsafeMutableRawBufferPointer, _ dtype: DType) {
    base = bytes.baseAddress!
    self.dtype = dtype
    elementCount = bytes.count / dtype.byteWidth
  }

  /// The address of `count` elements from `index` on.
  func address(_ index: Int = 0, count: Int) -> UnsafeMutableRawPointer {
    precondition(
      index >= 0 && count >= 0 && index + count <= elementCount,
      "elements \(index)..<\(index + count) of \(elementCount)")
    return base + index * dtype.byteWidth
  }

  /// As ``address(_:count:)``, for elements of type `Element`, which must have the dtype's width.
  func pointer<Element>(_ index: Int = 0, count: Int, as type: Element.Type = Element.self) -> UnsafeMutablePointer<
    Element
  > {
    precondition(MemoryLayout<Element>.stride == dtype.byteWidth, "\(Element.self) pointer into a \(dtype) tensor")
    return address(index, count: count).assumingMemoryBound(to: Element.self)
  }
}

extension MutableTensor {
  /// Calls `body`, whose kernels write this tensor and read `inputs`.
  mutating func write(reading inputs: Tensor?..., by body: (Output) -> Void) {
    let dtype = dtype
    withUnsafeMutableBytes { body(Output($0, dtype)) }
    withExtendedLifetime(inputs) {}
  }
}

/// A new tensor that the kernels called by `body` write; they read `inputs`.
func filled(_ shape: Shape, _ dtype: DType = .fp32, reading inputs: Tensor?..., by body: (Output) -> Void) -> Tensor {
  var result = MutableTensor(uninitialized: shape, dtype)
  result.write { body($0) }
  withExtendedLifetime(inputs) {}
  return result.finish()
}

extension ThreadPool {
  /// A tensor of elements that `body` makes, a piece at a time on several threads.
  ///
  /// - Parameters:
  ///   - pieceElements: elements of a piece, at least 1.
  ///   - body: called with the range of a piece's elements, in row-major order, and the memory to write all of them to.
  public func tensor<Element: BitwiseCopyable>(
    _ shape: Shape, _ dtype: DType, of type: Element.Type = Element.self, pieceElements: Int,
    by body: (Range<Int>, inout MutableSpan<Element>) -> Void
  ) -> Tensor {
    let count = shape.elementCount
    return filled(shape, dtype) { result in
      parallel((count + pieceElements - 1) / pieceElements) { index in
        let range = index * pieceElements..<min((index + 1) * pieceElements, count)
        let piece = result.pointer(range.lowerBound, count: range.count, as: type)
        var elements = UnsafeMutableBufferPointer(start: piece, count: range.count).mutableSpan
        body(range, &elements)
      }
    }
  }
}

/// Where the parts of a block of scratch memory lie. It is computed once; the code that allocates the block reads it,
/// and the code that uses the block.
struct ScratchLayout {
  /// One part. It begins at a cache line.
  struct Part {
    fileprivate let offset: Int
    fileprivate let byteCount: Int
  }

  /// Bytes of all parts, a multiple of a cache line.
  private(set) var byteCount = 0

  /// Adds a part of at least `bytes` bytes behind the others.
  mutating func add(_ bytes: Int) -> Part {
    let part = Part(offset: byteCount, byteCount: (bytes + 63) / 64 * 64)
    byteCount += part.byteCount
    return part
  }
}

/// A block of scratch memory, or one of several of the same layout that lie in it one after the other.
struct Scratch {
  private let base: UnsafeMutableRawPointer
  private let byteCount: Int

  /// The block that `output`, a tensor of bytes, holds from `index` on.
  init(_ output: Output, from index: Int = 0, count: Int) {
    precondition(output.dtype == .uint8, "scratch memory of type \(output.dtype)")
    base = output.address(index, count: count)
    byteCount = count
  }

  /// The address of a part.
  func callAsFunction(_ part: ScratchLayout.Part) -> UnsafeMutableRawPointer {
    precondition(
      part.offset + part.byteCount <= byteCount,
      "a part that ends at \(part.offset + part.byteCount) of \(byteCount) bytes")
    return base + part.offset
  }

  /// The address of a part, for elements of type `Element`: as many as fit into the part.
  func elements<Element>(_ part: ScratchLayout.Part, as type: Element.Type) -> UnsafeMutableBufferPointer<Element> {
    let count = part.byteCount / MemoryLayout<Element>.stride
    return UnsafeMutableBufferPointer(start: self(part).bindMemory(to: type, capacity: count), count: count)
  }
}

extension Compute {
  /// Calls `body` with uninitialised memory of a layout. Large blocks are recycled, unlike malloc's.
  func withScratch(_ layout: ScratchLayout, _ body: (Scratch) -> Void) {
    var block = MutableTensor(uninitialized: [layout.byteCount], .uint8)
    block.write { body(Scratch($0, count: layout.byteCount)) }
  }

  /// Calls `body` with the address of `byteCount` bytes of uninitialised memory that begin at a cache line.
  func withScratch(_ byteCount: Int, _ body: (UnsafeMutableRawPointer) -> Void) {
    var layout = ScratchLayout()
    let whole = layout.add(byteCount)
    withScratch(layout) { body($0(whole)) }
  }
}

extension Shape {
  /// Extents as [rows, elements per row].
  var rowExtents: (rows: Int, width: Int) {
    precondition(rank >= 1, "a scalar has no rows")
    return (self[0], dimensions.dropFirst().reduce(1, *))
  }
}

extension DType {
  /// The C kernels' name of a floating-point type.
  var kernelType: Int32 {
    switch self {
    case .fp32: Int32(CK_FP32)
    case .bf16: Int32(CK_BF16)
    case .fp16: Int32(CK_FP16)
    case .int64, .int32, .int8, .uint8: preconditionFailure("\(self) is not a floating-point type")
    }
  }

  /// The C kernels' name of a type that activations may have: they tell fp32 and bf16 apart and know no other.
  var activationType: Int32 {
    precondition(self == .fp32 || self == .bf16, "\(self) activations")
    return kernelType
  }
}
