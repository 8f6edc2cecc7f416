#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// What tells a file from another one, or from itself before it was changed, without reading it.
package struct FileIdentity: Hashable, Sendable {
  /// Whether it is a directory.
  package let isDirectory: Bool
  /// Size in bytes.
  package let byteCount: Int
  /// When it was last written, in nanoseconds since 1970.
  package let modificationTimeNs: Int
  private let device: UInt64
  private let number: UInt64

  /// Of what is at `path`, through symbolic links; nil: there is nothing, or neither a regular file nor a directory.
  package init?(_ path: String) {
    var status = stat()
    guard stat(path, &status) == 0, [S_IFREG, S_IFDIR].contains(status.st_mode & S_IFMT) else { return nil }
    isDirectory = status.st_mode & S_IFMT == S_IFDIR
    byteCount = Int(status.st_size)
    device = UInt64(truncatingIfNeeded: status.st_dev)
    number = UInt64(truncatingIfNeeded: status.st_ino)
    #if os(Linux)
      let modified = status.st_mtim
    #else
      let modified = status.st_mtimespec
    #endif
    modificationTimeNs = Int(modified.tv_sec) * 1_000_000_000 + Int(modified.tv_nsec)
  }
}
