import Foundation

#if canImport(Glibc)
  import Glibc
#endif

/// A directory that keeps packed components, so that they are packed once and all processes of a machine share the
/// pages.
///
/// An entry is a directory with the packed files and a `manifest.json` that says what they were made from; it appears
/// by a rename, and one process at a time makes it while others wait. An entry made from something else, by another
/// version, or whose files do not match the manifest is made again.
public struct WeightCache: Sendable {
  /// Where the entries are.
  public let directory: URL
  /// Whether opening an entry reads all of it and compares checksums; otherwise only headers and sizes are checked.
  public let verifiesContents: Bool

  /// What an entry is made from. Equal keys promise equal files.
  public struct Key: Sendable, Equatable, Codable {
    /// `transformer`, `text_encoder`.
    public let component: String
    /// The mode.
    public let precision: String
    /// The original's directory.
    public let source: String
    /// Tells the original's contents from any other's; SHA-256 in hexadecimal.
    public let fingerprint: String
    /// Versions of everything that decides the bytes.
    public let rules: String

    /// See the properties.
    public init(component: String, precision: String, source: String, fingerprint: String, rules: String) {
      self.component = component
      self.precision = precision
      self.source = source
      self.fingerprint = fingerprint
      self.rules = rules
    }

    /// The entry's name.
    var entry: String { "\(component)-\(precision)-\(fingerprint.prefix(16))" }
  }

  /// A cache in `directory`, which is made when it is needed.
  public init(_ directory: URL, verifiesContents: Bool = false) {
    self.directory = directory
    self.verifiesContents = verifiesContents
  }

  static let baseName = "packed"

  private struct Manifest: Codable, Equatable {
    struct File: Codable, Equatable {
      let name: String
      let fileByteCount: Int
      let headerChecksum: UInt32
      let dataChecksum: UInt32
    }
    let key: Key
    let files: [File]
  }

  /// The entry for `key`, made by `build` if there is none that fits.
  ///
  /// - Parameters:
  ///   - tensorsMax: most layers that `build` writes.
  ///   - byteCount: about the bytes that it writes.
  ///   - report: called with a description of what is wrong with an existing entry.
  /// - Throws: ``WeightsError`` when the directory or the disk refuses, or what `build` throws; nothing incomplete is
  ///   left behind.
  public func component(
    _ key: Key, tensorsMax: Int, byteCount: Int, report: (String) -> Void, build: (ShardedWriter) throws -> Void
  ) throws -> ComponentWeights {
    do { try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true) } catch {
      throw WeightsError.cannotWrite(file: directory.path, reason: error.localizedDescription)
    }
    let lock = try FileLock(directory.appending(path: ".\(key.entry).lock"))
    defer { withExtendedLifetime(lock) {} }
    let entry = directory.appending(path: key.entry)
    if FileManager.default.fileExists(atPath: entry.path) {
      do { return try open(entry, key) } catch { report("\(error); it is made again") }
    }
    try requireSpace(byteCount)
    try make(key, at: entry, tensorsMax: tensorsMax, build)
    removeStale(key)
    return try open(entry, key)
  }

  private func open(_ entry: URL, _ key: Key) throws(WeightsError) -> ComponentWeights {
    let path = entry.appending(path: "manifest.json").path
    let manifest: Manifest
    do { manifest = try JSONDecoder().decode(Manifest.self, from: Data(readSmallFile(path, maxBytes: 1 << 20))) } catch
    {
      throw error as? WeightsError ?? .cannotRead(file: path, reason: "is not a manifest of packed weights")
    }
    guard manifest.key == key else {
      throw .staleCache(file: path, reason: "was made from another version of the checkpoint or program")
    }
    let weights = try ComponentWeights(directory: entry, baseName: Self.baseName)
    guard weights.files.count == manifest.files.count else {
      throw .staleCache(file: path, reason: "lists other files than there are")
    }
    for (file, expected) in zip(weights.files, manifest.files) {
      guard file.fileByteCount == expected.fileByteCount, file.headerChecksum == expected.headerChecksum else {
        throw .staleCache(file: file.path, reason: "is not the file that was written")
      }
      guard !verifiesContents || file.dataChecksum() == expected.dataChecksum else {
        throw .staleCache(file: file.path, reason: "has damaged contents")
      }
    }
    return weights
  }

  private func make(_ key: Key, at entry: URL, tensorsMax: Int, _ build: (ShardedWriter) throws -> Void) throws {
    let partial = directory.appending(path: ".\(key.entry).partial")
    let files = FileManager.default
    // Left by a process that was killed; the lock is ours.
    try? files.removeItem(at: partial)
    try? files.removeItem(at: entry)
    do {
      try files.createDirectory(at: partial, withIntermediateDirectories: false)
      let writer = ShardedWriter(
        partial, baseName: Self.baseName, packedFor: .init(rawValue: key.precision), tensorsMax: tensorsMax)
      try build(writer)
      let written = try writer.finish().map {
        Manifest.File(
          name: $0.name, fileByteCount: $0.summary.fileByteCount, headerChecksum: $0.summary.headerChecksum,
          dataChecksum: $0.summary.dataChecksum)
      }
      try writeJSON(Manifest(key: key, files: written), to: partial.appending(path: "manifest.json"))
      guard rename(partial.path, entry.path) == 0 else {
        throw WeightsError.cannotWrite(file: entry.path, reason: systemError())
      }
    } catch {
      try? files.removeItem(at: partial)
      throw error
    }
  }

  /// Removes what was made from other contents of the same directory. Processes that have it mapped keep their pages.
  private func removeStale(_ key: Key) {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? []
    for name in names where name.hasPrefix("\(key.component)-\(key.precision)-") && name != key.entry {
      let other = directory.appending(path: name)
      guard let data = try? Data(readSmallFile(other.appending(path: "manifest.json").path, maxBytes: 1 << 20)),
        let manifest = try? JSONDecoder().decode(Manifest.self, from: data), manifest.key.source == key.source
      else { continue }
      try? FileManager.default.removeItem(at: other)
    }
  }

  private func requireSpace(_ byteCount: Int) throws(WeightsError) {
    let free = freeBytes(directory)
    guard free.map({ $0 > byteCount + byteCount / 50 }) ?? true else {
      throw .cannotWrite(
        file: directory.path,
        reason: "about \(byteCount / 1_000_000) MB are needed, \((free ?? 0) / 1_000_000) MB are free")
    }
  }
}

/// Bytes that may still be written to the file system of `directory`; nil if the system does not say.
package func freeBytes(_ directory: URL) -> Int? {
  var status = statvfs()
  guard statvfs(directory.path, &status) == 0 else { return nil }
  return Int(clamping: UInt64(status.f_bavail) &* UInt64(status.f_frsize))
}

/// Holds a lock on a file until it is dropped; other processes wait for it.
private final class FileLock {
  private let descriptor: Int32

  init(_ file: URL) throws(WeightsError) {
    descriptor = open(file.path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw .cannotWrite(file: file.path, reason: systemError()) }
    while flock(descriptor, LOCK_EX) != 0 {
      guard errno == EINTR else {
        let reason = systemError()
        close(descriptor)
        throw .cannotWrite(file: file.path, reason: "locking: \(reason)")
      }
    }
  }

  deinit { close(descriptor) }
}
