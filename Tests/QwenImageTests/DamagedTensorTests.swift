import Diffusion
import Foundation
import GoldenSupport
import Kernels
import ModelRegistry
import QwenImage
import Testing
import Weights

private let pool = ThreadPool(threads: 1)

/// What is done to one tensor of a file.
private enum Damage: String, CaseIterable {
  /// `data_offsets` end one element early.
  case shortOffsets
  /// As many elements in another shape.
  case reshaped
  /// Integers of the same width in the same shape.
  case integers
  /// The same bytes as U8 or F8, in a shape that fits them.
  case sameBytesAsU8, sameBytesAsF8
  /// The file ends in the middle of it.
  case cut
  /// One byte per element in the same shape.
  case sameShapeAsF8
  /// It is gone from the file, and the index still lists it.
  case removedFromItsShard
  /// It is gone, from the index too.
  case removed

  /// Whether the damage is to the file's structure, which is checked for tensors that no model reads too.
  var isOfTheFile: Bool { [.removedFromItsShard, .cut, .shortOffsets].contains(self) }

  /// How the damage is brought about. Those that leave the data as they are, the first ones, write the header only, and
  /// may cut the file off.
  enum Change {
    case header([UInt8], byteCount: Int? = nil)
    case file([UInt8])
  }

  /// The change to `file`, whose header takes `headerByteCount` bytes; nil where there is none, as in a cast of bytes
  /// to bytes.
  func change(to name: String, of file: StoredFile, headerByteCount: Int) -> Change? {
    guard let index = file.tensors.firstIndex(where: { $0.name == name }) else { return nil }
    let tensor = file.tensors[index].tensor
    var damaged = file
    switch self {
    case .shortOffsets:
      return .header(file.header(byteCount: headerByteCount) { $0 == name ? $1 - tensor.width : $1 })
    case .reshaped:
      let isSymmetric = tensor.shape == tensor.shape.reversed()
      damaged[name]?.shape = isSymmetric ? [1] + tensor.shape : tensor.shape.reversed()
    case .integers:
      guard let integers = ["F32": "I32", "BF16": "I16", "F16": "I16", "I32": "F32", "U8": "I8"][tensor.dtype] else {
        return nil
      }
      damaged[name]?.dtype = integers
    case .sameBytesAsU8, .sameBytesAsF8:
      guard tensor.width > 1, let last = tensor.shape.last else { return nil }
      damaged[name]?.dtype = self == .sameBytesAsU8 ? "U8" : "F8_E4M3"
      damaged[name]?.shape = tensor.shape.dropLast() + [last * tensor.width]
    case .sameShapeAsF8:
      guard tensor.width > 1 else { return nil }
      let bytes = Array(tensor.bytes.prefix(tensor.elementCount))
      damaged[name] = StoredTensor(dtype: "F8_E4M3", shape: tensor.shape, bytes: bytes)
      return .file(damaged.bytes())
    case .cut:
      let before = file.tensors[..<index].reduce(headerByteCount) { $0 + $1.tensor.bytes.count }
      return .header(file.header(byteCount: headerByteCount), byteCount: before + tensor.bytes.count / 2)
    case .removed, .removedFromItsShard:
      damaged[name] = nil
      return .file(damaged.bytes())
    }
    return .header(damaged.header(byteCount: headerByteCount))
  }
}

/// Damages every tensor of every component in turn. Each time the loader must say which file and which tensor is wrong;
/// it must neither crash nor continue.
@Suite struct DamagedTensorTests {
  /// Tensors that no image needs, and that are read by nothing. They may be missing or of any shape and type.
  private static let unusedPrefixes: [ModelComponent: [String]] = [
    .textEncoder: ["visual.", "lm_head."], .transformer: [],
  ]
  /// Those that either half of the autoencoder has for itself.
  private static let prefixes: [(half: CodecParts, prefixes: [String])] = [
    (.encoder, ["encoder.", "quant_conv."]), (.decoder, ["decoder.", "post_quant_conv."]),
  ]
  /// The VAE's convolutions over time, which a single frame does not reach.
  private static let unusedInfix = ".time_conv."

  private static func isUnused(_ name: String, in component: ModelComponent, halves: CodecParts) -> Bool {
    guard component == .vae else { return unusedPrefixes[component]!.contains { name.hasPrefix($0) } }
    return name.contains(unusedInfix)
      || prefixes.contains { half in !halves.contains(half.half) && half.prefixes.contains(where: name.hasPrefix) }
  }

  private static func load(
    _ model: ModelDirectory, _ component: ModelComponent, halves: CodecParts, _ precision: Precision
  ) throws {
    let weights = try model.weights(of: component), compute = Compute(precision: precision, pool: pool)
    switch component {
    case .textEncoder: _ = try LanguageModel(weights, configuration: model.qwenImage.textEncoder, compute: compute)
    case .transformer: _ = try MMDiT(weights, configuration: model.qwenImage.transformer, compute: compute)
    case .vae: _ = try QwenImageCodec(weights, configuration: model.qwenImage.vae, compute: compute, parts: halves)
    default: break
    }
  }

  @Test(arguments: [ModelComponent.textEncoder, .transformer])
  func everyTensorOfThePublishedLayout(_ component: ModelComponent) throws {
    let copy = try CheckpointCopy()
    let counts = try damageEveryTensor(Target(component, of: ModelDirectory(copy.url), .fp32))
    let expected: [ModelComponent: (tensors: Int, used: Int)] = [.textEncoder: (93, 38), .transformer: (77, 77)]
    #expect(counts.tensors == expected[component]?.tensors && counts.used == expected[component]?.used, "\(counts)")
    #expect(counts.refused == counts.used * 9 + (counts.tensors - counts.used) * 3, "\(counts)")
  }

  @Test(arguments: [CodecParts.decoder, .encoder, [.decoder, .encoder]])
  func everyTensorOfTheAutoencoder(halves: CodecParts) throws {
    let copy = try CheckpointCopy()
    let counts = try damageEveryTensor(Target(.vae, halves: halves, of: ModelDirectory(copy.url), .fp32))
    let used = (halves.contains(.decoder) ? 104 : 0) + (halves.contains(.encoder) ? 82 : 0)
    #expect(counts.tensors == 194 && counts.used == used, "\(counts)")
    // A single file has no index that would miss a tensor.
    #expect(counts.refused == counts.used * 8 + (counts.tensors - counts.used) * 2, "\(counts)")
  }

  @Test(arguments: [Precision.bf16, .int8, .q4], [ModelComponent.textEncoder, .transformer])
  func everyTensorOfPackedWeights(_ precision: Precision, _ component: ModelComponent) throws {
    let directory = try TemporaryDirectory(), url = directory.url.appending(path: "m")
    try writeTiny(precision, isPacked: true, to: url) { _, _ in
    }
    let counts = try damageEveryTensor(Target(component, of: ModelDirectory(url), precision))
    #expect(counts.used == counts.tensors && counts.used >= 38 && counts.refused >= 5 * counts.used, "\(counts)")
  }

  @Test(arguments: ["controlnet", "controlnet-inpaint"]) func everyTensorOfAControlNetwork(_ name: String) throws {
    let directory = try TemporaryDirectory(), folder = directory.url.appending(path: name)
    try FileManager.default.copyItem(at: golden.appending(path: "tiny/\(name)"), to: folder)
    let transformer = try ModelDirectory(Golden.tinyCheckpoint).qwenImage.transformer
    let compute = Compute(precision: .fp32, pool: pool)
    let target = Target(folder: folder, isUsed: { _ in true }) {
      _ = try ControlNetwork(directory: folder, for: transformer, compute: compute)
    }
    let counts = try damageEveryTensor(target)
    #expect(counts.tensors == 45 && counts.used == 45 && counts.refused == 8 * 45, "\(counts)")
  }

  @Test func everyTensorOfTheVisionTower() throws {
    let copy = try CheckpointCopy()
    let counts = try damageEveryTensor(.visionTower(of: ModelDirectory(copy.url), .fp32))
    #expect(counts.tensors == 93 && counts.used == 54, "\(counts)")
    #expect(counts.refused == counts.used * 9 + (counts.tensors - counts.used) * 3, "\(counts)")
  }

  /// Packed in bf16; the quantised modes keep the tower's layers as they are published.
  @Test(arguments: [Precision.bf16, .int8]) func everyTensorOfAPackedVisionTower(_ precision: Precision) throws {
    let directory = try TemporaryDirectory(), url = directory.url.appending(path: "m")
    let source = try ModelDirectory(Golden.editCheckpoint)
    _ = try QuantisedCheckpoint.write(source, precision: precision, to: url, pool: pool) { _, _ in }
    let counts = try damageEveryTensor(.visionTower(of: ModelDirectory(url), precision))
    #expect(counts.used == 54 && counts.refused >= 5 * counts.used, "\(counts)")
  }

  /// What is damaged: a folder with weights, and what loads it.
  private struct Target {
    let folder: URL
    let isUsed: (_ tensor: String) -> Bool
    let load: () throws -> Void

    init(folder: URL, isUsed: @escaping (_ tensor: String) -> Bool, load: @escaping () throws -> Void) {
      self.folder = folder
      self.isUsed = isUsed
      self.load = load
    }

    /// `halves` are those of the autoencoder.
    init(
      _ component: ModelComponent, halves: CodecParts = [], of model: ModelDirectory, _ precision: Precision
    ) {
      let isUsed = { !DamagedTensorTests.isUnused($0, in: component, halves: halves) }
      self.init(folder: model.url(of: component), isUsed: isUsed) {
        try DamagedTensorTests.load(model, component, halves: halves, precision)
      }
    }

    static func visionTower(of model: ModelDirectory, _ precision: Precision) -> Target {
      Target(folder: model.url(of: .textEncoder), isUsed: { $0.hasPrefix("visual.") }) {
        let weights = try model.weights(of: .textEncoder)
        let configuration = try #require(model.qwenImage.vision)
        _ = try VisionTower(
          weights, configuration: configuration, compute: Compute(precision: precision, pool: pool))
      }
    }
  }

  private struct Counts {
    var tensors = 0, used = 0, refused = 0
    var failures: [String] = []

    /// Records the loads that did not end as they should, the first ones in words.
    func expectNoFailures() { #expect(failures.isEmpty, "\(failures.count): \(failures.prefix(5))") }
  }

  private func damageEveryTensor(_ target: Target) throws -> Counts {
    let folder = target.folder
    try target.load()
    var counts = Counts()
    let names = try FileManager.default.contentsOfDirectory(atPath: folder.path)
    let index = names.first { $0.hasSuffix(".index.json") }.map { folder.appending(path: $0) }
    for shard in names.sorted() where shard.hasSuffix(".safetensors") {
      let shardURL = folder.appending(path: shard), file = try StoredFile(shardURL)
      // Space for what damaged headers need more.
      let header = file.header(byteCount: file.header().count + 64),
        original = header + file.tensors.flatMap(\.tensor.bytes)
      for (name, _) in file.tensors {
        counts.tensors += 1
        let isUsed = target.isUsed(name)
        if isUsed { counts.used += 1 }
        try Data(original).write(to: shardURL)
        for damage in Damage.allCases where index != nil || damage != .removedFromItsShard {
          guard let change = damage.change(to: name, of: file, headerByteCount: header.count) else { continue }
          try apply(change, to: shardURL)
          let listed = damage == .removed ? try index.map { try unlist(name, in: $0) } : nil
          let files = [shard] + (index.map { [$0.lastPathComponent] } ?? [])
          // The file says which layers are packed.
          let isOfThePacking = damage == .removed && name.hasSuffix(".panels")
          let isExpected = isUsed || damage.isOfTheFile || isOfThePacking
          let message = message(target)
          if message != nil { counts.refused += 1 }
          if !Self.isRight(
            message, isExpected: isExpected, of: name, in: files.map { "\(folder.lastPathComponent)/\($0)" })
          {
            counts.failures.append("\(name) \(damage): \(message ?? "loaded")")
          }
          if let index, let listed { try listed.write(to: index) }
        }
      }
      try Data(original).write(to: shardURL)
    }
    counts.expectNoFailures()
    return counts
  }

  private func apply(_ change: Damage.Change, to url: URL) throws {
    switch change {
    case .file(let bytes): try Data(bytes).write(to: url)
    case .header(let bytes, let byteCount):
      let handle = try FileHandle(forUpdating: url)
      try handle.write(contentsOf: bytes)
      if let byteCount { try handle.truncate(atOffset: UInt64(byteCount)) }
      try handle.close()
    }
  }

  /// Why the target cannot be loaded; nil where it can.
  private func message(_ target: Target) -> String? {
    do {
      try target.load()
      return nil
    } catch { return "\(error)" }
  }

  /// Whether there is a message where one is expected, and it names one of the files and the tensor, or the packed
  /// weight that the tensor is part of.
  private static func isRight(_ message: String?, isExpected: Bool, of name: String, in files: [String]) -> Bool {
    guard isExpected, let message else { return message == nil && !isExpected }
    let weight = name.replacing(/\.(panels|scales|offsets)$/, with: "")
    return files.contains { message.contains($0) } && [name, weight].contains { message.contains("\"\($0)\"") }
  }

  /// Takes a tensor out of an index; returns what the index was.
  private func unlist(_ name: String, in index: URL) throws -> Data {
    let data = try Data(contentsOf: index)
    var document = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
    var map = try #require(document["weight_map"] as? [String: String])
    map[name] = nil
    document["weight_map"] = map
    try JSONSerialization.data(withJSONObject: document).write(to: index)
    return data
  }
}
