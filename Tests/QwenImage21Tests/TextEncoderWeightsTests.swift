import Diffusion
import Foundation
import GoldenSupport
import Kernels
import QwenImage21
import TensorCore
import Testing
import Weights

/// What the networks of the text encoder make of weights that are damaged, of odd sizes, or named otherwise.
@Suite struct TextEncoderWeightsTests {
  private static func isOfTheTower(_ name: String) -> Bool { name.hasPrefix("model.visual.") }

  /// Every tensor is damaged in turn; each time the loader must say which file and which tensor is wrong.
  @Test(arguments: [false, true]) func damagedTensorsAreNamed(_ isTower: Bool) throws {
    try withTemporaryFolder { folder in
      try FileManager.default.copyItem(
        at: Golden.checkpoint.appending(path: "text_encoder"), to: folder.appending(path: "text_encoder"))
      try FileManager.default.copyItem(
        at: Golden.checkpoint.appending(path: "processor"), to: folder.appending(path: "processor"))
      let copy = try TinyTextEncoder(folder), compute = Compute(precision: .fp32, pool: ThreadPool(threads: 1))
      let unused = ["lm_head.weight", "model.language_model.norm.weight"]
      let target = DamageTarget(
        folder: copy.folder, isUsed: { Self.isOfTheTower($0) == isTower && !unused.contains($0) }
      ) {
        if isTower { _ = try copy.tower(compute) } else { _ = try copy.languageModel(compute) }
      }
      let counts = try target.damageEveryTensor()
      #expect(counts.tensors == 116 && counts.used == (isTower ? 69 : 45), "\(counts)")
      #expect(counts.refused == counts.used * 9 + (counts.tensors - counts.used) * 3, "\(counts)")
    }
  }

  /// Heads of 72 channels, a large table of positions, and grids of every shape, at published widths: every precision
  /// is near fp32, and images are read alike alone and together.
  @Test func publishedWidths() throws {
    var configuration = Qwen3VisionConfiguration.published
    configuration.depth = 3
    configuration.deepStackBlocks = [0, 1]
    configuration.intermediateSize = 512
    configuration.hiddenSize = 288
    configuration.headCount = 4
    configuration.outputSize = 256
    let grids = [(2, 2), (6, 10), (2, 24)].map { TokenGrid(height: $0.0, width: $0.1) }
    let patchValues = configuration.geometry.patchValues
    let images = grids.enumerated().map { index, grid in
      let numbers = SyntheticWeights.uniforms("input.pixels.\(index)", count: grid.tokenCount * patchValues)
      let patches = Tensor(numbers.map { Float($0) }, shape: [grid.tokenCount, patchValues])
      return PatchedImage(patches: patches, grid: grid)
    }
    func read(_ precision: Precision, _ images: [PatchedImage], threads: Int = 2) throws -> [PromptImageRows] {
      let compute = Compute(precision: precision, pool: ThreadPool(threads: threads))
      return try Qwen3VisionTower(.synthetic("text_encoder"), configuration: configuration, compute: compute)
        .read(images, probe: .none)
    }
    func values(_ rows: [PromptImageRows]) -> [[Float]] {
      rows.map { image in ([image.rows] + image.levels).flatMap { $0.floats() } }
    }
    let exact = try read(.fp32, images)
    #expect(exact.map(\.tokenCount) == [1, 15, 12] && exact.allSatisfy { $0.levels.count == 2 })
    #expect(try read(.fp32, []).isEmpty)
    for precision in Precision.allCases {
      let rows = values(try read(precision, images))
      #expect(relativeError(rows.flatMap { $0 }, values(exact).flatMap { $0 }) < 0.02, "\(precision)")
      #expect(try images.map { values(try read(precision, [$0], threads: 3))[0] } == rows, "alone at \(precision)")
    }
  }
}
