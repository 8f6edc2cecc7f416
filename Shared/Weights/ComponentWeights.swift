import Foundation
import Kernels
import StrictJSON
import TensorCore

/// The weights of one model component (`transformer/`, `vae/`, `text_encoder/`): a single file or shards behind an
/// index.
public struct ComponentWeights: Sendable {
  /// The component's directory, as errors name it.
  public let directory: String
  /// The file or the index that says which tensors there are, as errors about missing ones name it.
  private let root: String
  /// The files that hold the weights, in the order of their names.
  public let files: [SafetensorsFile]
  /// The mode that the component's layers are packed for; nil for a component of plain tensors.
  public let packedPrecision: Precision?
  private let locations: [String: Location]
  /// Packed weights in the files of this component.
  private let packed: [String: PackedFormat.Layer]
  /// Layers that another program has quantised, by the model's names of their weights.
  private let quantisations: [String: StoredQuantisation]
  /// Names of tensors that only describe such weights.
  private let companions: Set<String>
  /// Packed weights in other files: a cache.
  private let overlay: [ComponentWeights]
  private let isSynthetic: Bool

  private struct Location: Sendable {
    let file: Int
    let storedName: String
    /// Which of how many equal parts of the stored tensor's rows.
    var part = 0, partCount = 1

    /// The entry of the part; that of the whole tensor where its rows cannot be divided.
    func entry(in stored: SafetensorsHeader.Entry) -> SafetensorsHeader.Entry {
      guard partCount > 1, stored.shape.rank > 0, stored.shape[0] % partCount == 0 else { return stored }
      let byteCount = stored.byteCount / partCount
      return SafetensorsHeader.Entry(
        dtypeName: stored.dtypeName,
        shape: Shape([stored.shape[0] / partCount] + stored.shape.dimensions.dropFirst()),
        begin: stored.begin + part * byteCount, byteCount: byteCount)
    }
  }

  /// Element types that weights may have.
  public static let weightDTypes: [DType] = [.fp32, .bf16, .fp16]
  private static let maxIndexBytes = 64 << 20

  /// Which of a single file and an index counts where a directory has both.
  public enum Preference: Sendable {
    /// The index, as in diffusers.
    case index
    /// The single file, as in transformers.
    case singleFile
  }

  /// Opens the weights in `directory`: `<baseName>.safetensors.index.json` (shards) or `<baseName>.safetensors`, else
  /// the same with a variant infix (`<baseName>.safetensors.index.fp16.json`, `<baseName>.fp16.safetensors`), of which
  /// there must be one.
  ///
  /// - Parameters:
  ///   - baseName: `diffusion_pytorch_model` for diffusers components, `model` for transformers components.
  ///   - preference: what to take where there are both.
  ///   - rename: Maps a stored tensor name to the name that the model asks for; must not map two names to one.
  ///   - acceptsAnyName: whether a single safetensors file of another name will do where there is none of these.
  ///   - divide: the names of the equal parts that the rows of a tensor are divided into, by the name that `rename`
  ///     gives; nil: the tensor is one.
  public init(
    directory: URL, baseName: String, preferring preference: Preference = .index, acceptsAnyName: Bool = false,
    rename: (String) -> String = { $0 }, dividing divide: (String) -> [String]? = { _ in nil }
  ) throws(WeightsError) {
    self.directory = directory.path
    var locations: [String: Location] = [:]
    func locate(_ storedName: String, _ file: Int, in path: String) throws(WeightsError) {
      let name = rename(storedName), parts = divide(name) ?? [name]
      for (part, name) in parts.enumerated() {
        let location = Location(file: file, storedName: storedName, part: part, partCount: parts.count)
        if let other = locations.updateValue(location, forKey: name) {
          throw .malformedEntry(
            file: path, tensor: storedName, reason: "and \"\(other.storedName)\" both stand for \"\(name)\"")
        }
      }
    }
    switch try Self.find(in: directory, baseName: baseName, preferring: preference, acceptsAnyName: acceptsAnyName) {
    case .single(let url):
      root = url.path
      files = [try SafetensorsFile(url)]
      for name in files[0].names { try locate(name, 0, in: url.path) }
    case .sharded(let index):
      root = index.path
      let shardOfTensor = try Self.readIndex(index)
      let shards = Set(shardOfTensor.values).sorted()
      files = try Self.open(shards: shards, in: directory, index: index, baseName: baseName)
      for (name, shard) in shardOfTensor.sorted(by: { $0.key < $1.key }) {
        guard let file = shards.firstIndex(of: shard), files[file].header.entries[name] != nil else {
          throw .malformedIndex(file: index.path, reason: "tensor \"\(name)\" is not in shard \(shard)")
        }
        try locate(name, file, in: index.path)
      }
    }
    (quantisations, companions) = try Self.readQuantisations(files, locations, rename)
    // By the names that the model asks for: a family may know other programs' names.
    let unexplained = locations.keys.filter { [companions] in !companions.contains($0) }.sorted()
    if let foreign = ForeignTensors.first(in: unexplained), let location = locations[foreign.name] {
      throw .foreignTensor(
        file: files[location.file].path, tensor: location.storedName, meaning: foreign.meaning)
    }
    self.locations = locations
    (packedPrecision, packed) = try Self.readPacking(files, directory: directory.path, rename)
    overlay = []
    isSynthetic = false
  }

  /// The same component with the packed weights of `cache` before its own.
  public func overlaid(by cache: ComponentWeights) -> ComponentWeights { ComponentWeights(self, overlay: [cache]) }

  private init(_ base: ComponentWeights, overlay: [ComponentWeights]) {
    directory = base.directory
    root = base.root
    files = base.files
    packedPrecision = base.packedPrecision
    locations = base.locations
    packed = base.packed
    quantisations = base.quantisations
    companions = base.companions
    isSynthetic = base.isSynthetic
    self.overlay = overlay
  }

  /// A component that has every tensor it is asked for, with the values of ``SyntheticWeights``.
  public static func synthetic(_ component: String) -> ComponentWeights { ComponentWeights(synthetic: component) }

  private init(synthetic component: String) {
    directory = "synthetic \(component)"
    root = directory
    files = []
    packedPrecision = nil
    locations = [:]
    packed = [:]
    quantisations = [:]
    companions = []
    overlay = []
    isSynthetic = true
  }

  /// Names of all tensors after renaming, sorted.
  public var names: [String] { locations.keys.sorted() }

  /// Total size of the files.
  public var fileByteCount: Int { files.reduce(0) { $0 + $1.fileByteCount } }

  /// Whether there is a tensor `name`.
  public func contains(_ name: String) -> Bool { locations[name] != nil }

  /// The shape and dtype of the tensor `name`, if there is one.
  public func entry(_ name: String) -> SafetensorsHeader.Entry? {
    locations[name].flatMap { location in
      files[location.file].header.entries[location.storedName].map { location.entry(in: $0) }
    }
  }

  /// The tensor `name` in its stored element type (fp32, bf16 or fp16), as a view into the mapped file.
  ///
  /// - Throws: ``WeightsError/missingTensor(component:tensor:expected:)``,
  ///   ``WeightsError/misshapenTensor(file:tensor:expected:found:)``,
  ///   ``WeightsError/unsupportedDType(file:tensor:found:supported:)``.
  public func tensor(_ name: String, _ shape: Shape) throws(WeightsError) -> Tensor {
    if isSynthetic { return SyntheticWeights.tensor(name, shape) }
    if let layer = packed[name] {
      throw .malformedEntry(
        file: file(ofPacked: name), tensor: name,
        reason: "is packed as \(layer.description) where plain numbers are needed")
    }
    if let quantisation = quantisations[name], let location = locations[name] {
      throw .malformedEntry(
        file: files[location.file].path, tensor: location.storedName,
        reason: "is quantised (\(quantisation)) where plain numbers are needed")
    }
    return try stored(name, shape, Self.weightDTypes).tensor
  }

  /// What a file holds of the tensor `name`, which must have one of the types `dtypes`: the file, the tensor, and its
  /// rows of the one in the file.
  func stored(
    _ name: String, _ shape: Shape, _ dtypes: [DType]
  ) throws(WeightsError) -> (file: SafetensorsFile, tensor: Tensor, rows: Range<Int>) {
    guard let location = locations[name], let entry = entry(name) else {
      throw .missingTensor(component: root, tensor: name, expected: shape)
    }
    let file = files[location.file]
    guard entry.shape == shape else {
      throw .misshapenTensor(file: file.path, tensor: location.storedName, expected: shape, found: entry.shape)
    }
    guard let dtype = entry.dtype, dtypes.contains(dtype) else {
      throw .unsupportedDType(
        file: file.path, tensor: location.storedName, found: entry.dtypeName, supported: dtypes.map(\.rawValue))
    }
    let stored = try file.tensor(location.storedName), count = shape.rank == 0 ? 1 : shape[0]
    let rows = location.part * count..<(location.part + 1) * count
    return (file, location.partCount > 1 ? stored.rows(rows) : stored, rows)
  }

  /// A part of a tensor's stored bytes; see ``SafetensorsFile/readBytes(of:in:)``.
  public func readBytes(of name: String, in range: Range<Int>) throws(WeightsError) -> [UInt8] {
    guard let location = locations[name] else { throw .missingTensor(component: root, tensor: name, expected: nil) }
    let start = (entry(name)?.begin ?? 0) - (files[location.file].header.entries[location.storedName]?.begin ?? 0)
    return try files[location.file].readBytes(
      of: location.storedName, in: start + range.lowerBound..<start + range.upperBound)
  }

  /// Requires that every tensor is in `expected` or is ignored; a surplus tensor means that the checkpoint is of
  /// another architecture.
  public func requireOnly(_ expected: Set<String>, ignoring: (String) -> Bool = { _ in false }) throws(WeightsError) {
    let parts = Set(packed.keys.flatMap { name in PackedFormat.partNames.map { "\(name).\($0)" } })
    let present = locations.keys.filter { !parts.contains($0) && !companions.contains($0) } + packed.keys
    let surplus = present.filter { !expected.contains($0) && !ignoring($0) }.sorted()
    guard surplus.isEmpty else {
      throw .unexpectedTensors(component: root, first: Array(surplus.prefix(5)), count: surplus.count)
    }
  }

  /// Takes a tensor's pages (or a packed weight's) out of this process's memory; they come back when they are next
  /// accessed.
  public func releasePages(of name: String) {
    for part in storedParts(of: name) { part.file.releasePages(of: part.name) }
  }

  /// Takes a tensor's pages (or a packed weight's) out of memory, out of the page cache too, except what other
  /// processes have mapped.
  public func evictPages(of name: String) {
    for part in storedParts(of: name) { part.file.evictPages(of: part.name) }
  }

  private typealias StoredPart = (file: SafetensorsFile, name: String)

  /// What the files hold of a tensor or of a packed weight, here and in the cache.
  private func storedParts(of name: String) -> [StoredPart] {
    packedParts(of: name) + (locations[name].map { [(files[$0.file], $0.storedName)] } ?? [])
  }

  private func packedParts(of name: String) -> [StoredPart] {
    let stored = PackedFormat.partNames.compactMap { locations["\(name).\($0)"] }
    return overlay.flatMap { $0.packedParts(of: name) } + stored.map { (files[$0.file], $0.storedName) }
  }

  /// The packed weights whose names satisfy `isIncluded`, here and in the cache, as parts of mapped files.
  public func mapped(where isIncluded: (String) -> Bool) -> MappedWeights {
    let names = Set(overlay.flatMap { $0.packed.keys } + packed.keys).filter(isIncluded).sorted()
    return MappedWeights(names.flatMap(packedParts))
  }

  // MARK: - Layers that another program has quantised

  /// How the weight `name` is quantised in the files; nil: it is stored in plain numbers, or packed.
  public func quantisation(of name: String) -> StoredQuantisation? { quantisations[name] }

  /// The precision of layers that another program has quantised; nil: there are none.
  public var storedPrecision: Precision? { quantisations.values.first?.precision }

  /// Whether the tensor `name` only says how another one is quantised.
  public func isCompanion(_ name: String) -> Bool { companions.contains(name) }

  private static func readQuantisations(
    _ files: [SafetensorsFile], _ locations: [String: Location], _ rename: (String) -> String
  ) throws(WeightsError) -> ([String: StoredQuantisation], companions: Set<String>) {
    var layers: [ComfyQuantisation.Layers] = []
    for file in files { layers.append(try ComfyQuantisation.read(file, rename)) }
    let quantisations = locations.compactMapValues { layers[$0.file].quantisations[$0.storedName] }
    let companions = locations.filter { layers[$0.value.file].companions.contains($0.value.storedName) }
    return (quantisations, Set(companions.keys))
  }

  // MARK: - Packed layers

  /// The layer whose weight `name` [output, input] is packed, as a view into the mapped file; nil if it is stored
  /// plainly.
  ///
  /// - Parameter bias: [output], any floating-point type.
  /// - Throws: a `WeightsError` when the weight has another shape, or was packed for another mode than `compute` is in.
  public func packedLayer(
    _ name: String, output: Int, input: Int, bias: Tensor?, compute: Compute
  ) throws(WeightsError) -> Linear? {
    for component in overlay {
      if let layer = try component.packedLayer(name, output: output, input: input, bias: bias, compute: compute) {
        return layer
      }
    }
    guard let layer = packed[name] else { return nil }
    guard packedPrecision == compute.precision else {
      throw .packedForAnotherMode(
        component: directory, packed: packedPrecision?.rawValue ?? "", asked: compute.precision.rawValue)
    }
    guard layer.shape == [output, input] else {
      throw .misshapenTensor(file: file(ofPacked: name), tensor: name, expected: [output, input], found: layer.shape)
    }
    var parts: [String: Tensor] = [:]
    for part in PackedFormat.partNames {
      guard let location = locations["\(name).\(part)"] else { continue }
      let tensor = try files[location.file].tensor(location.storedName)
      guard tensor.shape.rank == 1 else {
        throw .misshapenTensor(
          file: files[location.file].path, tensor: location.storedName, expected: [tensor.elementCount],
          found: tensor.shape)
      }
      parts[part] = tensor
    }
    parts["bias"] = bias.map { $0.dtype == .fp32 ? $0 : compute.converted($0, to: .fp32) }
    do {
      return try Linear(
        precision: layer.precision, outFeatures: output, inFeatures: input, rotation: layer.rotation, parts: parts)
    } catch { throw .malformedEntry(file: file(ofPacked: name), tensor: name, reason: "\(error)") }
  }

  /// The file that holds a packed weight, for errors.
  private func file(ofPacked name: String) -> String { locations["\(name).panels"].map { files[$0.file].path } ?? root }

  /// Whether the weight `name` is packed, here or in the cache.
  public func isPacked(_ name: String) -> Bool { packed[name] != nil || overlay.contains { $0.isPacked(name) } }

  private static func readPacking(
    _ files: [SafetensorsFile], directory: String, _ rename: (String) -> String
  ) throws(WeightsError) -> (Precision?, [String: PackedFormat.Layer]) {
    var mode: Precision?
    var layers: [String: PackedFormat.Layer] = [:]
    for file in files {
      guard let packing = try PackedFormat.read(file.header, file: file.path) else { continue }
      if let mode, mode != packing.precision {
        throw .malformedHeader(
          file: file.path,
          reason: "\(PackedFormat.precisionKey) is \(packing.precision.rawValue), another shard's is \(mode.rawValue)")
      }
      mode = packing.precision
      for (name, layer) in packing.layers {
        guard file.header.entries["\(name).panels"] != nil else {
          throw .malformedEntry(
            file: file.path, tensor: name, reason: "is said to be packed, but the file has no \(name).panels")
        }
        layers[rename(name)] = layer
      }
    }
    return (mode, layers)
  }

  // MARK: - Finding the files

  private enum Layout {
    case single(URL)
    case sharded(index: URL)
  }

  private static func find(
    in directory: URL, baseName: String, preferring preference: Preference, acceptsAnyName: Bool
  ) throws(WeightsError) -> Layout {
    let present: [String]
    do { present = try FileManager.default.contentsOfDirectory(atPath: directory.path).sorted() } catch {
      let reason = isPresent(directory.path) ? "not a readable directory" : "no such directory; download the component"
      throw .cannotRead(file: directory.path, reason: reason)
    }
    let single = "\(baseName).safetensors"
    let index = "\(baseName).safetensors.index.json"
    if preference == .singleFile, present.contains(single) { return .single(directory.appending(path: single)) }
    if present.contains(index) { return .sharded(index: directory.appending(path: index)) }
    if present.contains(single) { return .single(directory.appending(path: single)) }
    let variants = present.filter {
      isVariant($0, between: "\(baseName).", and: ".safetensors") && !$0.contains("-of-")
    }
    let variantIndexes = present.filter { isVariant($0, between: "\(baseName).safetensors.index.", and: ".json") }
    let others = present.filter {
      acceptsAnyName && $0.hasSuffix(".safetensors") && !$0.hasPrefix(".") && !$0.contains("-of-")
    }
    switch (variantIndexes.count, variants.count) {
    case (0, 0) where others.count == 1: return .single(directory.appending(path: others[0]))
    case (0, 0) where others.count > 1: throw .ambiguousWeights(directory: directory.path, candidates: others)
    case (0, 0): throw .noWeights(directory: directory.path, baseName: baseName, others: Self.likeWeights(present))
    case (1, 0): return .sharded(index: directory.appending(path: variantIndexes[0]))
    case (0, 1): return .single(directory.appending(path: variants[0]))
    default: throw .ambiguousWeights(directory: directory.path, candidates: variantIndexes + variants)
    }
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
  ) throws(WeightsError) -> [SafetensorsFile] {
    var files: [SafetensorsFile] = []
    for shard in shards {
      let url = directory.appending(path: shard)
      guard isPresent(url.path) else {
        let single = "\(baseName).safetensors", hasSingle = isPresent(directory.appending(path: single).path)
        throw .missingShard(index: index.path, shard: shard, single: hasSingle ? single : nil)
      }
      files.append(try SafetensorsFile(url))
    }
    return files
  }
}
