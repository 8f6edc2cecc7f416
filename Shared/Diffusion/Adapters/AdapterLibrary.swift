import ClusterCore
import Foundation
import Synchronization
import Weights

/// The adapters of a directory: `NAME.safetensors`, or a directory `NAME` that PEFT or diffusers wrote. What is added,
/// replaced or removed is noticed while it is in use.
///
/// Symbolic links are followed; directories within directories, hidden files and names that no request can have are
/// left out. Files are known by the digest of their contents, and are opened again when they are asked for.
public final class AdapterLibrary: Sendable {
  /// A file of the directory.
  private struct File: Equatable {
    let url: URL
    /// Of the file, and of the configuration beside it.
    let identity: [FileIdentity]
    /// nil: it cannot be used, which was noted.
    var digest: String?
  }

  private struct State {
    var files: [String: File] = [:]
    var loaded: Set<String> = []
    var served = ServedAdapters.none
    /// What was noted, so that it is not again.
    var notes: Set<String> = []
  }

  /// Where the adapters are.
  public let directory: URL
  private let check: AdapterCheck
  private let note: @Sendable (String) -> Void
  private let time: any TimeSource
  private let state = Mutex(State())
  /// Held while the directory is looked at.
  private let scanning = Mutex<Void>(())

  /// Bytes of files that are read before a worker serves; the digests of more are found while it does.
  private static let eagerBytes = 2 << 30
  /// A file that was written so recently may not be complete yet.
  private static let settlingMs: Int64 = 5000
  /// How often the directory is looked at.
  private static let interval = 2.0
  /// Most notes that are remembered.
  private static let maxNotes = 10_000

  /// The adapters in `directory`, looked at every few seconds from now on.
  ///
  /// - Parameters:
  ///   - isWatched: whether it is looked at again by itself, and not only by ``rescan()``.
  ///   - check: throws when an adapter is not for the network.
  ///   - note: gets a sentence about a file that cannot be used.
  /// - Throws: when there is no such directory.
  public init(
    _ directory: URL, isWatched: Bool = true, time: any TimeSource = SystemTime(),
    check: @escaping AdapterCheck,
    note: @escaping @Sendable (String) -> Void = { _ in }
  ) throws(WeightsError) {
    guard FileIdentity(directory.path)?.isDirectory == true else {
      throw .cannotRead(file: directory.path, reason: "the directory of adapters does not exist")
    }
    self.directory = directory
    self.time = time
    self.check = check
    self.note = note
    scan(bytesMax: Self.eagerBytes)
    guard isWatched else { return }
    let thread = Thread { [weak self] in
      // Without holding it in between: it ends with its last user.
      while self?.scan() != nil { Thread.sleep(forTimeInterval: Self.interval) }
    }
    thread.name = "adapters"
    thread.start()
  }

  /// What requests may name.
  public var served: ServedAdapters { state.withLock { $0.served } }

  /// Opens an adapter. The directory is looked at again when it is not known.
  ///
  /// - Throws: ABORTED when there is no such adapter here any more: another worker may have it.
  public func adapter(named name: String, digest: String) throws(Status) -> Adapter {
    for mayRescan in [true, false] {
      if let url = url(named: name, digest: digest), let adapter = try? Adapter(url), adapter.digest == digest {
        return adapter
      }
      // What the names stand for has changed since the directory was looked at.
      if mayRescan { rescan() }
    }
    throw Status(.aborted, "the adapter \"\(name)\" with the SHA-256 \(digest) is not here any more")
  }

  private func url(named name: String, digest: String) -> URL? {
    state.withLock { state in
      if let file = state.files[name], file.digest == digest { return file.url }
      return state.files.values.first { $0.digest == digest }?.url
    }
  }

  /// Says which adapters are in memory, by their digests.
  func setLoaded(_ digests: Set<String>) {
    state.withLock { state in
      guard state.loaded != digests else { return }
      state.loaded = digests
      Self.publish(&state)
    }
  }

  // MARK: - Looking at the directory

  /// Looks at the directory now.
  public func rescan() { scan() }

  private func scan(bytesMax: Int = .max) {
    scanning.withLock { _ in
      let found = candidates()
      state.withLock { state in
        state.files = state.files.filter { found[$0.key] != nil }
        Self.publish(&state)
      }
      var bytesLeft = bytesMax
      for (name, file) in found.sorted(by: { $0.key < $1.key }) {
        let known = state.withLock { $0.files[name] }
        if let known, known.url == file.url, known.identity == file.identity { continue }
        bytesLeft -= file.identity[0].byteCount
        guard bytesLeft >= 0 else { continue }
        let digest = digest(of: file, name)
        // A file that is being written is looked at again.
        guard digest != nil || isSettled(file) else { continue }
        state.withLock { state in
          state.files[name] = file
          state.files[name]?.digest = digest
          Self.publish(&state)
        }
      }
    }
  }

  /// The files that are there, by the names of their adapters; their digests are not known yet.
  private func candidates() -> [String: File] {
    var found: [String: File] = [:]
    let entries = (try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? []
    for entry in entries.sorted() where !entry.hasPrefix(".") {
      let url = directory.appending(path: entry), ending = ".safetensors"
      guard let identity = FileIdentity(url.path), identity.isDirectory || entry.hasSuffix(ending) else { continue }
      let name = identity.isDirectory ? entry : String(entry.dropLast(ending.count))
      guard let file = identity.isDirectory ? Self.file(inside: url) : File(url: url, identity: [identity]) else {
        continue
      }
      guard AdapterName.isValid(name) else {
        noteOnce("\(url.path) is left out: the name of an adapter must be \(AdapterName.rule)")
        continue
      }
      guard found[name] == nil else {
        noteOnce("\(url.path) is left out: there is another adapter called \(name)")
        continue
      }
      guard found.count < ServedAdapter.maxCount else {
        noteOnce("\(directory.path) has more than \(ServedAdapter.maxCount) adapters: the others are left out")
        break
      }
      found[name] = file
    }
    return found
  }

  /// The adapter in a directory of its own; nil: there is none.
  private static func file(inside url: URL) -> File? {
    for name in Adapter.standardNames {
      guard let identity = FileIdentity(url.appending(path: name).path) else { continue }
      let configuration = FileIdentity(url.appending(path: AdapterConfiguration.fileName).path)
      return File(url: url, identity: [identity] + (configuration.map { [$0] } ?? []))
    }
    return nil
  }

  private func digest(of file: File, _ name: String) -> String? {
    do {
      let adapter = try Adapter(file.url)
      try check(adapter)
      if adapter.textEncoderTensorCount > 0 {
        noteOnce("\(file.url.path): \(adapter.textEncoderTensorCount) tensors are for a text encoder and not used")
      }
      return adapter.digest
    } catch {
      if isSettled(file) { noteOnce("the adapter \(name) cannot be used: \(error)") }
      return nil
    }
  }

  private func isSettled(_ file: File) -> Bool {
    let newest = file.identity.map(\.modificationTimeNs).max() ?? 0
    return time.unixMs - Int64(newest / 1_000_000) >= Self.settlingMs
  }

  private func noteOnce(_ text: String) {
    let isNew = state.withLock { $0.notes.count < Self.maxNotes && $0.notes.insert(text).inserted }
    if isNew { note(text) }
  }

  private static func publish(_ state: inout State) {
    let list = state.files.compactMap { name, file in
      file.digest.map { ServedAdapter(name: name, digest: $0, isLoaded: state.loaded.contains($0)) }
    }.sorted { $0.name < $1.name }
    guard list != state.served.adapters else { return }
    state.served = ServedAdapters(list, revision: state.served.revision + 1)
  }
}
