import Diffusion
import Foundation
import GoldenSupport
import Kernels
import QwenImage
import TensorCore
import Testing
import Weights

/// Modules at their published sizes, with weights both sides compute from a formula (Tests/Golden/make_fullsize.py).
@Suite(.serialized) struct FullSizeTests {
  private static let stride = 61

  @Test(arguments: [Precision.fp32, .bf16]) func transformerBlock(precision: Precision) throws {
    var configuration = TransformerConfiguration.published
    configuration.layerCount = 1
    let grid = TokenGrid(height: 18, width: 22)
    let transformer = try MMDiT(
      .synthetic("transformer"), configuration: configuration, compute: compute(precision))
    let recording = Recording()
    let promptEmbeds = Tensor(SyntheticWeights.uniforms("input.prompt_embeds", count: 45 * 3584), shape: [45, 3584])
    let latents = Tensor(
      SyntheticWeights.uniforms("input.latents", count: grid.tokenCount * 64), shape: [grid.tokenCount, 64])
    let branch = MMDiT.Branch(
      latents: latents, conditioning: transformer.condition(promptEmbeds: promptEmbeds, grid: grid),
      modulation: transformer.modulation(times: [0.7]), step: 0)
    _ = transformer(branch, probe: recording.probe)
    try compare(recording, "fullsize_transformer", precision)
  }

  @Test(arguments: [Precision.fp32, .bf16]) func textEncoderLayer(precision: Precision) throws {
    var configuration = TextEncoderConfiguration.published
    configuration.layerCount = 1
    configuration.vocabularySize = 1024
    let model = try LanguageModel(
      .synthetic("text_encoder"), configuration: configuration, compute: compute(precision))
    let recording = Recording()
    _ = model((0..<77).map { $0 * 37 % 1024 }, probe: recording.probe)
    try compare(recording, "fullsize_text_encoder", precision)
  }

  /// A block of each kind. Quantised modes compute the tower in bf16.
  @Test(arguments: [Precision.fp32, .bf16, .int8]) func visionTower(precision: Precision) throws {
    var configuration = VisionConfiguration.published
    configuration.depth = 2
    configuration.fullAttentionBlocks = [1]
    let tower = try VisionTower(.synthetic("text_encoder"), configuration: configuration, compute: compute(precision))
    let grid = TokenGrid(height: 18, width: 22), recording = Recording()
    let pixels = Tensor(
      SyntheticWeights.uniforms("input.pixels", count: grid.tokenCount * 1176), shape: [grid.tokenCount, 1176])
    _ = tower([PatchedImage(patches: pixels, grid: grid)], probe: recording.probe)
    try compare(recording, "fullsize_vision", precision)
  }

  @Test func vaeDecoder() throws {
    let decoder = try VAEDecoder(.synthetic("vae"), configuration: .published, compute: compute(.fp32))
    let recording = Recording()
    _ = decoder(
      Tensor(SyntheticWeights.uniforms("input.latents", count: 16 * 12 * 20), shape: [16, 12, 20]),
      probe: recording.probe)
    try compare(recording, "fullsize_vae_decoder", .fp32)
  }

  /// Images made in bands of any height, or layer by layer as a whole, have the same bytes.
  @Test func vaeDecoderInBands() throws {
    let latents = Tensor(SyntheticWeights.uniforms("input.latents", count: 16 * 13 * 9), shape: [16, 13, 9])
    var expected: [Float]?
    for (pixels, threads) in [(1, 2), (700, 1), (2500, 3), (1 << 30, 2)] {
      let decoder = try VAEDecoder(
        .synthetic("vae"), configuration: .published,
        compute: Compute(precision: .fp32, pool: ThreadPool(threads: threads)),
        bandPixels: pixels)
      let image = decoder(latents)
      #expect(image.shape == [104, 72, 3])
      expected = expected ?? image.floats()
      #expect(image.floats() == expected, "bands of \(pixels) pixels")
      if pixels == 700 { #expect(decoder(latents, probe: Recording().probe).floats() == expected, "as a whole") }
    }
  }

  @Test func vaeEncoder() throws {
    let encoder = try VAEEncoder(.synthetic("vae"), configuration: .published, compute: compute(.fp32))
    let recording = Recording()
    _ = encoder(
      Tensor(SyntheticWeights.uniforms("input.pixels", count: 80 * 112 * 3), shape: [80, 112, 3]), noise: nil,
      probe: recording.probe)
    try compare(recording, "fullsize_vae_encoder", .fp32)
  }

  @Test func vaeEncoderInBands() throws {
    let pixels = Tensor(SyntheticWeights.uniforms("input.pixels", count: 104 * 72 * 3), shape: [104, 72, 3])
    var expected: [Float]?
    for (bandPixels, threads) in [(1, 2), (700, 1), (2500, 3), (1 << 30, 2)] {
      let encoder = try VAEEncoder(
        .synthetic("vae"), configuration: .published,
        compute: Compute(precision: .fp32, pool: ThreadPool(threads: threads)), bandPixels: bandPixels)
      let latents = encoder(pixels, noise: nil)
      #expect(latents.shape == [16, 13, 9])
      expected = expected ?? latents.floats()
      #expect(latents.floats() == expected, "bands of \(bandPixels) pixels")
      if bandPixels == 700 {
        let recording = Recording()
        #expect(encoder(pixels, noise: nil, probe: recording.probe).floats() == expected, "as a whole")
      }
    }
  }

  private func compute(_ precision: Precision) -> Compute {
    Compute(precision: precision, pool: ThreadPool(threads: 2))
  }

  /// fp32 within 1e-4; other precisions within 1.5 times torch's bf16 error, as recorded.
  private func compare(_ recording: Recording, _ name: String, _ precision: Precision) throws {
    let reference = try ReferenceTensors(golden.appending(path: "fullsize/\(name).safetensors"))
    var compared = 0
    for (tensorName, tensor) in recording.all where reference.names.contains("bf16.\(tensorName)") {
      let values = tensor.floats()
      let samples = Swift.stride(from: 0, to: values.count, by: Self.stride).map { values[$0] }
      let error = relativeError(samples, try reference.floats(tensorName))
      let tolerance = precision == .fp32 ? 1e-4 : 1.5 * Double(try reference.floats("bf16.\(tensorName)")[0])
      try #require(
        error <= tolerance,
        "first diverging tensor: \(tensorName) \(tensor.shape), relative error \(error), limit \(tolerance)")
      compared += 1
    }
    #expect(compared == reference.names.filter { $0.hasPrefix("bf16.") }.count)
  }
}
