import Diffusion
import Foundation
import GoldenSupport
import ImageCodec
import Kernels
import QwenImage21
import TensorCore
import Testing
import Weights

/// The autoencoder against recordings of the reference.
@Suite struct ResidualVAETests {
  @Test func everyIntermediateOfTheEncoderAgrees() throws {
    let call = try AutoencoderCase(name: "edit_rgba").load(), recording = Recording()
    let image = try call.inputs[0].resized()
    _ = try TinyAutoencoder.codec(.encoder).encode(
      Tensor(pixels: image), noise: nil, probe: recording.probe.scoped("vae"))
    let isEncoders = { (name: String) in name.hasPrefix("vae.enc.") || name.hasPrefix("vae.encode0.") }
    #expect(call.tensors.names.filter(isEncoders).count == 18)
    try expectAgreement(recording, with: call.tensors, tolerance: 1e-4) { !isEncoders($0) }
  }

  @Test func everyIntermediateOfTheDecoderAgrees() throws {
    let call = try AutoencoderCase(name: "t2i_64x64").load(), recording = Recording()
    _ = try TinyAutoencoder.codec(.decoder).decode(
      call.latents()[0], grid: call.grid, probe: recording.probe.scoped("vae"))
    let isDecoders = { (name: String) in name.hasPrefix("vae.dec.") || name.hasPrefix("vae.decode0.") }
    #expect(call.tensors.names.filter(isDecoders).count == 16)
    try expectAgreement(recording, with: call.tensors, tolerance: 1e-4) { !isDecoders($0) }
  }

  /// Pixels, moments and normalised latents of every image of every call.
  @Test(arguments: AutoencoderCase.all) func encodedImagesAgree(_ recorded: AutoencoderCase) throws {
    let call = try recorded.load(), codec = try TinyAutoencoder.codec(.encoder)
    var tokens: [Float] = []
    for (index, input) in call.inputs.enumerated() {
      let image = try input.resized(), recording = Recording()
      let resized = index == 0 ? "image.resized_u8" : "image.resized_u8#\(index)"
      if call.file.names.contains(resized) {
        let expected = try call.file.tensor(resized)
        #expect(
          expected.withElements(as: UInt8.self) { span in
            image.pixels.indices.allSatisfy { span[$0] == image.pixels[$0] }
          })
      }
      let latents = codec.encode(Tensor(pixels: image), noise: nil, probe: recording.probe)
      #expect(latents.shape == [64, input.grid.height, input.grid.width])
      for part in ["in", "moments"] where call.tensors.names.contains("vae.encode\(index).\(part)") {
        let error = relativeError(
          try #require(recording.tensor("encode0.\(part)")).floats(),
          try call.tensors.floats("vae.encode\(index).\(part)"))
        #expect(error <= 1e-4, "image \(index), \(part): relative error \(error)")
      }
      #expect(call.tensors.names.contains("vae.encode\(index).moments"))
      tokens += LatentPacking.pack(latents, patch: 1).floats()
    }
    guard !call.inputs.isEmpty else { return }
    // Batches have the same images for every prompt.
    let expected = try call.tensors.floats("prepare_latents.1")
    let error = relativeError((0..<expected.count / tokens.count).flatMap { _ in tokens }, expected)
    #expect(error <= 1e-4, "latents: relative error \(error)")
  }

  /// What the decoder is given, what it gives, and the images, all four channels.
  @Test(arguments: AutoencoderCase.all) func decodedImagesAgree(_ recorded: AutoencoderCase) throws {
    let call = try recorded.load(), codec = try TinyAutoencoder.codec(.decoder)
    #expect(codec.imageChannels == 4)
    let input = try call.file.tensor("vae.decode0.in")
    for (index, latents) in try call.latents().enumerated() {
      let recording = Recording()
      let pixels = codec.decode(latents, grid: call.grid, probe: recording.probe)
      #expect(pixels.shape == [16 * call.grid.height, 16 * call.grid.width, 4])
      let error = relativeError(
        try #require(recording.tensor("decode0.in")).floats(), input.rows(index..<index + 1).floats())
      #expect(error <= 1e-4, "image \(index), input: relative error \(error)")
      if call.tensors.names.contains("vae.decode0.out") {
        let error = relativeError(
          try #require(recording.tensor("decode0.out")).floats(), try call.tensors.floats("vae.decode0.out"))
        #expect(error <= 1e-4, "image \(index): relative error \(error)")
      }
      try expectSameImage(RasterImage(decoded: pixels), Golden.reference(call.files(recorded.name)[index]))
    }
  }

  /// (mean + exp(½ ln σ²) · ε - latentsMean) / latentsStd, in double precision.
  @Test func posteriorsAreSampled() throws {
    let call = try AutoencoderCase(name: "edit").load(), configuration = try TinyAutoencoder.configuration()
    let grid = call.inputs[0].grid, count = 64 * grid.tokenCount
    let noise = SyntheticWeights.uniforms("noise", count: count)
    let latents = try TinyAutoencoder.codec(.encoder).encode(
      Tensor(pixels: call.inputs[0].resized()), noise: Tensor(noise, shape: [64, grid.height, grid.width]),
      probe: .none)
    let moments = try call.tensors.floats("vae.encode0.moments")
    let expected = (0..<count).map { index in
      let deviation = exp(0.5 * min(max(Double(moments[count + index]), -30), 20)), channel = index / grid.tokenCount
      let sample = Double(moments[index]) + deviation * Double(noise[index])
      return Float((sample - configuration.latentsMean[channel]) / configuration.latentsStd[channel])
    }
    #expect(relativeError(latents.floats(), expected) <= 1e-4)
  }
}

/// Bands and threads change no byte.
@Suite struct ResidualVAEBandTests {
  /// Two configurations: the tiny one, and one whose shortcuts join and part other numbers of channels.
  private static let configurations: [ResidualVAEConfiguration] = {
    var tiny = ResidualVAEConfiguration.published
    (tiny.baseDim, tiny.decoderBaseDim) = (3, 4)
    var other = ResidualVAEConfiguration.published
    (other.baseDim, other.decoderBaseDim, other.zDim, other.resBlockCount) = (12, 20, 5, 1)
    (other.dimMultipliers, other.temporalDownsample) = ([2, 2, 4, 1], [true, true, false])
    (other.latentsMean, other.latentsStd) = ([0, 1, 2, 3, 4], [1, 2, 3, 4, 5])
    return [tiny, other]
  }()
  private static let bands = [(1, 2), (37, 3), (700, 1), (2500, 3), (1 << 30, 2)]

  private static func compute(_ threads: Int) -> Compute {
    Compute(precision: .fp32, pool: ThreadPool(threads: threads))
  }

  @Test(arguments: configurations) func decoder(_ configuration: ResidualVAEConfiguration) throws {
    let shape: Shape = [configuration.zDim, 5, 7]
    let latents = Tensor(SyntheticWeights.uniforms("input.latents", count: shape.elementCount), shape: shape)
    var expected: [Float]?
    for (pixels, threads) in Self.bands {
      let decoder = try ResidualVAEDecoder(
        .synthetic("vae"), configuration: configuration, compute: Self.compute(threads), bandPixels: pixels)
      let image = decoder(latents)
      #expect(image.shape == [5 * configuration.spatialScale, 7 * configuration.spatialScale, 4])
      expected = expected ?? image.floats()
      #expect(image.floats() == expected, "bands of \(pixels) pixels")
      #expect(decoder(latents, probe: Recording().probe).floats() == expected, "\(pixels) pixels, as a whole")
    }
  }

  @Test(arguments: configurations) func encoder(_ configuration: ResidualVAEConfiguration) throws {
    let scale = configuration.spatialScale, shape: Shape = [5 * scale, 7 * scale, 4]
    let pixels = Tensor(SyntheticWeights.uniforms("input.pixels", count: shape.elementCount), shape: shape)
    var expected: [Float]?
    for (bandPixels, threads) in Self.bands {
      let encoder = try ResidualVAEEncoder(
        .synthetic("vae"), configuration: configuration, compute: Self.compute(threads), bandPixels: bandPixels)
      let latents = encoder(pixels, noise: nil)
      #expect(latents.shape == [configuration.zDim, 5, 7])
      expected = expected ?? latents.floats()
      #expect(latents.floats() == expected, "bands of \(bandPixels) pixels")
      let whole = encoder(pixels, noise: nil, probe: Recording().probe)
      #expect(whole.floats() == expected, "\(bandPixels) pixels, as a whole")
    }
  }
}
