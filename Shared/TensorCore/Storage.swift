#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A block of memory that tensors view.
///
/// `@unchecked Sendable`: storage is written through a ``MutableTensor`` only, which is its sole user while it exists;
/// a ``Tensor``, which may be shared between threads, never writes. See `Shared/Documentation/concurrency.md`.
@_spi(TensorMemory) public final class TensorStorage: @unchecked Sendable {
  /// First byte of ``byteCount``. Read-only memory when the storage borrows it.
  let base: UnsafeMutableRawPointer
  /// Size in bytes.
  public let byteCount: Int
  private let owner: AnyObject?

  /// Whether the memory belongs to another object, such as a file mapping, and must not be written.
  var isBorrowed: Bool { owner != nil }

  /// Blocks of at least this size are backed by huge pages where the kernel offers them: large panels are read several
  /// times over and would otherwise miss the TLB.
  private static let hugePageThreshold = 1 << 20
  private static let hugePageBytes = 2 << 20

  /// Allocates uninitialised memory, aligned to a cache line (large blocks: to a huge page).
  public init(byteCount: Int) {
    precondition(byteCount >= 0)
    self.byteCount = byteCount
    self.owner = nil
    let blockBytes = Self.blockBytes(byteCount)
    if blockBytes >= BlockRecycler.smallestBlockBytes, let block = BlockRecycler.shared.take(byteCount: blockBytes) {
      self.base = block
      AddressSanitizer.forbid(block + byteCount, blockBytes - byteCount)
      return
    }
    let isHuge = blockBytes >= Self.hugePageThreshold
    var pointer: UnsafeMutableRawPointer?
    let status = posix_memalign(&pointer, isHuge ? Self.hugePageBytes : 64, blockBytes)
    guard status == 0, let pointer else { fatalError("out of memory allocating \(byteCount) bytes") }
    #if os(Linux)
      if isHuge { madvise(pointer, blockBytes, MADV_HUGEPAGE) }
    #endif
    self.base = pointer
    AddressSanitizer.forbid(pointer + byteCount, blockBytes - byteCount)
  }

  /// Sizes are rounded so that blocks can be used again: huge ones to huge pages, others to 4 KiB.
  private static func blockBytes(_ byteCount: Int) -> Int {
    let unit =
      byteCount >= hugePageThreshold ? hugePageBytes : byteCount >= BlockRecycler.smallestBlockBytes ? 4096 : 64
    return max(byteCount + unit - 1, unit) / unit * unit
  }

  /// Views read-only memory that `owner` keeps alive, such as a file mapping.
  public init(borrowing memory: UnsafeRawBufferPointer, owner: AnyObject) {
    self.base = UnsafeMutableRawPointer(mutating: memory.baseAddress ?? UnsafeRawPointer(bitPattern: 64)!)
    self.byteCount = memory.count
    self.owner = owner
  }

  deinit {
    guard owner == nil else { return }
    let blockBytes = Self.blockBytes(byteCount)
    if blockBytes >= BlockRecycler.smallestBlockBytes {
      BlockRecycler.shared.give(base, byteCount: blockBytes)
    } else {
      free(base)
    }
  }
}
