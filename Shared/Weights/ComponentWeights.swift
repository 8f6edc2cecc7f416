import Foundation
import Kernels
import TensorCore

/// The weights of one model component (`transformer/`, `vae/`, `text_encoder/`): a single file or shards behind an
/// index, or GGUF files.
public struct ComponentWeights: Sendable {
  /// The component's directory, or its files, as errors name it.
  public let directory: String
  /// The file or the index that says which tensors there are, as errors about missing ones name it.
  private let root: String
  /// The files that hold the weights, in the order of their names.
  public let files: [WeightFile]
  /// The mode that the component's layers are packed for; nil for a component of plain tensors.
  public let packedPrecision: Precision?
  let locations: [String: TensorLocation]
  /// Packed weights in the files of this component.
  let packed: [String: PackedFormat.Layer]
  /// Weights that another program has quantised, by the model's names.
  let quantisations: [String: StoredQuantisation]
  /// Names of tensors that only describe such weights.
  private let companions: Set<String>
  /// Packed weights in other files: a cache.
  let overlay: [ComponentWeights]
  let isSynthetic: Bool

  /// Element types of weights that are read as they are.
  public static let weightDTypes: [DType] = [.fp32, .bf16, .fp16]

  /// Which of a single file and an index counts where a directory has both.
  public enum Preference: Sendable {
    /// The index, as in diffusers.
    case index
    /// The single file, as in transformers.
    case singleFile
  }

  /// Opens the weights of `source`. In a folder these are `<baseName>.safetensors.index.json` (shards) or
  /// `<baseName>.safetensors`, else the same with a variant infix (`<baseName>.safetensors.index.fp16.json`,
  /// `<baseName>.fp16.safetensors`), of which there must be one.
  ///
  /// - Parameters:
  ///   - baseName: `diffusion_pytorch_model` for diffusers components, `model` for transformers components.
  ///   - preference: what to take where there are both.
  ///   - acceptsAnyName: whether a single safetensors file of another name will do where there is none of these, or a
  ///     GGUF file, with that of the vision tower beside it.
  ///   - naming: what the names of stored tensors, which it is given, stand for.
  public init(
    _ source: ComponentSource, baseName: String, preferring preference: Preference = .index,
    acceptsAnyName: Bool = false, naming: (_ stored: [String]) -> TensorNaming
  ) throws(WeightsError) {
    directory = source.path
    let found = try ComponentFiles(
      source, baseName: baseName, preferring: preference, acceptsAnyName: acceptsAnyName)
    root = found.root
    files = found.files
    let naming = naming(found.tensors.map(\.name)), locations = try found.locations(naming)
    (quantisations, companions) = try Self.readQuantisations(files, locations, naming.rename)
    // By the names that the model asks for: a family may know other programs' names.
    let unexplained = locations.keys.filter { [companions] in !companions.contains($0) }.sorted()
    if let foreign = ForeignTensors.first(in: unexplained), let location = locations[foreign.name] {
      throw .foreignTensor(
        file: files[location.file].path, tensor: location.storedName, meaning: foreign.meaning)
    }
    self.locations = locations
    (packedPrecision, packed) = try Self.readPacking(files, naming.rename)
    overlay = []
    isSynthetic = false
  }

  /// Opens the weights in `directory`, by the model's names or those that `rename` maps to them.
  public init(
    directory: URL, baseName: String, preferring preference: Preference = .index, acceptsAnyName: Bool = false,
    rename: @escaping (String) -> String = { $0 },
    dividing divide: @escaping (String) -> [String]? = { _ in nil }
  ) throws(WeightsError) {
    try self.init(
      .folder(directory), baseName: baseName, preferring: preference, acceptsAnyName: acceptsAnyName
    ) { _ in TensorNaming(rename: rename, dividing: divide) }
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

  /// Whether the files are safetensors with plain numbers under the names of ``names``.
  public var isPublished: Bool {
    files.allSatisfy { $0.safetensors != nil } && quantisations.isEmpty
      && locations.allSatisfy { $1.pieces.count == 1 && $1.partCount == 1 && $1.storedName == $0 }
  }

  /// Total size of the files.
  public var fileByteCount: Int { files.reduce(0) { $0 + $1.fileByteCount } }

  /// Whether there is a tensor `name`.
  public func contains(_ name: String) -> Bool { locations[name] != nil }

  /// The shape and dtype of the tensor `name`, if there is one; of one that files hold in several parts, of the whole.
  public func entry(_ name: String) -> SafetensorsHeader.Entry? {
    guard let location = locations[name] else { return nil }
    let stored = location.pieces.compactMap { files[$0.file].entries[$0.storedName] }
    if stored.count > 1 { return location.joined(stored) }
    guard let entry = stored.first.map(location.entry), quantisations[name]?.format == .int4 else {
      return stored.first.map(location.entry)
    }
    // Two inputs a byte.
    return SafetensorsHeader.Entry(
      dtypeName: BlockFormat.int4.rawValue,
      shape: Shape(entry.shape.dimensions.dropLast() + [2 * entry.shape[-1]]), begin: entry.begin,
      byteCount: entry.byteCount)
  }

  /// In how many parts the files hold the tensor `name`; 0: there is none.
  public func partCount(of name: String) -> Int { locations[name]?.pieces.count ?? 0 }

  /// The shape and type of a part of a tensor, as it is stored.
  public func entry(_ name: String, part: Int) -> SafetensorsHeader.Entry? {
    guard let location = locations[name] else { return nil }
    if location.pieces.count == 1 { return entry(name) }
    return files[location.pieces[part].file].entries[location.pieces[part].storedName]
  }

  /// Some of the stored bytes of a tensor's part, read from the file without touching the mapping.
  public func readBytes(of name: String, part: Int = 0, in range: Range<Int>) throws(WeightsError) -> [UInt8] {
    guard let location = locations[name] else { throw .missingTensor(component: root, tensor: name, expected: nil) }
    let piece = location.pieces[part], region = files[piece.file].region
    let start =
      location.pieces.count > 1 ? 0 : (entry(name)?.begin ?? 0) - (region.entries[piece.storedName]?.begin ?? 0)
    return try region.readBytes(of: piece.storedName, in: start + range.lowerBound..<start + range.upperBound)
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

  private typealias StoredPart = (file: WeightFile, name: String)

  /// What the files hold of a tensor or of a packed weight, here and in the cache.
  private func storedParts(of name: String) -> [StoredPart] {
    packedParts(of: name) + (locations[name]?.pieces ?? []).map { (files[$0.file], $0.storedName) }
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

  // MARK: - Weights that another program has quantised

  /// How the weight `name` is quantised in the files; nil: it is stored in plain numbers, or packed.
  public func quantisation(of name: String) -> StoredQuantisation? { quantisations[name] }

  /// The precision of layers that are computed as another program has quantised them; nil: there are none.
  public var storedPrecision: Precision? { quantisations.values.lazy.compactMap(\.precision).first }

  /// Whether the tensor `name` only says how another one is quantised.
  public func isCompanion(_ name: String) -> Bool { companions.contains(name) }

  func missing(_ name: String, _ shape: Shape) -> WeightsError {
    .missingTensor(component: root, tensor: name, expected: shape)
  }

  private static func readQuantisations(
    _ files: [WeightFile], _ locations: [String: TensorLocation], _ rename: (String) -> String
  ) throws(WeightsError) -> ([String: StoredQuantisation], companions: Set<String>) {
    var layers: [StoredQuantisation.Layers] = []
    for file in files { layers.append(try StoredQuantisation.read(file, rename)) }
    let quantisations = locations.compactMapValues { location in
      let pieces = location.pieces.map { layers[$0.file].quantisations[$0.storedName] }
      return pieces.count == 1 ? pieces[0] : pieces.lazy.compactMap { $0 }.first.map { StoredQuantisation(parts: $0) }
    }
    let companions = locations.filter { layers[$0.value.file].companions.contains($0.value.storedName) }
    return (quantisations, Set(companions.keys))
  }
}
