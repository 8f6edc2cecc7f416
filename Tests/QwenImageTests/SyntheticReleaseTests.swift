import ClusterCore
import Diffusion
import Foundation
import GoldenSupport
import ImageCodec
import Kernels
import ModelRegistry
import QwenImage
import TensorCore
import Testing
import Weights

/// Checkpoints with random weights of the releases for editing and for layers.
@Suite struct SyntheticReleaseTests {
  private static let pool = ThreadPool(threads: 2)

  /// A release, its class, and what can be done with it.
  struct Release: CustomTestStringConvertible, Sendable {
    var name: String
    var className: String
    var pipelines: [PipelineName]
    var zeroCondT = false
    var testDescription: String { name }
  }

  private static let releases = [
    Release(name: "qwen-image-edit", className: "QwenImageEditPipeline", pipelines: [.edit, .editInpaint]),
    Release(name: "qwen-image-edit-2509", className: "QwenImageEditPlusPipeline", pipelines: [.editPlus]),
    Release(
      name: "qwen-image-edit-2511", className: "QwenImageEditPlusPipeline", pipelines: [.editPlus], zeroCondT: true),
    Release(name: "qwen-image-layered", className: "QwenImageLayeredPipeline", pipelines: [.layered]),
  ]

  /// Made by the name that `--config` takes; small images instead of those of the release.
  private func synthesise(_ name: String, _ precision: Precision, to url: URL) throws {
    try SyntheticCheckpoint.write(
      #require(ModelFamilies.standard.synthetic(name)), seed: 5, precision: precision, families: .standard, to: url,
      pool: Self.pool
    ) { _, _ in }
    try Data(#"{"reference_area": 4096, "condition_area": 4096, "width": 64, "height": 64}"#.utf8)
      .write(to: url.appending(path: "generation_defaults.json"))
  }

  @Test func namesAreThoseOfTheReleases() {
    let names = ["qwen-image"] + Self.releases.map(\.name)
    #expect(Array(ModelFamilies.standard.syntheticNames.prefix(10)) == names.flatMap { [$0, "\($0)-tiny"] })
    #expect(ModelFamilies.standard.synthetic("qwen-image-edit-2510") == nil)
  }

  /// Configured as published, and every pipeline runs; quantised as it is written, or afterwards, it gives the same.
  @Test(arguments: releases) func loadsRunsAndIsQuantised(_ release: Release) throws {
    let directory = try TemporaryDirectory()
    let (original, packed, quantised) = (
      directory.url.appending(path: "m"), directory.url.appending(path: "p"), directory.url.appending(path: "q")
    )
    try synthesise("\(release.name)-tiny", .bf16, to: original)
    let model = try ModelDirectory(original), family = try model.qwenImage
    #expect(try model.card().pipelineClass == release.className)
    #expect(family.transformer.zeroCondT == release.zeroCondT)
    #expect(family.transformer.useLayer3DRope == release.pipelines.contains(.layered))
    try synthesise("\(release.name)-tiny", .int8, to: packed)
    _ = try QuantisedCheckpoint.write(model, precision: .int8, to: quantised, pool: Self.pool) { _, _ in }
    for pipeline in release.pipelines {
      let images = try [original, packed, quantised].map { url in try made(pipeline, url, .int8) }
      #expect(images[0] == images[1] && images[0] == images[2], "\(pipeline)")
      #expect(images[0].count == (pipeline == .layered ? 2 : 1))
      #expect(images[0].allSatisfy { Set($0.pixels).count > 4 }, "\(pipeline): an image without a difference")
      #expect(try made(pipeline, original, .bf16) != images[0], "int8 is bf16")
    }
  }

  private func made(_ pipeline: PipelineName, _ url: URL, _ precision: PrecisionChoice) throws -> [RasterImage] {
    let directory = try ModelDirectory(url)
    let model = try LocalModel(
      directory, for: pipeline, loading: WeightLoading(precision: precision), pool: Self.pool)
    let image = RasterImage(
      width: 64, height: 64, pixels: (0..<64 * 64 * 3).map { UInt8(truncatingIfNeeded: $0 &* 7) })
    var inputs = PipelineInputs()
    inputs.images = pipeline == .editPlus ? [image, image] : [image]
    inputs.layers = 2
    if pipeline == .editInpaint {
      inputs.mask = RasterImage(width: 64, height: 64, channels: 1, pixels: (0..<64 * 64).map { $0 < 2048 ? 255 : 0 })
      inputs.strength = 1
    }
    let request = ImageRequest(
      model.card, prompt: "a red heart", negativePrompt: " ", trueCFGScale: 2, steps: 2, width: 64, height: 64, seed: 1)
    return try model(pipeline, request, inputs)
  }

  /// The published sizes, without writing them: tensors and values of a checkpoint are those of the release.
  @Test(arguments: releases) func publishedSizes(_ release: Release) throws {
    let directory = try TemporaryDirectory()
    for (path, data) in try QwenImageFamily.syntheticFiles(.published, release: release.name, withTokenizer: true) {
      let file = directory.url.appending(path: path)
      try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
      try data.write(to: file)
    }
    let family = try ModelDirectory(directory.url).qwenImage
    let counts = [ModelComponent.transformer, .vae, .textEncoder].map { component in
      family.inventory(of: component).parameters.reduce(0) { $0 + $1.shape.elementCount }
    }
    let isLayered = release.pipelines.contains(.layered)
    // The embedding of layers' second time, and the fourth channel in and out of the autoencoder.
    #expect(counts[0] == 20_430_401_088 + (isLayered ? 2 * 3072 : 0))
    #expect(counts[1] == 126_892_531 + (isLayered ? 96 * 27 + 96 * 27 + 1 : 0))
    #expect(counts[2] == 8_292_166_656 && family.vision == .published)
    let areas = try ModelDirectory(directory.url).card().references
    #expect(areas == (isLayered ? .layered : .published))
  }
}
