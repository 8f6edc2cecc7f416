import Diffusion
import Foundation
import ModelRegistry
import Weights

/// What `qwen-image inspect` says of a checkpoint, or of a file of weights.
struct InspectedModel: Encodable {
  struct File: Encodable {
    let path: String
    let format: String
    var version: Int?
    var architecture: String?
    let bytes: Int
  }

  /// The tensors of one stored type.
  struct Kind: Encodable {
    var tensors = 0
    var values = 0
    var bytes = 0
  }

  struct Part: Encodable {
    let files: [File]
    /// By the names of the stored types.
    let types: [String: Kind]
    /// The mode that `auto` chooses.
    var mode: String?
  }

  var id: String?
  var family: String?
  var pipelineClass: String?
  let components: [String: Part]

  /// What is at `path`; nil: it is neither a directory nor a file of weights.
  init?(_ path: String) throws {
    let url = URL(filePath: path), name = url.lastPathComponent.lowercased()
    var isDirectory: ObjCBool = false
    let exists = FileManager.default.fileExists(atPath: url.path, isDirectory: &isDirectory)
    if exists, isDirectory.boolValue {
      let model = try ModelDirectory(url)
      id = try model.card().model.id
      family = type(of: model.family).name
      pipelineClass = model.className
      var components: [String: Part] = [:]
      for component in type(of: model.family).components {
        components[component.rawValue] = try Self.part(try model.weights(of: component))
      }
      self.components = components
    } else if name.hasSuffix(".gguf") || name.hasSuffix(".safetensors") {
      let file = try WeightFile(url)
      components = [url.lastPathComponent: Part(files: [Self.file(file)], types: Self.kinds(file.entries.values))]
    } else {
      return nil
    }
  }

  private static func part(_ weights: ComponentWeights) throws -> Part {
    let entries = weights.files.flatMap { $0.entries.values }
    return Part(
      files: weights.files.map(file), types: kinds(entries),
      mode: try PrecisionChoice.auto.precision(for: weights).rawValue)
  }

  private static func file(_ file: WeightFile) -> File {
    File(
      path: file.path, format: file.gguf == nil ? "safetensors" : "gguf", version: file.gguf?.version,
      architecture: file.gguf?.architecture, bytes: file.fileByteCount)
  }

  private static func kinds(_ entries: some Sequence<SafetensorsHeader.Entry>) -> [String: Kind] {
    entries.reduce(into: [:]) { kinds, entry in
      kinds[entry.dtypeName, default: Kind()].tensors += 1
      kinds[entry.dtypeName, default: Kind()].values += entry.shape.elementCount
      kinds[entry.dtypeName, default: Kind()].bytes += entry.byteCount
    }
  }
}
