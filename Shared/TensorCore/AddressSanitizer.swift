#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Tells AddressSanitizer, in a process that was built with it (`Tests/sanitize.sh address`), what it cannot know: that
/// memory behind a tensor's last element is not the tensor's, though the block is longer, and that a block that waits
/// to be used again must not be touched. Does nothing in any other process.
package enum AddressSanitizer {
  private typealias Mark = @Sendable @convention(c) (UnsafeRawPointer, Int) -> Void
  private static let poison = function("__asan_poison_memory_region")
  private static let unpoison = function("__asan_unpoison_memory_region")

  /// `byteCount` bytes that must not be accessed until ``permit(_:_:)``, or until they are freed.
  package static func forbid(_ start: UnsafeRawPointer, _ byteCount: Int) { poison?(start, byteCount) }

  /// `byteCount` bytes that may be accessed.
  package static func permit(_ start: UnsafeRawPointer, _ byteCount: Int) { unpoison?(start, byteCount) }

  /// The sanitizer's runtime is linked into the executable, or not there.
  private static func function(_ name: String) -> Mark? {
    dlsym(dlopen(nil, RTLD_NOW), name).map { unsafeBitCast($0, to: Mark.self) }
  }
}
