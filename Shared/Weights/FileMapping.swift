@_spi(TensorMemory) import TensorCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

// The system's calls for files and mappings take addresses, so that pointers appear here, above Kernels.

/// A whole file mapped read-only; unmapped when the last tensor viewing it goes.
///
/// If another process truncates the file while it is mapped, touching the lost pages raises SIGBUS, which no check here
/// can prevent: model directories must be replaced (new file, rename), never rewritten in place. The container images
/// mount them read-only.
///
/// `@unchecked Sendable`: the mapping is never written, and its address does not change.
final class FileMapping: @unchecked Sendable {
  /// The file's bytes.
  private let bytes: UnsafeRawBufferPointer
  /// The file, to speak of its pages in the page cache.
  private let descriptor: Int32

  /// Maps `byteCount` bytes, which must be positive, of an open file.
  init(descriptor: Int32, byteCount: Int, file: String) throws(WeightsError) {
    guard let start = mmap(nil, byteCount, PROT_READ, MAP_PRIVATE, descriptor, 0), start != MAP_FAILED else {
      throw .cannotRead(file: file, reason: "mapping \(byteCount) bytes: \(systemError())")
    }
    bytes = UnsafeRawBufferPointer(start: start, count: byteCount)
    self.descriptor = fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
  }

  deinit {
    munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress!), bytes.count)
    if descriptor >= 0 { close(descriptor) }
  }

  /// Calls `body` with the bytes in `range`, which must lie in the file.
  func withBytes<Result, Failure: Error>(
    _ range: Range<Int>, _ body: (RawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    defer { withExtendedLifetime(self) {} }
    return try body(slice(range).bytes)
  }

  /// The bytes in `range` as a tensor: a view that keeps the mapping alive, or a copy if they are not aligned to the
  /// type's width.
  func tensor(_ range: Range<Int>, shape: Shape, dtype: DType) -> Tensor {
    let bytes = slice(range)
    if let base = bytes.baseAddress, Int(bitPattern: base) % dtype.byteWidth == 0 {
      return Tensor(shape: shape, dtype: dtype, storage: TensorStorage(borrowing: bytes, owner: self), byteOffset: 0)
    }
    return withBytes(range) { Tensor(copying: $0, shape: shape, dtype: dtype) }
  }

  private func slice(_ range: Range<Int>) -> UnsafeRawBufferPointer {
    precondition(range.lowerBound >= 0 && range.upperBound <= bytes.count, "bytes \(range) of a file of \(bytes.count)")
    return UnsafeRawBufferPointer(rebasing: bytes[range])
  }

  /// Takes the pages that hold `range` out of this process's memory. They stay readable: the next access brings them
  /// back from the page cache or the file.
  func releasePages(_ range: Range<Int>) { advise(MADV_DONTNEED, range) }

  /// Takes the pages that hold `range` out of this process's memory and, unless another process has them mapped, out of
  /// the page cache: the next access reads the file.
  func evictPages(_ range: Range<Int>) {
    releasePages(range)
    #if os(Linux)
      if !range.isEmpty { posix_fadvise(descriptor, off_t(range.lowerBound), off_t(range.count), POSIX_FADV_DONTNEED) }
    #endif
  }

  /// Reads the pages that hold `range` and maps them; returns when they are there.
  func populatePages(_ range: Range<Int>) {
    #if os(Linux)
      // MADV_POPULATE_READ, since Linux 5.14; an older kernel refuses it, and is asked to begin reading instead.
      if advise(22, range) == 0 { return }
    #endif
    advise(MADV_WILLNEED, range)
  }

  @discardableResult private func advise(_ advice: Int32, _ range: Range<Int>) -> Int32 {
    guard !range.isEmpty, let base = bytes.baseAddress else { return 0 }
    let page = Int(sysconf(Int32(_SC_PAGESIZE))), start = range.lowerBound / page * page
    return madvise(UnsafeMutableRawPointer(mutating: base + start), range.upperBound - start, advice)
  }
}

/// The text of the calling thread's `errno`.
func systemError() -> String { String(cString: strerror(errno)) }

/// Whether a directory has an entry at `path`, be it a symbolic link whose target is gone.
package func isPresent(_ path: String) -> Bool {
  var status = stat()
  return lstat(path, &status) == 0
}

/// The target of a symbolic link at `path` that leads to nothing; nil where there is no such link.
package func danglingTarget(_ path: String) -> String? {
  var status = stat()
  guard stat(path, &status) != 0, errno == ENOENT else { return nil }
  var target = [UInt8](repeating: 0, count: Int(PATH_MAX))
  let count = target.withUnsafeMutableBytes {
    readlink(path, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
  }
  return count < 0 ? nil : String(decoding: target.prefix(count), as: UTF8.self)
}

/// Why `path` could not be opened; to be called at once, while `errno` says it.
private func openingError(_ path: String) -> String {
  let reason = systemError()
  guard let target = danglingTarget(path) else { return reason }
  return
    "it is a symbolic link to \(target), which does not exist; download it again, or copy or mount the blobs that the "
    + "links of a Hugging Face cache lead to"
}

/// Reads a small file of text (configuration, index, vocabulary) whole, refusing more than `maxBytes` and what is no
/// text.
///
/// - Parameter expected: what the file should be, for errors.
package func readSmallFile(
  _ path: String, maxBytes: Int, expected: String = "a JSON file"
) throws(WeightsError) -> [UInt8] {
  let file = try OpenFile(path)
  guard file.byteCount <= maxBytes else {
    throw .cannotRead(file: path, reason: "\(file.byteCount) bytes, the limit is \(maxBytes)")
  }
  let bytes = try file.read(offset: 0, count: file.byteCount)
  if let kind = FileKind(beginning: bytes, isTextExpected: true) {
    throw .foreignFile(file: path, expected: expected, kind: kind)
  }
  return bytes
}

/// An open regular file; closed at the end of its scope.
struct OpenFile: ~Copyable {
  let path: String
  let descriptor: Int32
  /// Size when it was opened.
  let byteCount: Int
  /// When it was last written, in nanoseconds since 1970.
  let modificationTimeNs: Int

  init(_ path: String) throws(WeightsError) {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { throw .cannotRead(file: path, reason: openingError(path)) }
    var status = stat()
    let result = fstat(descriptor, &status)
    guard result == 0, status.st_mode & S_IFMT == S_IFREG else {
      let reason = result == 0 ? "not a regular file" : systemError()
      close(descriptor)
      throw .cannotRead(file: path, reason: reason)
    }
    self.path = path
    self.descriptor = descriptor
    self.byteCount = Int(status.st_size)
    #if os(Linux)
      let modified = status.st_mtim
    #else
      let modified = status.st_mtimespec
    #endif
    modificationTimeNs = Int(modified.tv_sec) * 1_000_000_000 + Int(modified.tv_nsec)
  }

  deinit { close(descriptor) }

  /// Turns read-ahead off for this descriptor.
  func adviseRandomAccess() {
    #if os(Linux)
      posix_fadvise(descriptor, 0, 0, POSIX_FADV_RANDOM)
    #endif
  }

  /// Reads exactly `count` bytes at `offset`.
  func read(offset: Int, count: Int) throws(WeightsError) -> [UInt8] {
    var buffer = [UInt8](repeating: 0, count: count)
    var done = 0
    while done < count {
      let got = buffer.withUnsafeMutableBytes {
        pread(descriptor, $0.baseAddress! + done, count - done, off_t(offset + done))
      }
      if got < 0, errno == EINTR { continue }
      guard got >= 0 else { throw .cannotRead(file: path, reason: systemError()) }
      guard got > 0 else {
        throw .truncated(file: path, expectedBytes: UInt64(offset + count), foundBytes: UInt64(offset + done))
      }
      done += got
    }
    return buffer
  }
}
