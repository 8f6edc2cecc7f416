import Foundation
import Weights

/// The files of a checkpoint besides its weights.
enum CheckpointFiles {
  /// Writes `files`, by their paths, into `directory`.
  static func write(_ files: [String: Data], to directory: URL) throws {
    for (path, data) in files {
      let file = directory.appending(path: path)
      try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
      try data.write(to: file)
    }
  }

  private static let maxFileBytes = 64 << 20
  private static let folders = ["scheduler", "tokenizer", "processor", "text_encoder", "transformer", "vae"]

  /// Every small file of a checkpoint that is not about the place of tensors, by its path. Where a `model.json` names
  /// another directory for them, those beside it count before those there.
  static func copied(from source: URL) throws -> [String: Data] {
    let base = try ModelSources(source).base
    let own = try copied(from: source, folders: base == source ? [""] + folders : [""])
    return base == source ? own : try copied(from: base, folders: [""] + folders).merging(own) { _, own in own }
  }

  private static func copied(from source: URL, folders: [String]) throws -> [String: Data] {
    var files: [String: Data] = [:]
    for folder in folders {
      let directory = folder.isEmpty ? source : source.appending(path: folder)
      for name in (try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? []
      where !name.hasPrefix(".") {
        let file = directory.appending(path: name)
        if let target = danglingTarget(file.path) {
          throw PipelineError.checkpoint("\(file.path) is a symbolic link to \(target), which does not exist")
        }
        let values = try file.resolvingSymlinksInPath().resourceValues(forKeys: [.isRegularFileKey, .fileSizeKey])
        let isWeights = [".safetensors", ".gguf"].contains { name.lowercased().hasSuffix($0) }
        guard values.isRegularFile == true, !isWeights, !name.contains(".safetensors.index."),
          !(folder.isEmpty && name == ModelSources.fileName)
        else { continue }
        guard values.fileSize ?? 0 <= maxFileBytes else {
          throw PipelineError.checkpoint(
            "\(file.path) has \(values.fileSize ?? 0) bytes; the limit for such files is \(maxFileBytes)")
        }
        files[folder.isEmpty ? name : "\(folder)/\(name)"] = try Data(contentsOf: file)
      }
    }
    return files
  }
}
