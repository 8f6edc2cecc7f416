import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Keeps freed blocks of memory for the next tensor of the same size.
///
/// A network asks for the same few sizes over and over, and memory fresh from the kernel costs a page fault and a
/// zeroing each time: several percent of a matrix product, a quarter of a memory-bound operation. Idle blocks are freed
/// before new memory is allocated, so blocks in use and idle together never exceed the most that was ever in use at
/// once.
public final class BlockRecycler: Sendable {
  /// The recycler of all tensors.
  public static let shared = BlockRecycler(idleBytesMax: 2 << 30)

  /// Smaller blocks are left to malloc.
  static let smallestBlockBytes = 128 << 10

  // Pointers as numbers, since pointers are not Sendable: an idle block belongs to this list alone.
  private struct Idle { var blocks: [Int: [UInt]] = [:], byteCount = 0 }
  private let idle = Mutex(Idle())
  private let idleBytesMax: Int

  /// A recycler that keeps at most `idleBytesMax` bytes.
  package init(idleBytesMax: Int) { self.idleBytesMax = idleBytesMax }

  deinit { releaseIdleBlocks() }

  /// Bytes of blocks that wait to be used again.
  public var idleBytes: Int { idle.withLock { $0.byteCount } }

  /// Gives all idle blocks back to the system: when a stage has nothing to do, say.
  public func releaseIdleBlocks() { release(atLeast: .max) }

  /// An idle block of exactly this size, or nil after freeing idle blocks of other sizes for a new one.
  package func take(byteCount: Int) -> UnsafeMutableRawPointer? {
    let block = idle.withLock { idle -> UInt? in
      guard let block = idle.blocks[byteCount]?.popLast() else { return nil }
      idle.byteCount -= byteCount
      return block
    }
    guard let block, let pointer = UnsafeMutableRawPointer(bitPattern: block) else {
      release(atLeast: byteCount)
      return nil
    }
    AddressSanitizer.permit(pointer, byteCount)
    return pointer
  }

  /// Keeps an unused block from malloc, or frees it if there are enough.
  package func give(_ block: UnsafeMutableRawPointer, byteCount: Int) {
    // Before another thread may take it.
    AddressSanitizer.forbid(block, byteCount)
    let address = UInt(bitPattern: block)
    let isKept = idle.withLock { idle in
      guard idle.byteCount + byteCount <= idleBytesMax else { return false }
      idle.blocks[byteCount, default: []].append(address)
      idle.byteCount += byteCount
      return true
    }
    if !isKept { free(block) }
  }

  /// Frees idle blocks, larger ones first, until `byteCount` bytes are freed or none is left.
  private func release(atLeast byteCount: Int) {
    let released = idle.withLock { idle in
      var released: [UInt] = [], releasedBytes = 0
      for size in idle.blocks.keys.sorted(by: >) {
        while releasedBytes < byteCount, let block = idle.blocks[size]?.popLast() {
          released.append(block)
          releasedBytes += size
        }
        if idle.blocks[size]?.isEmpty == true { idle.blocks[size] = nil }
      }
      idle.byteCount -= releasedBytes
      return released
    }
    for block in released { free(UnsafeMutableRawPointer(bitPattern: block)) }
  }
}
