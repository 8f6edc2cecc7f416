import Diffusion
import Foundation
import GoldenSupport
import Kernels
import ModelRegistry
import QwenImage
import Testing
import Weights

private let pool = ThreadPool(threads: 1)

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

  fileprivate static func isUnused(_ name: String, in component: ModelComponent, halves: CodecParts) -> Bool {
    guard component == .vae else { return unusedPrefixes[component]!.contains { name.hasPrefix($0) } }
    return name.contains(unusedInfix)
      || prefixes.contains { half in !halves.contains(half.half) && half.prefixes.contains(where: name.hasPrefix) }
  }

  fileprivate static func load(
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
    let counts = try DamageTarget(component, of: ModelDirectory(copy.url), .fp32).damageEveryTensor()
    let expected: [ModelComponent: (tensors: Int, used: Int)] = [.textEncoder: (93, 38), .transformer: (77, 77)]
    #expect(counts.tensors == expected[component]?.tensors && counts.used == expected[component]?.used, "\(counts)")
    #expect(counts.refused == counts.used * 9 + (counts.tensors - counts.used) * 3, "\(counts)")
  }

  @Test(arguments: [CodecParts.decoder, .encoder, [.decoder, .encoder]])
  func everyTensorOfTheAutoencoder(halves: CodecParts) throws {
    let copy = try CheckpointCopy()
    let counts = try DamageTarget(.vae, halves: halves, of: ModelDirectory(copy.url), .fp32).damageEveryTensor()
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
    let counts = try DamageTarget(component, of: ModelDirectory(url), precision).damageEveryTensor()
    #expect(counts.used == counts.tensors && counts.used >= 38 && counts.refused >= 5 * counts.used, "\(counts)")
  }

  @Test(arguments: ["controlnet", "controlnet-inpaint"]) func everyTensorOfAControlNetwork(_ name: String) throws {
    let directory = try TemporaryDirectory(), folder = directory.url.appending(path: name)
    try FileManager.default.copyItem(at: golden.appending(path: "tiny/\(name)"), to: folder)
    let transformer = try ModelDirectory(Golden.tinyCheckpoint).qwenImage.transformer
    let compute = Compute(precision: .fp32, pool: pool)
    let target = DamageTarget(folder: folder, isUsed: { _ in true }) {
      _ = try ControlNetwork(directory: folder, for: transformer, compute: compute)
    }
    let counts = try target.damageEveryTensor()
    #expect(counts.tensors == 45 && counts.used == 45 && counts.refused == 8 * 45, "\(counts)")
  }

  @Test func everyTensorOfTheVisionTower() throws {
    let copy = try CheckpointCopy()
    let counts = try DamageTarget.visionTower(of: ModelDirectory(copy.url), .fp32).damageEveryTensor()
    #expect(counts.tensors == 93 && counts.used == 54, "\(counts)")
    #expect(counts.refused == counts.used * 9 + (counts.tensors - counts.used) * 3, "\(counts)")
  }

  /// Packed in bf16; the quantised modes keep the tower's layers as they are published.
  @Test(arguments: [Precision.bf16, .int8]) func everyTensorOfAPackedVisionTower(_ precision: Precision) throws {
    let directory = try TemporaryDirectory(), url = directory.url.appending(path: "m")
    let source = try ModelDirectory(Golden.editCheckpoint)
    _ = try QuantisedCheckpoint.write(source, precision: precision, to: url, pool: pool) { _, _ in }
    let counts = try DamageTarget.visionTower(of: ModelDirectory(url), precision).damageEveryTensor()
    #expect(counts.used == 54 && counts.refused >= 5 * counts.used, "\(counts)")
  }
}

extension DamageTarget {
  /// `halves` are those of the autoencoder.
  init(
    _ component: ModelComponent, halves: CodecParts = [], of model: ModelDirectory, _ precision: Precision
  ) {
    let isUsed = { !DamagedTensorTests.isUnused($0, in: component, halves: halves) }
    self.init(folder: model.url(of: component), isUsed: isUsed) {
      try DamagedTensorTests.load(model, component, halves: halves, precision)
    }
  }

  static func visionTower(of model: ModelDirectory, _ precision: Precision) -> DamageTarget {
    DamageTarget(folder: model.url(of: .textEncoder), isUsed: { $0.hasPrefix("visual.") }) {
      let weights = try model.weights(of: .textEncoder)
      let configuration = try #require(model.qwenImage.vision)
      _ = try VisionTower(
        weights, configuration: configuration, compute: Compute(precision: precision, pool: pool))
    }
  }
}
