import Foundation
import Weights

/// Finds out why a path is no checkpoint directory, and where the checkpoint might be instead.
struct ModelLocation {
  private let url: URL
  private static let index = "model_index.json"
  private static let advice =
    "a checkpoint in the diffusers layout is needed, as `hf download Qwen/Qwen-Image --local-dir DIRECTORY` makes it"
  /// Folders of more entries are not searched.
  private static let entriesMax = 1000

  /// Requires `model_index.json` in `url`.
  ///
  /// - Throws: ``ConfigurationError/notACheckpoint(path:reason:)`` with what is there instead.
  static func check(_ url: URL) throws(ConfigurationError) {
    guard !isPresent(url.appending(path: index).path) else { return }
    throw .notACheckpoint(path: url.path, reason: ModelLocation(url: url).reason)
  }

  private var reason: String {
    if let target = danglingTarget(url.path) { return "it is a symbolic link to \(target), which does not exist" }
    guard isPresent(url.path) else {
      let isRepository = url.relativePath.split(separator: "/").count == 2 && !url.relativePath.hasPrefix("/")
      return isRepository
        ? "it does not exist; if it is the name of a Hugging Face repository, "
          + "`hf download \(url.relativePath) --local-dir DIRECTORY` fetches it"
        : "it does not exist"
    }
    guard isDirectory(url) else { return fileReason }
    return movedReason ?? "it has no \(Self.index)\(contents); \(Self.advice)"
  }

  /// A file in place of a directory.
  private var fileReason: String {
    let beginning = (try? FileHandle(forReadingFrom: url).read(upToCount: FileKind.prefixByteCount)) ?? Data()
    if let kind = FileKind(beginning: beginning, isTextExpected: true) { return "it is \(kind)" }
    if url.lastPathComponent == Self.index { return "it is a file; name its directory" }
    let what = url.pathExtension == "safetensors" ? "a single safetensors file" : "a file"
    return "it is \(what), not a directory; \(Self.advice)"
  }

  /// The checkpoint is elsewhere, at a place that the path leads to.
  private var movedReason: String? {
    let parent = url.deletingLastPathComponent()
    if isPresent(parent.appending(path: Self.index).path) {
      return "it is one component of the checkpoint \(parent.path); name that"
    }
    if isDirectory(url.appending(path: "snapshots")) {
      return "it is a repository in a Hugging Face cache; "
        + (snapshot.map { "name its snapshot \($0.path)" } ?? "no snapshot of it is complete, run `hf download` again")
    }
    let inside = entries.map { url.appending(path: $0) }.filter { isPresent($0.appending(path: Self.index).path) }
    if let first = inside.first { return "it has no \(Self.index); its subdirectory \(first.path) has one, name that" }
    let cached = entries.filter { $0.hasPrefix("models--") }.map { ModelLocation(url: url.appending(path: $0)) }
    if let first = cached.compactMap(\.snapshot).first {
      return "it is a Hugging Face cache; name the snapshot of a model, such as \(first.path)"
    }
    if isPresent(url.appending(path: "modular_model_index.json").path) {
      return "it is a modular pipeline, which names components in other repositories; \(Self.advice)"
    }
    return nil
  }

  /// The snapshot of a repository in a Hugging Face cache: the one that `main` stands for, else the first with a
  /// checkpoint.
  private var snapshot: URL? {
    let snapshots = url.appending(path: "snapshots")
    guard isDirectory(snapshots) else { return nil }
    let names = (try? FileManager.default.contentsOfDirectory(atPath: snapshots.path).sorted()) ?? []
    let complete = names.prefix(Self.entriesMax).filter {
      isPresent(snapshots.appending(path: "\($0)/\(Self.index)").path)
    }
    let main = (try? readSmallFile(url.appending(path: "refs/main").path, maxBytes: 256, expected: "a revision"))
      .map { String(decoding: $0, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines) }
    return (complete.first { $0 == main } ?? complete.first).map { snapshots.appending(path: $0) }
  }

  /// What a directory has instead, for the message.
  private var contents: String {
    if entries.isEmpty { return ", it is empty" }
    let weights = entries.filter { $0.hasSuffix(".safetensors") || $0.hasSuffix(".gguf") || $0.hasSuffix(".ckpt") }
    return weights.isEmpty ? "" : ", but \(printable(weights[0], max: 200))"
  }

  private var entries: [String] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: url.path)) ?? []
    return names.count > Self.entriesMax ? [] : names.filter { !$0.hasPrefix(".") }.sorted()
  }

  private func isDirectory(_ url: URL) -> Bool {
    var isDirectory: ObjCBool = false
    return FileManager.default.fileExists(atPath: url.path, isDirectory: &isDirectory) && isDirectory.boolValue
  }
}
