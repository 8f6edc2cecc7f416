import Diffusion
import Foundation
import GoldenSupport
import Weights

/// A copy of the tiny checkpoint, or of another, to be changed. Removed at the end of its scope.
struct CheckpointCopy: ~Copyable {
  let directory: TemporaryDirectory
  /// The checkpoint's directory.
  let url: URL

  init(of source: URL = Golden.tinyCheckpoint) throws {
    let directory = try TemporaryDirectory(), url = directory.url.appending(path: "checkpoint")
    try FileManager.default.copyItem(at: source, to: url)
    self.url = url
    self.directory = directory
  }

  func file(_ path: String) -> URL { url.appending(path: path) }

  func remove(_ path: String) throws { try FileManager.default.removeItem(at: file(path)) }

  func write(_ bytes: some Sequence<UInt8>, to path: String) throws { try Data(bytes).write(to: file(path)) }

  func write(_ text: String, to path: String) throws { try Data(text.utf8).write(to: file(path)) }

  func move(_ path: String, to other: String) throws {
    try FileManager.default.moveItem(at: file(path), to: file(other))
  }

  /// Replaces a file by a symbolic link.
  func link(_ path: String, to target: String) throws {
    if (try? FileManager.default.attributesOfItem(atPath: file(path).path)) != nil { try remove(path) }
    try FileManager.default.createSymbolicLink(atPath: file(path).path, withDestinationPath: target)
  }

  /// Changes the members of a JSON object.
  func edit(_ path: String, _ change: (inout [String: Any]) throws -> Void) throws {
    var members = try object(path)
    try change(&members)
    try JSONSerialization.data(withJSONObject: members, options: .sortedKeys).write(to: file(path))
  }

  func object(_ path: String) throws -> [String: Any] {
    try JSONSerialization.jsonObject(with: Data(contentsOf: file(path))) as? [String: Any] ?? [:]
  }

  /// Replaces a component's files by a single one with all tensors, changed.
  func merge(_ component: ModelComponent, _ change: (inout StoredFile) throws -> Void = { _ in }) throws {
    let names = try FileManager.default.contentsOfDirectory(atPath: file(component.rawValue).path)
      .filter { $0.contains(".safetensors") }.sorted()
    var merged = StoredFile(tensors: [])
    for name in names where name.hasSuffix(".safetensors") {
      merged.tensors += try StoredFile(file("\(component.rawValue)/\(name)")).tensors
    }
    for name in names { try remove("\(component.rawValue)/\(name)") }
    try change(&merged)
    try write(merged.bytes(), to: Self.single(component))
  }

  /// The path of a component's single file.
  static func single(_ component: ModelComponent) -> String {
    "\(component.rawValue)/\(component == .textEncoder ? "model" : "diffusion_pytorch_model").safetensors"
  }
}
