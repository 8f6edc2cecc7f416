import Foundation
import StrictJSON

/// Where the weights of a component are.
public enum ComponentSource: Sendable, Equatable {
  /// A folder, which is searched for them.
  case folder(URL)
  /// These files, which together hold all of them.
  case files([URL])

  /// The folder, or the files, as errors name them.
  public var path: String {
    switch self {
    case .folder(let url): url.path
    case .files(let urls): urls.map(\.path).joined(separator: ", ")
    }
  }
}

/// The files that hold the weights of a component, and which tensors count.
struct ComponentFiles {
  /// The file or the index that says which tensors there are, as errors about missing ones name it.
  let root: String
  /// The index of shards; nil: there is none.
  private(set) var index: String?
  let files: [WeightFile]
  /// Stored names, sorted.
  let tensors: [(name: String, file: Int)]

  private static let maxIndexBytes = 64 << 20

  /// Opens what ``ComponentWeights/init(_:baseName:preferring:acceptsAnyName:naming:)`` describes.
  init(
    _ source: ComponentSource, baseName: String, preferring preference: ComponentWeights.Preference,
    acceptsAnyName: Bool
  ) throws(WeightsError) {
    switch source {
    case .files(let urls): try self.init(urls)
    case .folder(let folder):
      switch try Self.find(in: folder, baseName: baseName, preferring: preference, acceptsAnyName: acceptsAnyName) {
      case .files(let urls): try self.init(urls)
      case .sharded(let index): try self.init(index: index, in: folder, baseName: baseName)
      }
    }
  }

  private init(_ urls: [URL]) throws(WeightsError) {
    precondition(!urls.isEmpty, "a component without files")
    var files: [WeightFile] = []
    for url in urls { files.append(try WeightFile(url)) }
    root = urls.map(\.path).joined(separator: ", ")
    self.files = files
    tensors = files.indices.flatMap { file in files[file].names.map { (name: $0, file: file) } }
      .sorted { $0.name < $1.name }
  }

  private init(index: URL, in directory: URL, baseName: String) throws(WeightsError) {
    root = index.path
    self.index = index.path
    let shardOfTensor = try Self.readIndex(index), shards = Set(shardOfTensor.values).sorted()
    files = try Self.open(shards: shards, in: directory, index: index, baseName: baseName)
    var tensors: [(name: String, file: Int)] = []
    for (name, shard) in shardOfTensor.sorted(by: { $0.key < $1.key }) {
      guard let file = shards.firstIndex(of: shard), files[file].entries[name] != nil else {
        throw .malformedIndex(file: index.path, reason: "tensor \"\(name)\" is not in shard \(shard)")
      }
      tensors.append((name, file))
    }
    self.tensors = tensors
  }

  // MARK: - Finding the files

  private enum Layout {
    case files([URL])
    case sharded(index: URL)
  }

  private static func find(
    in directory: URL, baseName: String, preferring preference: ComponentWeights.Preference, acceptsAnyName: Bool
  ) throws(WeightsError) -> Layout {
    let present: [String]
    do { present = try FileManager.default.contentsOfDirectory(atPath: directory.path).sorted() } catch {
      let reason = isPresent(directory.path) ? "not a readable directory" : "no such directory; download the component"
      throw .cannotRead(file: directory.path, reason: reason)
    }
    func single(_ name: String) -> Layout { .files([directory.appending(path: name)]) }
    let plain = "\(baseName).safetensors", index = "\(baseName).safetensors.index.json"
    if preference == .singleFile, present.contains(plain) { return single(plain) }
    if present.contains(index) { return .sharded(index: directory.appending(path: index)) }
    if present.contains(plain) { return single(plain) }
    let variants = present.filter {
      isVariant($0, between: "\(baseName).", and: ".safetensors") && !$0.contains("-of-")
    }
    let variantIndexes = present.filter { isVariant($0, between: "\(baseName).safetensors.index.", and: ".json") }
    switch (variantIndexes.count, variants.count) {
    case (0, 0):
      guard acceptsAnyName, let others = try ofAnyName(present, in: directory) else {
        throw .noWeights(directory: directory.path, baseName: baseName, others: likeWeights(present))
      }
      return .files(others.map { directory.appending(path: $0) })
    case (1, 0): return .sharded(index: directory.appending(path: variantIndexes[0]))
    case (0, 1): return single(variants[0])
    default: throw .ambiguousWeights(directory: directory.path, candidates: variantIndexes + variants)
    }
  }

  /// The single safetensors file, or the GGUF file with that of its vision tower beside it; nil: there is none.
  private static func ofAnyName(_ present: [String], in directory: URL) throws(WeightsError) -> [String]? {
    let visible = present.filter { !$0.hasPrefix(".") && !$0.contains("-of-") }
    let safetensors = visible.filter { $0.hasSuffix(".safetensors") }
    let gguf = visible.filter { $0.lowercased().hasSuffix(WeightFile.ggufSuffix) }
    if safetensors.count + gguf.count <= 1 { return safetensors + gguf == [] ? nil : safetensors + gguf }
    guard safetensors.isEmpty else {
      throw .ambiguousWeights(directory: directory.path, candidates: safetensors + gguf)
    }
    var models: [String] = [], towers: [String] = []
    for name in gguf {
      let isTower = try WeightFile(directory.appending(path: name)).gguf?.architecture == "clip"
      if isTower { towers.append(name) } else { models.append(name) }
    }
    guard models.count <= 1, towers.count <= 1 else {
      throw .ambiguousWeights(directory: directory.path, candidates: models.count > 1 ? models : towers)
    }
    return models + towers
  }

  /// The first few names that weights have in other formats and before a download is complete.
  private static func likeWeights(_ names: [String]) -> [String] {
    let endings = [
      ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".incomplete", ".aria2", ".part",
    ]
    return Array(names.filter { name in !name.hasPrefix(".") && endings.contains { name.hasSuffix($0) } }.prefix(3))
  }

  private static func isVariant(_ name: String, between prefix: String, and suffix: String) -> Bool {
    guard name.hasPrefix(prefix), name.hasSuffix(suffix), name.count > prefix.count + suffix.count else { return false }
    return !name.dropFirst(prefix.count).dropLast(suffix.count).contains(".")
  }

  // MARK: - Shards

  private static func readIndex(_ index: URL) throws(WeightsError) -> [String: String] {
    let document: JSON
    do { document = try JSON(try readSmallFile(index.path, maxBytes: maxIndexBytes)) } catch let error as WeightsError {
      throw error
    } catch { throw .malformedIndex(file: index.path, reason: "\(error)") }
    guard case .object(let members) = document, case .object(let map)? = members["weight_map"] else {
      throw .malformedIndex(file: index.path, reason: "weight_map is missing or not an object")
    }
    var shardOfTensor: [String: String] = [:]
    for (name, value) in map {
      guard case .string(let shard) = value else {
        throw .malformedIndex(
          file: index.path, reason: "weight_map[\"\(name)\"] is \(value.kind), expected a file name")
      }
      // The index comes from outside: it may only name files beside itself.
      guard !shard.isEmpty, !shard.hasPrefix("."), !shard.contains(where: { $0 == "/" || $0 == "\\" || $0 == "\0" })
      else {
        throw .malformedIndex(
          file: index.path, reason: "weight_map[\"\(name)\"] is \"\(shard)\", expected a plain file name")
      }
      shardOfTensor[name] = shard
    }
    guard !shardOfTensor.isEmpty else { throw .malformedIndex(file: index.path, reason: "weight_map is empty") }
    return shardOfTensor
  }

  private static func open(
    shards: [String], in directory: URL, index: URL, baseName: String
  ) throws(WeightsError) -> [WeightFile] {
    var files: [WeightFile] = []
    for shard in shards {
      let url = directory.appending(path: shard)
      guard isPresent(url.path) else {
        let single = "\(baseName).safetensors", hasSingle = isPresent(directory.appending(path: single).path)
        throw .missingShard(index: index.path, shard: shard, single: hasSingle ? single : nil)
      }
      files.append(try WeightFile(url))
    }
    return files
  }
}
