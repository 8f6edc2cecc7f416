import Foundation
import Weights

/// What `model.json` says: where a model's parts are when they are not all in one directory in the diffusers layout.
///
///     {"base": "../Qwen-Image", "transformer": "qwen-image-Q4_K_M.gguf",
///      "text_encoder": ["Qwen2.5-VL-7B-Instruct-Q8_0.gguf", "mmproj-F16.gguf"], "vae": "../other/vae"}
///
/// Paths are absolute or relative to the file's directory. `base` is a checkpoint in the diffusers layout, which has
/// the configurations, the tokenizer and the weights that are not named; without it, the directory itself is it. The
/// others are a folder, a safetensors or GGUF file, or several files that make one component.
struct ModelSources {
  static let fileName = "model.json"
  private static let components = [ModelComponent.transformer, .textEncoder, .vae]
  private static let maxFiles = 16
  private static let maxPathBytes = 4096

  /// The checkpoint with the configurations.
  let base: URL
  /// Weights that are elsewhere.
  let components: [ModelComponent: ComponentSource]

  /// Reads the file in `directory`, if there is one.
  ///
  /// - Throws: `ConfigurationError` naming the file and the field.
  init(_ directory: URL) throws(ConfigurationError) {
    let file = directory.appending(path: Self.fileName)
    guard isPresent(file.path) else {
      base = directory
      components = [:]
      return
    }
    let fields = try ConfigurationFields(contentsOf: file)
    try fields.requireOnly(["base"] + Self.components.map(\.rawValue))
    base =
      try fields.value("base").map { _ throws(ConfigurationError) -> URL in
        let url = try Self.url(try fields.string("base"), "base", fields, directory)
        guard Self.isFolder(url), !isPresent(url.appending(path: Self.fileName).path) else {
          throw fields.outOfRange("base", "\"\(url.path)\"", "the folder of a checkpoint without a \(Self.fileName)")
        }
        return url
      } ?? directory
    var components: [ModelComponent: ComponentSource] = [:]
    for component in Self.components {
      guard let value = fields.value(component.rawValue) else { continue }
      let field = component.rawValue
      let paths =
        if case .array = value { try fields.strings(field, count: 1...Self.maxFiles) } else {
          [try fields.string(field)]
        }
      var urls: [URL] = []
      for path in paths { urls.append(try Self.url(path, field, fields, directory)) }
      components[component] = try Self.source(urls, field, fields)
    }
    self.components = components
  }

  private static func source(
    _ urls: [URL], _ field: String, _ fields: ConfigurationFields
  ) throws(ConfigurationError) -> ComponentSource {
    if urls.count == 1, isFolder(urls[0]) { return .folder(urls[0]) }
    for url in urls {
      let name = url.lastPathComponent.lowercased()
      guard !isFolder(url), name.hasSuffix(".gguf") || name.hasSuffix(".safetensors") else {
        throw fields.outOfRange(
          field, "\"\(url.path)\"", "a folder, a .safetensors or .gguf file, or a list of such files")
      }
    }
    guard Set(urls).count == urls.count else { throw fields.outOfRange(field, "a list", "of different files") }
    return .files(urls)
  }

  private static func url(
    _ path: String, _ field: String, _ fields: ConfigurationFields, _ directory: URL
  ) throws(ConfigurationError) -> URL {
    guard !path.isEmpty, path.utf8.count <= maxPathBytes, !path.contains("\0") else {
      throw fields.outOfRange(field, "\(path.utf8.count) bytes long", "a path of 1 to \(maxPathBytes) bytes")
    }
    let url = path.hasPrefix("/") ? URL(filePath: path) : directory.appending(path: path)
    let found = url.standardizedFileURL
    guard FileManager.default.fileExists(atPath: found.path) else {
      throw fields.outOfRange(field, "\"\(found.path)\"", "a file or folder that exists")
    }
    return found
  }

  private static func isFolder(_ url: URL) -> Bool {
    var isDirectory: ObjCBool = false
    return FileManager.default.fileExists(atPath: url.path, isDirectory: &isDirectory) && isDirectory.boolValue
  }
}
