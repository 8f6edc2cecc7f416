import ClusterCore
import Diffusion
import Foundation
import GoldenSupport
import Kernels
import ModelRegistry
import QwenImage
import TensorCore
import Testing
import Weights

private let pool = ThreadPool(threads: 2)
private let nano = golden.deletingLastPathComponent().deletingLastPathComponent().appending(
  path: "compose/models/nano-qwen-image")

/// A tiny synthetic checkpoint in `directory`.
private func synthesise(_ name: String, _ precision: Precision, in directory: borrowing TemporaryDirectory) throws
  -> URL
{
  let url = directory.url.appending(path: name)
  try writeTiny(precision, to: url) { _, _ in }
  return url
}

/// The latents of a small image after two steps.
private func latents(_ model: URL, _ loading: WeightLoading) throws -> [Float] {
  let directory = try ModelDirectory(model), grid = TokenGrid(height: 4, width: 4)
  let encoder = try directory.encoder(loading, pool: pool), denoiser = try directory.denoiser(loading, pool: pool)
  let noise = InitialNoise.torchCPU(seed: 1, grid: grid, directory.qwenImage.latents)
  let input = denoisingInput(try encoder.embeds("a red heart"), nil, noise, grid, steps: 2, scale: 1)
  return try denoiser(input).floats()
}

/// Writes a tiny synthetic checkpoint.
func writeTiny(_ precision: Precision, isPacked: Bool = false, to url: URL, progress: (Int, Int) throws -> Void) throws
{
  try SyntheticCheckpoint.write(
    .family(QwenImageFamily.self, .tiny), seed: 5, precision: precision, isPacked: isPacked, families: .standard,
    to: url,
    pool: ThreadPool(threads: 2), progress: progress)
}

private func names(in directory: URL) -> [String] {
  ((try? FileManager.default.subpathsOfDirectory(atPath: directory.path)) ?? []).sorted()
}

@Suite struct CheckpointTests {
  @Test(arguments: [Precision.bf16, .int8, .q4]) func syntheticCheckpointsLoadAndRun(_ precision: Precision) throws {
    let directory = try TemporaryDirectory(), model = try synthesise("m", precision, in: directory)
    let weights = try ModelDirectory(model).weights(of: .transformer)
    #expect(weights.packedPrecision == (precision == .bf16 ? nil : precision))
    let result = try latents(model, WeightLoading())
    #expect(result.allSatisfy(\.isFinite) && result.contains { abs($0) > 0.1 })
    // Quantised beforehand or while loading: the same bytes.
    let original = try synthesise("original", .bf16, in: directory)
    #expect(
      try latents(original, WeightLoading(precision: try #require(PrecisionChoice(rawValue: precision.rawValue))))
        == result)
    // Two of a seed are alike.
    let again = try synthesise("again", precision, in: directory)
    #expect(names(in: model) == names(in: again))
    for name in names(in: model) where name.contains(".") {
      #expect(
        try Data(contentsOf: model.appending(path: name)) == Data(contentsOf: again.appending(path: name)), "\(name)")
    }
  }

  @Test func configurationsMayComeFromACheckpoint() throws {
    let directory = try TemporaryDirectory(), model = directory.url.appending(path: "m")
    try SyntheticCheckpoint.write(
      .directory(Golden.tinyCheckpoint), seed: 1, precision: .bf16, families: .standard, to: model, pool: pool
    ) {
      _, _ in
    }
    #expect(try ModelDirectory(model).fingerprint == ModelDirectory(Golden.tinyCheckpoint).fingerprint)
    #expect(
      try ModelDirectory(model).componentFingerprint(.tokenizer)
        == ModelDirectory(Golden.tinyCheckpoint).componentFingerprint(.tokenizer))
    #expect(try latents(model, WeightLoading()).allSatisfy(\.isFinite))
  }

  @Test func stoppingLeavesNothing() throws {
    let directory = try TemporaryDirectory(), target = directory.url.appending(path: "m")
    #expect(throws: PipelineError.cancelled) {
      try writeTiny(.q4, to: target) { done, total in
        if done > total / 2 { throw PipelineError.cancelled }
      }
    }
    #expect(throws: PipelineError.cancelled) {
      _ = try QuantisedCheckpoint.write(ModelDirectory(nano), precision: .q4, to: target, pool: pool) { _, _ in
        throw PipelineError.cancelled
      }
    }
    #expect(names(in: directory.url).isEmpty)
    _ = try directory.write("mine", as: "m/file")
    let error = #expect(throws: PipelineError.self) {
      try writeTiny(.q4, to: target) { _, _ in }
    }
    #expect(error?.description.hasSuffix("m exists and is not empty") == true)
    #expect(names(in: directory.url) == ["m", "m/file"])
  }

  /// The VAE is copied, but not unseen.
  @Test func quantisingRefusesWhatWouldNotLoad() throws {
    let target = try TemporaryDirectory()
    for component in ModelComponent.all where component != .tokenizer {
      let copy = try CheckpointCopy()
      try copy.merge(component) { file in
        let names = ["decoder.norm_out.gamma", "transformer_blocks.1.attn.to_q.weight", "model.norm.weight"]
        let index = try #require(file.tensors.firstIndex { names.contains($0.name) })
        file.tensors[index].tensor.shape.insert(1, at: 0)
      }
      let error = #expect(throws: WeightsError.self) {
        _ = try QuantisedCheckpoint.write(
          ModelDirectory(copy.url), precision: .int8, to: target.url.appending(path: "m"), pool: pool
        ) { _, _ in }
      }
      guard case .misshapenTensor(let file, _, _, _)? = error else {
        Issue.record("\(component): \(String(describing: error))")
        continue
      }
      #expect(file.hasSuffix(CheckpointCopy.single(component)) && names(in: target.url).isEmpty)
    }
  }

  @Test(arguments: [Precision.int8, .q4]) func quantisingReportsEveryLayer(_ precision: Precision) throws {
    let directory = try TemporaryDirectory(), target = directory.url.appending(path: "m"),
      source = try ModelDirectory(nano)
    var last = (done: 0, total: 0)
    let report = try QuantisedCheckpoint.write(source, precision: precision, to: target, pool: pool) { last = ($0, $1) }
    #expect(last.done == last.total && last.total > 5_000_000)
    let layers = report.components.flatMap(\.layers)
    // Text encoder: 7 of the second layer. Transformer: 12 of each block but the first, and all modulations.
    #expect(layers.count == 7 + 4 * 12 + 5 * 2)
    #expect(layers.filter { $0.name.contains("_mod.") }.allSatisfy { $0.kept == "int8" })
    let bound = precision == .int8 ? 0.012 : 0.115
    #expect(layers.allSatisfy { $0.kept == $0.asked && $0.relativeError ?? 1 > 0.003 && $0.relativeError ?? 1 < bound })
    #expect(report.components.allSatisfy { $0.byteCount < $0.originalByteCount })
    let written = try JSONDecoder().decode(
      QuantisedCheckpoint.Report.self, from: Data(contentsOf: target.appending(path: "quantisation.json")))
    #expect(written.components.flatMap(\.layers) == layers)

    let choice = try #require(PrecisionChoice(rawValue: precision.rawValue))
    #expect(try latents(target, WeightLoading()) == latents(nano, WeightLoading(precision: choice)))
    #expect(throws: PipelineError.self) {
      _ = try QuantisedCheckpoint.write(
        ModelDirectory(target), precision: .q4, to: directory.url.appending(path: "twice"), pool: pool
      ) { _, _ in }
    }
  }

  @Test func layingOutInBF16ChangesNothing() throws {
    let directory = try TemporaryDirectory(), target = directory.url.appending(path: "m"),
      source = try ModelDirectory(nano)
    let report = try QuantisedCheckpoint.write(source, precision: .bf16, to: target, pool: pool) { _, _ in }
    let layers = report.components.flatMap(\.layers)
    // All of the text encoder's two layers, and of the transformer's five blocks what runs in every step.
    #expect(layers.count { $0.name.hasPrefix("model.layers.") } == 2 * 7)
    #expect(layers.count { $0.name.hasPrefix("transformer_blocks.") } == 5 * 12)
    #expect(layers.allSatisfy { $0.kept == "bf16" && $0.relativeError == nil && !$0.name.contains("_mod.") })
    let model = try ModelDirectory(target)
    #expect(
      try model.weights(of: .transformer).packedPrecision == .bf16 && model.weights(of: .vae).packedPrecision == nil)
    #expect(try latents(target, WeightLoading()) == latents(nano, WeightLoading(precision: .bf16)))
    #expect(throws: WeightsError.self) { _ = try model.open(.transformer, pool: pool, WeightLoading(precision: .int8)) }

    let synthetic = directory.url.appending(path: "synthetic")
    try writeTiny(.bf16, isPacked: true, to: synthetic) {
      _, _ in
    }
    #expect(try ModelDirectory(synthetic).weights(of: .textEncoder).packedPrecision == .bf16)
    #expect(
      try latents(synthetic, WeightLoading()) == latents(synthesise("plain", .bf16, in: directory), WeightLoading()))
  }

  @Test func quantisedCheckpointsRunInTheirModeOnly() throws {
    let directory = try TemporaryDirectory(), model = try ModelDirectory(synthesise("m", .q4, in: directory))
    for (choice, mode) in [(PrecisionChoice.auto, Precision.q4), (.q4, .q4)] {
      #expect(try model.open(.transformer, pool: pool, WeightLoading(precision: choice)).compute.precision == mode)
    }
    for choice in [PrecisionChoice.bf16, .int8, .fp32] {
      let error = #expect(throws: WeightsError.self) {
        _ = try model.open(.textEncoder, pool: pool, WeightLoading(precision: choice))
      }
      #expect(
        error?.description.contains("text_encoder is packed for q4 and cannot run in \(choice.rawValue)") == true)
    }
    #expect(try ModelDirectory(nano).open(.transformer, pool: pool, WeightLoading()).compute.precision == .bf16)
  }

  @Test(arguments: [PrecisionChoice.bf16, .int8, .q4]) func theCacheChangesNothing(_ choice: PrecisionChoice) throws {
    let directory = try TemporaryDirectory(), cache = directory.url.appending(path: "cache")
    let plain = try latents(nano, WeightLoading(precision: choice))
    for _ in 0..<2 {
      #expect(
        try latents(nano, WeightLoading(precision: choice, cache: .directory(cache.path), verifiesCache: true)) == plain
      )
    }
    let model = try ModelDirectory(nano)
    let weights = try model.open(
      .transformer, pool: pool, WeightLoading(precision: choice, cache: .directory(cache.path))
    ).weights
    #expect(weights.isPacked("transformer_blocks.1.attn.to_q.weight"))
    #expect(weights.isPacked("transformer_blocks.1.img_mod.1.weight") == (choice != .bf16))
    #expect(names(in: cache).filter { $0.hasSuffix("manifest.json") }.count == 2)
  }

  @Test func aCacheThatCannotBeWrittenIsDoneWithout() throws {
    let reports = Reports()
    let loading = WeightLoading(precision: .int8, cache: .directory("/proc/nothing"), report: { reports.add($0) })
    #expect(try latents(nano, loading) == latents(nano, WeightLoading(precision: .int8)))
    #expect(
      reports.all.count == 2
        && reports.all.allSatisfy { $0.contains("/proc/nothing") && $0.hasSuffix("continuing without it") })
    #expect(WeightLoading.CacheLocation("none") == .none && WeightLoading.CacheLocation("auto") == .besideModel)
  }
}

/// The quantised modes in whole models.
@Suite struct ModeTests {
  /// Measured: tiny 3.7e-3, 9.9e-3, 5.9e-2; nano 7.9e-3, 6.9e-2, 0.16.
  @Test(arguments: [
    (Golden.tinyCheckpoint, "a red heart", [0.006, 0.02, 0.1]), (nano, "a blue star", [0.02, 0.1, 0.2]),
  ]) func transformerOutputStaysNearFP32(_ model: URL, _ prompt: String, _ bounds: [Double]) throws {
    let request = ImageRequest(
      prompt: prompt, negativePrompt: " ", trueCFGScale: 3, steps: 4, size: ImageSize(widthPx: 64, heightPx: 64),
      seed: 3)
    let rows = try ModeAccuracy.measure(
      ModelDirectory(model), request: request, precisions: [.bf16, .int8, .q4], pool: pool)
    #expect(rows.map(\.precision) == [.bf16, .int8, .q4])
    for (row, bound) in zip(rows, bounds) { #expect(row.velocity > 0 && row.velocity < bound, "\(row)") }
    #expect(rows[0].velocity < rows[1].velocity && rows[1].velocity < rows[2].velocity)
    #expect(
      rows[0].promptEmbeds < rows[1].promptEmbeds && rows[1].promptEmbeds < rows[2].promptEmbeds
        && rows[2].promptEmbeds < 0.25)
  }

  @Test func layersInQ4RotateTheirInputs() {
    let layers = QwenImageFamily.layers
    #expect(layers.rotates(at: .q4, stored: nil) && layers.rotates(at: .q4, stored: .q4K))
    #expect(!layers.rotates(at: .q4, stored: .q4_0) && !layers.rotates(at: .int8, stored: nil))
  }

  @Test func theRuleKeepsEntrancesExitsAndFirstLayers() {
    for mode in [Precision.int8, .q4] {
      for name in [
        "img_in.weight", "txt_in.weight", "proj_out.weight", "norm_out.linear.weight",
        "time_text_embed.timestep_embedder.linear_1.weight",
        "transformer_blocks.0.attn.to_q.weight", "model.layers.0.mlp.down_proj.weight", "lm_head.weight",
        "visual.blocks.3.attn.qkv.weight",
      ] { #expect(QwenImageFamily.layers.precision(of: name, in: mode) == .bf16, "\(name)") }
      for name in [
        "transformer_blocks.10.attn.to_q.weight", "transformer_blocks.59.txt_mlp.net.2.weight",
        "model.layers.27.mlp.up_proj.weight",
      ] {
        #expect(QwenImageFamily.layers.precision(of: name, in: mode) == mode, "\(name)")
      }
      #expect(QwenImageFamily.layers.precision(of: "transformer_blocks.0.img_mod.1.weight", in: mode) == .int8)
    }
    #expect(QwenImageFamily.layers.precision(of: "transformer_blocks.1.img_mod.1.weight", in: .bf16) == .bf16)
    // 13.6 billion parameters of the blocks, all but the first block's, and 6.8 of modulations.
    let quantised = ParameterInventory(transformer: .published).parameters.filter {
      $0.isLinear && QwenImageFamily.layers.precision(of: $0.name, in: .int8) != .bf16
    }
    let modulations = quantised.filter { $0.name.contains("_mod.") }.reduce(0) { $0 + $1.shape.elementCount }
    #expect(modulations == 60 * 2 * 6 * 3072 * 3072)
    #expect(quantised.reduce(0) { $0 + $1.shape.elementCount } == modulations + 59 * 24 * 3072 * 3072)
  }

  @Test func everyModeHasANumericsClassOfItsOwn() throws {
    let classes = try PrecisionChoice.allCases.map {
      try ModelDirectory(nano).denoiser(WeightLoading(precision: $0), pool: pool).predictor.numericsClass
    }
    let plain = PrecisionChoice.precisionOfPlainWeights(on: .best) == .bf16 ? classes[2] : classes[3]
    #expect(Set(classes).count == 4 && classes[0] == plain, "auto is another mode here: \(classes)")
    #expect(classes[3].hasPrefix("int8/") && classes[3].hasSuffix("/layers-\(QwenImageFamily.layers.version)"))
  }
}
