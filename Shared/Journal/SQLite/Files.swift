import Foundation
import Synchronization

/// Keeps two processes from using one journal.
final class FileLock: Sendable {
  private let descriptor: Mutex<Int32?>

  init(_ path: String) throws(JournalError) {
    try? FileManager.default.createDirectory(
      at: URL(filePath: path).deletingLastPathComponent(), withIntermediateDirectories: true,
      attributes: [.posixPermissions: 0o700])
    let file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    guard file >= 0 else { throw .failed(operation: "open \(path)", reason: String(cString: strerror(errno))) }
    guard flock(file, LOCK_EX | LOCK_NB) == 0 else {
      let code = errno
      close(file)
      if code == EWOULDBLOCK { throw .inUse(path: String(path.dropLast(".lock".count))) }
      throw .failed(operation: "lock \(path)", reason: String(cString: strerror(code)))
    }
    descriptor = Mutex(file)
  }

  func release() {
    descriptor.withLock { file in
      if let open = file { close(open) }
      file = nil
    }
  }

  deinit { release() }
}

/// Reserved disk space: it is released when the disk is full, so that the ends of running jobs can still be written.
final class Ballast: Sendable {
  private let path: String
  private let byteCount: Int64
  private let isThere: Mutex<Bool>

  init(_ path: String, byteCount: Int64) {
    self.path = path
    self.byteCount = byteCount
    isThere = Mutex(false)
    _ = restore()
  }

  /// Reserves the space if it is not reserved; returns whether it is now.
  func restore() -> Bool {
    isThere.withLock { isThere in
      if isThere || byteCount <= 0 { return true }
      let file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
      guard file >= 0 else { return false }
      defer { close(file) }
      isThere = posix_fallocate(file, 0, off_t(byteCount)) == 0
      if !isThere { unlink(path) }
      return isThere
    }
  }

  /// Releases the space; returns whether there was any.
  func release() -> Bool {
    isThere.withLock { isThere in
      guard isThere else { return false }
      isThere = false
      return unlink(path) == 0
    }
  }
}
