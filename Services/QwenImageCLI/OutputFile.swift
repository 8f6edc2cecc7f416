import Foundation
import ImageCodec

/// A file that a command writes: to whatever its path is, and found out before the work is done whether that is
/// possible.
///
/// Pipes and devices are written to. A symbolic link stays, and what it points to is written. An existing file keeps
/// its permissions; it is replaced in one step where that changes nothing else about it, and written in place where it
/// has several names or another owner. `-` is standard output.
struct OutputFile {
  /// As it was given.
  let path: String
  /// How messages name it.
  private let name: String
  private let formats: [ImageFileFormat]?

  private static let maxLinks = 40

  /// - Parameters:
  ///   - option: where the path comes from, for messages.
  ///   - formats: what the file may be, one of whose extensions the path must have if it has any; nil: any will do.
  init(_ path: String, option: String = "--output", formats: [ImageFileFormat]?) {
    self.path = path
    self.formats = formats
    name = "\(option) \(path)"
  }

  /// Whether the image goes to standard output, where nothing else may go then.
  var isStandardOutput: Bool {
    if case .descriptor(STDOUT_FILENO) = try? target() { return true }
    return false
  }

  /// Finds out as much as possible without writing anything.
  func check() throws(OutputError) {
    guard !path.isEmpty else { throw OutputError(name: name, reason: "the path is empty") }
    guard !path.hasSuffix("/") else { throw failure("that names a directory; name a file in it") }
    let suffix = URL(filePath: path).pathExtension
    if let formats, !suffix.isEmpty, !formats.flatMap(\.pathExtensions).contains(suffix.lowercased()) {
      throw failure(Self.reason(against: suffix, formats))
    }
    switch try target() {
    case .descriptor(let descriptor):
      let flags = fcntl(descriptor, F_GETFL)
      guard flags >= 0, flags & O_ACCMODE != O_RDONLY else { throw failure("it is not open for writing") }
      guard isatty(descriptor) == 0 else {
        throw failure("that is a terminal, which cannot show an image; name a file, or redirect it")
      }
    case .special(let path): guard access(path, W_OK) == 0 else { throw systemFailure() }
    case .file(let path, let status):
      if status != nil { guard access(path, W_OK) == 0 else { throw systemFailure() } }
      try checkDirectory(of: path, isWritable: status == nil)
    }
  }

  private static func reason(against suffix: String, _ formats: [ImageFileFormat]) -> String {
    guard formats.count == 1, ImageFileFormat(pathExtension: suffix) != nil else {
      return "images are written as PNG, WebP or JPEG; end the name with .png, .webp or .jpg, not .\(suffix)"
    }
    return "the image is \(formats[0]); end the name with .\(formats[0].pathExtensions[0]), not .\(suffix)"
  }

  /// The checks of ``check()`` for a file that is written in any order and gets its name at the end.
  func checkReplaceable() throws(OutputError) {
    try check()
    guard case .file = try target() else { throw failure("that must be a file, not a pipe or a device") }
  }

  /// Has `body` put a file where the links of the path lead to; one that was there passes its permissions on.
  func replace(by body: (URL) throws -> Void) throws {
    guard case .file(let path, let status) = try target() else { return try checkReplaceable() }
    try body(URL(filePath: path))
    if let status { chmod(path, status.st_mode & 0o7777) }
  }

  /// Writes all of `bytes`.
  func write(_ bytes: [UInt8]) throws(OutputError) {
    switch try target() {
    case .descriptor(let descriptor): try writeAll(bytes, to: descriptor, name: name)
    case .special(let path):
      try withDescriptor(open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY)) { descriptor throws(OutputError) in
        try writeAll(bytes, to: descriptor, name: name)
      }
    case .file(let path, let status):
      if try !replace(path, status, with: bytes) { try overwrite(path, with: bytes) }
    }
  }

  // MARK: - What the path is

  private enum Target {
    /// Open already: standard output, or one that the shell has opened for `>(…)`.
    case descriptor(Int32)
    /// A pipe, a device or a socket.
    case special(String)
    /// A regular file, or none yet. The path is no link, unless to nowhere that can be found.
    case file(String, stat?)
  }

  private func target() throws(OutputError) -> Target {
    if path == "-" { return .descriptor(STDOUT_FILENO) }
    var resolved = path
    for _ in 0..<Self.maxLinks {
      if let descriptor = Self.descriptor(named: resolved) { return .descriptor(descriptor) }
      var status = stat()
      guard lstat(resolved, &status) == 0 else {
        guard errno == ENOENT else { throw systemFailure() }
        return .file(resolved, nil)
      }
      switch status.st_mode & S_IFMT {
      case S_IFLNK: resolved = try linkTarget(of: resolved)
      case S_IFREG: return .file(resolved, status)
      case S_IFDIR: throw failure("that is a directory; name a file in it")
      default: return .special(resolved)
      }
    }
    throw failure(String(cString: strerror(ELOOP)))
  }

  /// The open file that a path stands for. Opened anew it would be written from its beginning, not where it stands.
  private static func descriptor(named path: String) -> Int32? {
    switch path {
    case "/dev/stdout": return STDOUT_FILENO
    case "/dev/stderr": return STDERR_FILENO
    default:
      let prefix = ["/dev/fd/", "/proc/self/fd/"].first { path.hasPrefix($0) }
      return prefix.flatMap { Int32(path.dropFirst($0.count)) }.flatMap { $0 >= 0 ? $0 : nil }
    }
  }

  private func linkTarget(of link: String) throws(OutputError) -> String {
    var bytes = [CChar](repeating: 0, count: Int(PATH_MAX))
    let count = readlink(link, &bytes, bytes.count)
    guard count > 0 else { throw systemFailure() }
    let target = String(decoding: bytes[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return target.hasPrefix("/") ? target : Self.directory(of: link) + "/" + target
  }

  private static func directory(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  private func checkDirectory(of path: String, isWritable: Bool) throws(OutputError) {
    let directory = Self.directory(of: path)
    var status = stat()
    guard stat(directory, &status) == 0 else {
      throw failure("the directory \(directory) cannot be used: \(String(cString: strerror(errno)))")
    }
    guard status.st_mode & S_IFMT == S_IFDIR else { throw failure("\(directory) is not a directory") }
    if isWritable {
      guard access(directory, W_OK | X_OK) == 0 else {
        throw failure("no file can be made in \(directory): \(String(cString: strerror(errno)))")
      }
    }
    var system = statvfs()
    // Some of the blocks are kept for root.
    guard statvfs(directory, &system) == 0, system.f_blocks > 0 else { return }
    guard (geteuid() == 0 ? system.f_bfree : system.f_bavail) == 0 else { return }
    throw failure(String(cString: strerror(ENOSPC)))
  }

  // MARK: - Writing

  /// Puts a new file in place of the one that is there, or of none. The new file is made beside it and gets its name
  /// when it is complete.
  ///
  /// - Returns: false, with nothing changed, if that would change more than the contents, or no file can be made there.
  private func replace(_ path: String, _ status: stat?, with bytes: [UInt8]) throws(OutputError) -> Bool {
    // Other names of the file would keep the old contents.
    if let status, status.st_nlink > 1 { return false }
    let unique = String(UInt64.random(in: 0...UInt64.max), radix: 36)
    let partial = Self.directory(of: path) + "/.qwen-image.\(unique).partial"
    let descriptor = open(partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o666)
    guard descriptor >= 0 else {
      if status != nil { return false }
      throw systemFailure()
    }
    var isComplete = false
    defer { if !isComplete { unlink(partial) } }
    if let status, !Self.adopt(status, descriptor) {
      close(descriptor)
      return false
    }
    try withDescriptor(descriptor) { descriptor throws(OutputError) in
      try writeAll(bytes, to: descriptor, name: name)
      guard fsync(descriptor) == 0 else { throw systemFailure() }
    }
    guard rename(partial, path) == 0 else { throw systemFailure() }
    isComplete = true
    return true
  }

  /// Gives a new file the owner and the permissions of another one; false: that is not allowed.
  private static func adopt(_ status: stat, _ descriptor: Int32) -> Bool {
    var own = stat()
    guard fstat(descriptor, &own) == 0 else { return false }
    if own.st_uid != status.st_uid || own.st_gid != status.st_gid {
      guard fchown(descriptor, status.st_uid, status.st_gid) == 0 else { return false }
    }
    return fchmod(descriptor, status.st_mode & 0o7777) == 0
  }

  private func overwrite(_ path: String, with bytes: [UInt8]) throws(OutputError) {
    try withDescriptor(open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW)) { descriptor throws(OutputError) in
      try writeAll(bytes, to: descriptor, name: name)
      guard ftruncate(descriptor, off_t(bytes.count)) == 0 else { throw systemFailure() }
    }
  }

  /// Calls `body` with an open file, which is closed afterwards; some systems say only then that a disk is full.
  private func withDescriptor(_ descriptor: Int32, _ body: (Int32) throws(OutputError) -> Void) throws(OutputError) {
    guard descriptor >= 0 else { throw systemFailure() }
    do throws(OutputError) {
      try body(descriptor)
    } catch {
      close(descriptor)
      throw error
    }
    guard close(descriptor) == 0 else { throw systemFailure() }
  }

  private func failure(_ reason: String) -> OutputError { OutputError(name: name, reason: reason) }

  /// What the system said last.
  private func systemFailure() -> OutputError { failure(String(cString: strerror(errno))) }
}
