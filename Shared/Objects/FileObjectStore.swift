import Foundation

/// Objects as files: one for each, in 256 folders by the first two digits of their digests. A file is written under
/// another name, synced, renamed, and its folder synced, so that what has an object's name is whole.
///
/// Several processes may use one directory at a time.
public final class FileObjectStore: ObjectStore {
  private let directory: String
  /// As ``ObjectStore`` says.
  public var location: String { directory }
  /// As ``ObjectStore`` says.
  public var isLocal: Bool { true }

  /// A store in `directory`, which is made with its folders if it is not there.
  ///
  /// - Throws: `refused`, `full` or `unavailable`, naming the directory.
  public init(directory: String) throws(ObjectError) {
    self.directory = directory
    do {
      try FileManager.default.createDirectory(
        atPath: directory, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    } catch {
      throw .refused("the directory \(directory) cannot be made: \(error.localizedDescription)")
    }
    for folder in Self.folders where mkdir("\(directory)/\(folder)", 0o700) != 0 && errno != EEXIST {
      throw Self.error("make", "\(directory)/\(folder)")
    }
    try Self.sync(directory)
  }

  private static let folders = (0..<256).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }

  /// As ``ObjectStore`` says.
  public func check() throws(ObjectError) { try checkByTrying() }

  /// As ``ObjectStore`` says.
  public func put(_ bytes: Data, as key: ObjectKey) throws(ObjectError) {
    let path = "\(directory)/\(key.path)"
    let draft = "\(directory)/\(key.name.prefix(2))/\(Self.draftPrefix)\(key.name)"
    let file = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0o600)
    guard file >= 0 else { throw Self.error("make", draft) }
    do throws(ObjectError) {
      defer { Foundation.close(file) }
      try Self.write(bytes, to: file, draft)
      guard fsync(file) == 0 else { throw Self.error("sync", draft) }
    } catch {
      unlink(draft)
      throw error
    }
    guard rename(draft, path) == 0 else {
      let error = Self.error("rename", draft)
      unlink(draft)
      throw error
    }
    try Self.sync("\(directory)/\(key.name.prefix(2))")
  }

  /// As ``ObjectStore`` says.
  public func get(_ key: ObjectKey, byteCount: Int) throws(ObjectError) -> Data {
    let path = "\(directory)/\(key.path)"
    let file = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
    guard file >= 0 else { throw errno == ENOENT ? .missing("there is no file \(path)") : Self.error("open", path) }
    defer { Foundation.close(file) }
    var status = stat()
    guard fstat(file, &status) == 0 else { throw Self.error("look at", path) }
    guard status.st_size == byteCount else {
      throw .corrupt("\(path) has \(status.st_size) bytes, not \(byteCount)")
    }
    var bytes = Data(count: byteCount)
    var offset = 0
    while offset < byteCount {
      let count = bytes.withUnsafeMutableBytes { read(file, $0.baseAddress! + offset, byteCount - offset) }
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw Self.error("read", path) }
      guard count > 0 else { throw .corrupt("\(path) ends after \(offset) of \(byteCount) bytes") }
      offset += count
    }
    guard key.isKey(of: bytes) else {
      throw .corrupt("the \(byteCount) bytes of \(path) are not those that were written")
    }
    return bytes
  }

  /// As ``ObjectStore`` says.
  public func contains(_ key: ObjectKey) throws(ObjectError) -> Bool {
    let path = "\(directory)/\(key.path)"
    if access(path, F_OK) == 0 { return true }
    guard errno == ENOENT else { throw Self.error("look for", path) }
    return false
  }

  /// As ``ObjectStore`` says. Not synced: a file that comes back is deleted again.
  public func delete(_ keys: [ObjectKey]) throws(ObjectError) {
    for key in keys {
      let path = "\(directory)/\(key.path)"
      guard unlink(path) == 0 || errno == ENOENT else { throw Self.error("delete", path) }
    }
  }

  /// As ``ObjectStore`` says. Deletes files that an ended process has left half-written a day ago or earlier.
  public func list(after path: String?, limit: Int) throws(ObjectError) -> ObjectPage {
    var page = ObjectPage(entries: [])
    let now = Int64(Date().timeIntervalSince1970)
    for folder in Self.folders where path.map({ folder >= $0.prefix(2) }) ?? true {
      for name in try Self.names("\(directory)/\(folder)").sorted() {
        let whole = "\(directory)/\(folder)/\(name)"
        var status = stat()
        // Another process may have deleted it.
        guard lstat(whole, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { continue }
        let age = now - Int64(status.st_mtim.tv_sec)
        if name.hasPrefix(Self.draftPrefix), age > 24 * 3600 { unlink(whole) }
        guard let key = ObjectKey(path: "\(folder)/\(name)"), path.map({ key.path > $0 }) ?? true else { continue }
        if page.entries.count == min(limit, 1000) {
          page.next = page.entries.last?.key.path
          return page
        }
        page.entries.append(.init(key: key, byteCount: Int(status.st_size), ageSeconds: age))
      }
    }
    return page
  }

  /// As ``ObjectStore`` says.
  public func freeBytes() -> Int64? {
    var status = statvfs()
    guard statvfs(directory, &status) == 0 else { return nil }
    return Int64(clamping: UInt64(status.f_bavail) * UInt64(status.f_frsize))
  }

  /// As ``ObjectStore`` says.
  public func close() {}

  // MARK: Files

  private static let draftPrefix = ".draft-"

  private static func write(_ bytes: Data, to file: CInt, _ path: String) throws(ObjectError) {
    let problem = bytes.withUnsafeBytes { (all: UnsafeRawBufferPointer) -> ObjectError? in
      var offset = 0
      while offset < all.count {
        let count = Foundation.write(file, all.baseAddress! + offset, all.count - offset)
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { return error("write", path) }
        offset += count
      }
      return nil
    }
    if let problem { throw problem }
  }

  private static func sync(_ directory: String) throws(ObjectError) {
    let file = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard file >= 0 else { throw error("open", directory) }
    defer { Foundation.close(file) }
    guard fsync(file) == 0 else { throw error("sync", directory) }
  }

  private static func names(_ directory: String) throws(ObjectError) -> [String] {
    do {
      return try FileManager.default.contentsOfDirectory(atPath: directory)
    } catch {
      throw .unavailable("the directory \(directory) cannot be read: \(error.localizedDescription)")
    }
  }

  private static func error(_ operation: String, _ path: String) -> ObjectError {
    let code = errno
    let text = "failed to \(operation) \(path): \(String(cString: strerror(code)))"
    return switch code {
    case ENOSPC, EDQUOT: .full(text)
    case EACCES, EPERM, EROFS: .refused(text)
    default: .unavailable(text)
    }
  }
}
