import Foundation

/// A directory that a command writes. Writing takes minutes or hours: what would make it fail is found before.
enum OutputDirectory {
  /// Where a directory that appears when it is complete can be put, if `path` says where: it must not exist, or be
  /// empty.
  ///
  /// - Returns: the place that symbolic links lead to.
  static func forNewDirectory(_ path: String) throws(OutputError) -> URL {
    guard !path.isEmpty else { throw OutputError(name: "the directory to write", reason: "the path is empty") }
    func failure(_ reason: String) -> OutputError { OutputError(name: path, reason: reason) }
    func systemFailure() -> OutputError { failure(String(cString: strerror(errno))) }

    var link = stat(), status = stat()
    guard lstat(path, &link) == 0 else {
      guard errno == ENOENT else { throw systemFailure() }
      let url = URL(filePath: path).standardizedFileURL
      try requireWritable(nearestDirectory(above: url.path), for: path)
      return url
    }
    guard stat(path, &status) == 0 else { throw failure("it is a symbolic link that leads nowhere") }
    guard status.st_mode & S_IFMT == S_IFDIR else { throw failure("it exists and is not a directory") }
    guard let resolved = realpath(path, nil) else { throw systemFailure() }
    defer { free(resolved) }
    let url = URL(filePath: String(cString: resolved), directoryHint: .isDirectory).standardizedFileURL
    let contents: [String]
    do { contents = try FileManager.default.contentsOfDirectory(atPath: url.path) } catch {
      throw failure("it cannot be read")
    }
    guard contents.isEmpty else { throw failure("it exists and is not empty") }
    // The complete directory takes its place by a rename.
    var parent = stat()
    let above = url.deletingLastPathComponent().path
    guard stat(above, &parent) == 0 else { throw systemFailure() }
    guard parent.st_dev == status.st_dev, parent.st_ino != status.st_ino else {
      throw failure("another file system is mounted there; name a new directory in it")
    }
    try requireWritable(above, for: path)
    return url
  }

  /// Makes `path` and what is missing above it, for the owner only.
  static func make(_ path: String) throws(OutputError) {
    var status = stat()
    if stat(path, &status) == 0 {
      guard status.st_mode & S_IFMT == S_IFDIR else {
        throw OutputError(name: path, reason: "it exists and is not a directory")
      }
      return
    }
    let above = URL(filePath: path).standardizedFileURL.deletingLastPathComponent().path
    if above != path { try make(above) }
    guard mkdir(path, 0o700) == 0 || errno == EEXIST else {
      throw OutputError(name: path, reason: "the directory cannot be made: \(String(cString: strerror(errno)))")
    }
  }

  /// The nearest directory above `path` that exists.
  private static func nearestDirectory(above path: String) -> String {
    var url = URL(filePath: path).deletingLastPathComponent()
    while url.path != "/", access(url.path, F_OK) != 0 { url = url.deletingLastPathComponent() }
    return url.path
  }

  private static func requireWritable(_ directory: String, for path: String) throws(OutputError) {
    var status = stat()
    guard stat(directory, &status) == 0 else { throw OutputError(name: path, reason: String(cString: strerror(errno))) }
    guard status.st_mode & S_IFMT == S_IFDIR else {
      throw OutputError(name: path, reason: "\(directory) is not a directory")
    }
    guard access(directory, W_OK | X_OK) == 0 else {
      throw OutputError(name: path, reason: "nothing can be made in \(directory): \(String(cString: strerror(errno)))")
    }
  }
}
