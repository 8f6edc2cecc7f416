#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A block of memory that tensors view.
///
/// `@unchecked Sendable`: storage is written only by the operation that allocated it (or through an `inout` tensor, whose
/// operation documents it), and that operation has ended before the tensor reaches another thread.
public final class TensorStorage: @unchecked Sendable {
  /// First byte. Read-only when the storage borrows a file mapping.
  let base: UnsafeMutableRawPointer
  /// Size in bytes.
  public let byteCount: Int
  private let owner: AnyObject?

  /// Blocks of at least this size are backed by huge pages where the kernel offers them: large panels are read several times
  /// over and would otherwise miss the TLB.
  private static let hugePageThreshold = 4 << 20

  /// Allocates uninitialised memory, aligned to a cache line (large blocks: to a huge page).
  public init(byteCount: Int) {
    precondition(byteCount >= 0)
    let alignment = byteCount >= Self.hugePageThreshold ? 2 << 20 : 64
    var pointer: UnsafeMutableRawPointer?
    let status = posix_memalign(&pointer, alignment, max(byteCount, 64))
    guard status == 0, let pointer else { fatalError("out of memory allocating \(byteCount) bytes") }
    #if os(Linux)
      if byteCount >= Self.hugePageThreshold { madvise(pointer, byteCount, MADV_HUGEPAGE) }
    #endif
    self.base = pointer
    self.byteCount = byteCount
    self.owner = nil
  }

  /// Views read-only memory that `owner` keeps alive, such as a file mapping.
  public init(borrowing memory: UnsafeRawBufferPointer, owner: AnyObject) {
    self.base = UnsafeMutableRawPointer(mutating: memory.baseAddress ?? UnsafeRawPointer(bitPattern: 64)!)
    self.byteCount = memory.count
    self.owner = owner
  }

  deinit { if owner == nil { free(base) } }
}
