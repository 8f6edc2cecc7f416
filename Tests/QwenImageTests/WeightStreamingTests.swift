import Diffusion
import Foundation
import GoldenSupport
import Kernels
import ModelRegistry
import QwenImage
import TensorCore
import Testing
import Weights

@Suite struct WeightStreamingTests {
  private static let pool = ThreadPool(threads: 2)
  private static let nano = golden.deletingLastPathComponent().deletingLastPathComponent()
    .appending(path: "compose/models/nano-qwen-image")

  /// The small model, packed for `precision`.
  private func packed(_ precision: Precision, in directory: URL) throws -> ModelDirectory {
    let url = directory.appending(path: "m")
    _ = try QuantisedCheckpoint.write(ModelDirectory(Self.nano), precision: precision, to: url, pool: Self.pool) {
      _, _ in
    }
    return try ModelDirectory(url)
  }

  /// The latents of a small image with guidance, and what was reported while the model was loaded.
  private func latents(_ model: ModelDirectory, residentMax: Int) throws -> (latents: [Float], reports: [String]) {
    let reports = Reports(), grid = TokenGrid(height: 4, width: 4)
    let loading = WeightLoading(residentMax: residentMax, report: { reports.add($0) })
    let encoder = try model.encoder(loading, pool: Self.pool), denoiser = try model.denoiser(loading, pool: Self.pool)
    let noise = InitialNoise.torchCPU(seed: 1, grid: grid, model.qwenImage.latents)
    let input = denoisingInput(
      try encoder.embeds("a red heart"), try encoder.embeds("a square"), noise, grid, steps: 3, scale: 2)
    return (try denoiser(input).floats(), reports.all)
  }

  @Test(arguments: [Precision.bf16, .q4]) func imagesDoNotDependOnIt(_ precision: Precision) throws {
    let directory = try TemporaryDirectory(), model = try packed(precision, in: directory.url)
    let whole = try latents(model, residentMax: .max)
    #expect(whole.reports.isEmpty)
    for residentMax in [1, 500_000] {
      let streamed = try latents(model, residentMax: residentMax)
      #expect(streamed.latents == whole.latents)
      #expect(streamed.reports.last?.hasPrefix("transformer: ") == true)
      #expect(streamed.reports.allSatisfy { $0.hasSuffix("do not fit into memory and are read in every pass") })
      if residentMax == 1 { #expect(streamed.reports.first?.hasPrefix("text_encoder: ") == true) }
    }
  }

  /// With images as input: references and control images.
  @Test(arguments: [Precision.bf16, .int8]) func imagesMadeFromOthersDoNotDependOnIt(_ precision: Precision) throws {
    let directory = try TemporaryDirectory(), model = try packed(precision, in: directory.url)
    let compute = Compute(precision: precision, pool: Self.pool), grid = TokenGrid(height: 4, width: 3)
    let network = try ControlNetwork(
      .synthetic("control"), configuration: try controlConfiguration(of: model, in: directory), compute: compute)
    func uniforms(_ name: String, _ rows: Int, _ columns: Int) -> Tensor {
      Tensor(SyntheticWeights.uniforms(name, count: rows * columns), shape: [rows, columns])
    }
    var input = denoisingInput(
      uniforms("prompt", 9, 128), uniforms("negative", 4, 128), uniforms("latents", 12, 64), grid, steps: 2, scale: 3)
    var inputs = [input, input]
    inputs[0].references = [ReferenceLatents(latents: uniforms("other", 10, 64), grid: TokenGrid(height: 2, width: 5))]
    inputs[1].controls = [ControlInput(latents: uniforms("control", 12, 64), scale: 0.7)]
    input.latents = uniforms("others", 12, 64)
    func latents(residentMax: Int?) throws -> [[Float]] {
      let transformer = try MMDiT(
        model.weights(of: .transformer), configuration: model.qwenImage.transformer, compute: compute,
        residentMax: residentMax, controlNetworks: [network])
      #expect((transformer.streaming == nil) == (residentMax == nil))
      let denoise = Denoiser(transformer, scheduler: model.scheduler, guidance: model.family.guidance)
      return try (inputs + [input]).map { try denoise($0).floats() }
    }
    let whole = try latents(residentMax: nil)
    #expect(try latents(residentMax: 1) == whole && Set(whole).count == 3)
  }

  /// A control network of three blocks for the model.
  private func controlConfiguration(
    of model: ModelDirectory, in directory: borrowing TemporaryDirectory
  ) throws -> ControlNetworkConfiguration {
    let file = model.url(of: .transformer).appending(path: "config.json")
    let text = try String(contentsOf: file, encoding: .utf8)
      .replacingOccurrences(of: "QwenImageTransformer2DModel", with: "QwenImageControlNetModel")
      .replacingOccurrences(of: "\"num_layers\": 5", with: "\"num_layers\": 3")
    return try ControlNetworkConfiguration(contentsOf: directory.write(text, as: "control.json"))
  }

  @Test func asManyLayersStayAsFit() throws {
    let directory = try TemporaryDirectory(), model = try packed(.bf16, in: directory.url)
    let weights = try model.weights(of: .transformer), compute = Compute(precision: .bf16, pool: Self.pool)
    func streaming(_ residentMax: Int?) throws -> WeightStreaming? {
      try MMDiT(weights, configuration: model.qwenImage.transformer, compute: compute, residentMax: residentMax)
        .streaming
    }
    let all = try #require(try streaming(0)), block = all.byteCount / 5
    #expect(all.streamed == [0, 1, 2, 3, 4])
    #expect(try streaming(nil) == nil && streaming(all.byteCount) == nil)
    // One byte less than all: two stay, beside the one that is computed and the one that is read.
    #expect(try streaming(all.byteCount - 1)?.byteCount == 3 * block)
    #expect(try streaming(3 * block)?.streamed.count == 4)
    #expect(try streaming(2 * block)?.streamed.count == 5)
    // Weights that are packed in memory stay there.
    let plain = try ModelDirectory(Self.nano)
    #expect(
      try MMDiT(
        plain.weights(of: .transformer), configuration: plain.qwenImage.transformer, compute: compute, residentMax: 0
      )
      .streaming == nil)
  }

  @Test func anyFewLayersLieEvenly() {
    let order = WeightStreaming.spread(60)
    #expect(order.sorted() == Array(0..<60))
    for count in 2...30 {
      let chosen = order.prefix(count).sorted()
      let gaps = zip(chosen, chosen.dropFirst() + [chosen[0] + 60]).map { $1 - $0 }
      #expect(gaps.max()! <= 2 * 60 / count + 2, "\(count): \(gaps)")
    }
  }
}
