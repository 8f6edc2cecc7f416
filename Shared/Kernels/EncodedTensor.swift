import CKernels
import TensorCore

/// A format in which files hold numbers that the products do not read: blocks of equal size, expanded to fp32 before
/// they are used. Raw values are the names that safetensors and GGUF files have for them.
public enum BlockFormat: String, Sendable, CaseIterable {
  /// 8 bits, of which 4 are the exponent; without infinity (torch's `float8_e4m3fn`).
  case float8E4M3 = "F8_E4M3"
  /// 8 bits, of which 5 are the exponent (torch's `float8_e5m2`).
  case float8E5M2 = "F8_E5M2"
  /// Two signed numbers a byte, the first in the low half.
  case int4 = "I4"
  case q4_0 = "Q4_0"
  case q4_1 = "Q4_1"
  case q5_0 = "Q5_0"
  case q5_1 = "Q5_1"
  case q8_0 = "Q8_0"
  case q2K = "Q2_K"
  case q3K = "Q3_K"
  case q4K = "Q4_K"
  case q5K = "Q5_K"
  case q6K = "Q6_K"
  case iq4NL = "IQ4_NL"
  case iq4XS = "IQ4_XS"

  /// Elements of a block.
  public var blockElements: Int { ck_block_elements(kernelFormat) }
  /// Bytes of a block.
  public var blockBytes: Int { ck_block_bytes(kernelFormat) }

  /// The C kernels' number of the format.
  var kernelFormat: Int32 {
    let format =
      switch self {
      case .float8E4M3: CK_F8_E4M3
      case .float8E5M2: CK_F8_E5M2
      case .int4: CK_INT4
      case .q4_0: CK_Q4_0
      case .q4_1: CK_Q4_1
      case .q5_0: CK_Q5_0
      case .q5_1: CK_Q5_1
      case .q8_0: CK_Q8_0
      case .q2K: CK_Q2_K
      case .q3K: CK_Q3_K
      case .q4K: CK_Q4_K
      case .q5K: CK_Q5_K
      case .q6K: CK_Q6_K
      case .iq4NL: CK_IQ4_NL
      case .iq4XS: CK_IQ4_XS
      }
    return Int32(format)
  }
}

/// A tensor in a ``BlockFormat``. Its elements are the blocks' in their order; rows need not begin with a block.
public struct EncodedTensor: Sendable {
  /// Extents.
  public let shape: Shape
  /// How the elements are encoded.
  public let format: BlockFormat
  /// fp32: what all elements are multiplied with (one value), or those of each row; nil: nothing.
  public let scales: Tensor?
  /// Inputs whose weights were rotated together before they were encoded, ``Linear/rotation``.
  public let rotation: Int
  /// Bytes of the blocks that hold the elements.
  private let blocks: Tensor
  /// Elements of the first block that are before the first of the tensor.
  private let skipped: Int

  /// See the properties.
  ///
  /// - Parameter blocks: uint8, the blocks of `shape.elementCount` elements; the last one may hold more.
  public init(
    _ blocks: Tensor, _ format: BlockFormat, shape: Shape, scales: Tensor? = nil, rotation: Int = 1
  ) {
    let count = (shape.elementCount + format.blockElements - 1) / format.blockElements
    precondition(
      blocks.dtype == .uint8 && blocks.elementCount == count * format.blockBytes,
      "\(blocks.elementCount) bytes for \(format.rawValue) \(shape)")
    precondition(
      scales.map { $0.dtype == .fp32 && ($0.elementCount == 1 || $0.elementCount == shape[0]) } ?? true,
      "scales of another shape")
    precondition(
      rotation == 1 || Linear.rotationGroups.contains(rotation) && shape.rank == 2 && shape[1] % rotation == 0,
      "\(shape) rotated by \(rotation)")
    self.init(shape: shape, format: format, scales: scales, rotation: rotation, blocks: blocks, skipped: 0)
  }

  private init(shape: Shape, format: BlockFormat, scales: Tensor?, rotation: Int, blocks: Tensor, skipped: Int) {
    self.shape = shape
    self.format = format
    self.scales = scales
    self.rotation = rotation
    self.blocks = blocks
    self.skipped = skipped
  }

  /// Some rows of the outermost dimension, without a copy.
  public func rows(_ range: Range<Int>) -> EncodedTensor {
    let width = shape.rowExtents.width, size = format.blockElements
    precondition(range.lowerBound >= 0 && range.upperBound <= shape[0], "rows \(range) of \(shape)")
    let start = skipped + range.lowerBound * width, end = skipped + range.upperBound * width
    let first = start / size, last = max((end + size - 1) / size, first)
    return EncodedTensor(
      shape: Shape([range.count] + shape.dimensions.dropFirst()), format: format,
      scales: scales.map { $0.elementCount == 1 ? $0 : $0.rows(range) }, rotation: rotation,
      blocks: blocks.rows(first * format.blockBytes..<last * format.blockBytes), skipped: start - first * size)
  }

  /// Writes the elements from `start` on to `target`, scaled. Elements of a block that belong to others are expanded
  /// beside it.
  fileprivate func expand(_ start: Int, into target: UnsafeMutableBufferPointer<Float>) {
    let size = format.blockElements, end = start + target.count
    let begin = skipped + start
    var block = begin / size, done = 0
    func address(_ count: Int) -> UnsafeRawPointer {
      blocks.address(block * format.blockBytes, count: count * format.blockBytes)
    }
    while done < target.count {
      let offset = done == 0 ? begin % size : 0, whole = offset == 0 ? (target.count - done) / size : 0
      if whole > 0 {
        ck_expand(target.baseAddress! + done, address(whole), format.kernelFormat, whole)
        done += whole * size
        block += whole
      } else {
        let count = min(size - offset, target.count - done)
        withUnsafeTemporaryAllocation(of: Float.self, capacity: size) { elements in
          ck_expand(elements.baseAddress!, address(1), format.kernelFormat, 1)
          for index in 0..<count { target[done + index] = elements[offset + index] }
        }
        done += count
        block += 1
      }
    }
    guard let scales else { return }
    let width = scales.elementCount == 1 ? max(shape.elementCount, 1) : shape.rowExtents.width
    let factors = scales.pointer(count: scales.elementCount, as: Float.self)
    for index in start..<end { target[index - start] *= factors[index / width] }
  }

  /// The elements, fp32, expanded on the calling thread. Not for weights that were rotated.
  public func values() -> Tensor {
    precondition(rotation == 1, "values of a rotated weight")
    guard shape.elementCount > 0 else { return Tensor.zeros(shape) }
    return filled(shape, reading: blocks, scales) { result in
      let count = shape.elementCount
      expand(0, into: UnsafeMutableBufferPointer(start: result.pointer(count: count), count: count))
    }
  }

  /// A weight in 4 bits as one in 8, which has the same values.
  public func widenedToInt8() -> Int8Weight {
    precondition(format == .int4 && shape.rank == 2 && shape.elementCount > 0, "\(format.rawValue) \(shape) in 8 bits")
    let numbers = EncodedTensor(
      shape: shape, format: format, scales: nil, rotation: 1, blocks: blocks, skipped: skipped
    ).values().floats().map { Int8($0) }
    let factors = scales?.floats() ?? [1]
    return Int8Weight(
      numbers: Tensor(numbers, .int8, shape: shape),
      scales: Tensor(factors.count == 1 ? Array(repeating: factors[0], count: shape[0]) : factors, shape: [shape[0]]),
      rotation: rotation)
  }
}

extension Compute {
  /// What `tensor` stands for, fp32: its elements times their scales, rotated back.
  public func values(of tensor: EncodedTensor) -> Tensor {
    guard tensor.shape.elementCount > 0 else { return Tensor.zeros(tensor.shape) }
    let (rows, width) = tensor.shape.rowExtents
    return filled(tensor.shape) { result in
      // Pieces of whole rows: rotated groups lie in one.
      parallelRows(rows, bytesPerRow: 4 * width) { range in
        let count = range.count * width, start = range.lowerBound * width
        let target = result.pointer(start, count: count, as: Float.self)
        tensor.expand(start, into: UnsafeMutableBufferPointer(start: target, count: count))
        if tensor.rotation > 1 { functions.rotate(target, target, Int32(CK_FP32), count, tensor.rotation) }
      }
      withExtendedLifetime(tensor) {}
    }
  }

  /// Rows `ids` of a table [V, D] → fp32 [ids.count, D]. Traps on an id outside the table.
  public func gatherRows(_ table: EncodedTensor, _ ids: [Int]) -> Tensor {
    ids.isEmpty
      ? Tensor.zeros([0, table.shape.rowExtents.width])
      : Tensor.stacking(ids.map { values(of: table.rows($0..<$0 + 1)) })
  }
}
