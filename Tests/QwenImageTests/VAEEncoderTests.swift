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

private let compute = Compute(precision: .fp32, pool: ThreadPool(threads: 2))

/// An image that a recorded pipeline call encodes.
private struct EncodedImage: CustomTestStringConvertible, Sendable {
  let name: String
  /// Which of the call's images.
  var index = 0
  /// The draw that the posterior is sampled with; nil: its mean is taken.
  var draw: String?
  /// The pipeline's packed latents of the image, where they are recorded.
  var latents: String?
  /// The folder of the checkpoint.
  var checkpoint = "checkpoint"

  var testDescription: String { "\(name) \(index)" }

  static let all = [
    EncodedImage(name: "img2img", draw: "draw.0"),
    EncodedImage(name: "inpaint", draw: "draw.0", latents: "prepare_latents.2"),
    EncodedImage(name: "inpaint", index: 1, draw: "draw.2", latents: "prepare_mask_latents.1"),
    EncodedImage(name: "controlnet", draw: "draw.0"), EncodedImage(name: "edit", latents: "prepare_latents.1"),
    EncodedImage(name: "layered", latents: "prepare_latents.1", checkpoint: "checkpoint-layered"),
  ]

  func reference() throws -> RecordedCase { try RecordedCase(name) }

  /// The autoencoder of the call's checkpoint.
  func codec(_ parts: CodecParts) throws -> QwenImageCodec {
    let folder = golden.appending(path: "tiny/\(checkpoint)/vae")
    return try QwenImageCodec(
      ComponentWeights(directory: folder, baseName: "diffusion_pytorch_model"),
      configuration: VAEConfiguration(contentsOf: folder.appending(path: "config.json")), compute: compute,
      parts: parts)
  }
}

/// A recorded pipeline call.
private struct RecordedCase {
  let tensors: ReferenceTensors
  private let file: SafetensorsFile

  init(_ name: String) throws {
    tensors = try ReferenceTensors(Golden.reference("\(name).safetensors"))
    file = try SafetensorsFile(Golden.reference("\(name).safetensors"))
  }

  /// [1, C, 1, H, W], or [1, 1, C, H, W] → [C, H, W].
  func planes(_ name: String) throws -> Tensor {
    let tensor = try file.tensor(name), extents = tensor.shape.dimensions.filter { $0 > 1 }
    return tensor.reshaped([extents[0], extents[1], extents[2]])
  }

  /// [1, C, 1, H, W] → [H, W, C].
  func pixels(_ name: String) throws -> Tensor { pixelsLast(try planes(name)) }
}

/// [C, H, W] → [H, W, C].
private func pixelsLast(_ planes: Tensor) -> Tensor {
  let values = planes.floats(), plane = planes.shape[1] * planes.shape[2], channels = planes.shape[0]
  return Tensor(
    (0..<values.count).map { values[$0 % channels * plane + $0 / channels] },
    shape: [planes.shape[1], planes.shape[2], channels])
}

@Suite struct VAEEncoderTests {
  @Test func everyIntermediateAgreesInFP32() throws {
    let image = EncodedImage.all[0], reference = try image.reference(), recording = Recording()
    _ = try image.codec(.encoder).encode(
      reference.pixels("vae.encode0.in"), noise: reference.planes("draw.0"), probe: recording.probe.scoped("vae"))
    let isEncoders = { (name: String) in name.hasPrefix("vae.enc.") || name.hasPrefix("vae.encode0.") }
    #expect(reference.tensors.names.filter(isEncoders).count == 15)
    try expectAgreement(recording, with: reference.tensors, tolerance: 1e-4) { !isEncoders($0) }
  }

  /// Moments, and what the pipelines make of them: normalised samples or means.
  @Test(arguments: EncodedImage.all) private func latentsAgreeInFP32(_ image: EncodedImage) throws {
    let reference = try image.reference(), recording = Recording()
    let noise = try image.draw.map { try reference.planes($0) }
    let latents = try image.codec(.encoder).encode(
      reference.pixels("vae.encode\(image.index).in"), noise: noise, probe: recording.probe)
    let moments = try reference.tensors.floats("vae.encode\(image.index).moments")
    let error = relativeError(try #require(recording.tensor("encode0.moments")).floats(), moments)
    #expect(error <= 1e-4, "moments: relative error \(error)")

    let recorded = try image.latents.map { try reference.tensors.floats($0) }
    let expected = recorded ?? packed(moments, noise?.floats())
    let difference = relativeError(LatentPacking.pack(latents, patch: 2).floats(), expected)
    #expect(difference <= 1e-4, "latents: relative error \(difference)")
  }

  /// Packed latents of recorded moments, by the formula in double precision.
  private func packed(_ moments: [Float], _ noise: [Float]?) -> [Float] {
    let configuration = VAEConfiguration.published, count = moments.count / 2, plane = count / configuration.zDim
    let values = (0..<count).map { index in
      let deviation = exp(0.5 * min(max(Double(moments[count + index]), -30), 20))
      let sample = Double(moments[index]) + deviation * Double(noise?[index] ?? 0)
      let channel = index / plane
      return Float((sample - configuration.latentsMean[channel]) / configuration.latentsStd[channel])
    }
    // All recorded images without packed latents are of 64 × 96 pixels.
    return LatentPacking.pack(Tensor(values, shape: [configuration.zDim, 8, 12]), patch: 2).floats()
  }

  /// Image-to-image starts from σ·ε + (1 - σ)·z, with the posterior's sample z and the second draw ε.
  @Test func noisedLatentsOfImageToImageAgree() throws {
    let image = EncodedImage.all[0], reference = try image.reference()
    let sample = try image.codec(.encoder).encode(
      reference.pixels("vae.encode0.in"), noise: reference.planes("draw.0"), probe: .none)
    let clean = LatentPacking.pack(sample, patch: 2).floats()
    let noise = LatentPacking.pack(try reference.planes("draw.1"), patch: 2).floats()
    let noised = try reference.tensors.floats("prepare_latents.0"), sigmas = try reference.tensors.floats("sigmas")
    let errors = sigmas.map { sigma in
      relativeError(zip(noise, clean).map { sigma * $0 + (1 - sigma) * $1 }, noised)
    }
    #expect(errors.filter { $0 <= 1e-4 }.count == 1, "relative errors \(errors) at \(sigmas)")
  }

  @Test func imagesWithTransparencyAreDecoded() throws {
    let image = EncodedImage.all[5], configuration = VAEConfiguration.published
    let reference = try SafetensorsFile(Golden.reference("layered.safetensors"))
    let latents = try reference.tensor("vae.decode0.in"), pixels = try reference.tensor("vae.decode0.out")
    let codec = try image.codec(.decoder)
    #expect(latents.shape == [2, 16, 1, 8, 8] && pixels.shape == [2, 4, 1, 64, 64])
    for layer in 0..<2 {
      let values = latents.rows(layer..<layer + 1).floats()
      let normalised = values.indices.map {
        (values[$0] - Float(configuration.latentsMean[$0 / 64])) / Float(configuration.latentsStd[$0 / 64])
      }
      let planes = Tensor(normalised, shape: [16, 8, 8])
      let decoded = codec.decode(
        LatentPacking.pack(planes, patch: 2), grid: TokenGrid(height: 4, width: 4), probe: .none)
      let expected = pixelsLast(pixels.rows(layer..<layer + 1).reshaped([4, 64, 64])).floats()
      let error = relativeError(decoded.floats(), expected)
      #expect(decoded.shape == [64, 64, 4] && error <= 1e-4, "layer \(layer): relative error \(error)")
    }
  }

  /// Where ln σ² is out of range, σ is exp(½ · 20) or exp(½ · -30).
  @Test func logVariancesAreLimited() throws {
    let copy = try CheckpointCopy()
    try copy.merge(.vae) { file in
      let weight = try #require(file["quant_conv.weight"])
      file["quant_conv.weight"]?.bytes = [UInt8](repeating: 0, count: weight.bytes.count)
      let bias = (0..<32).map { Float($0 < 16 ? 0 : $0 % 2 == 0 ? 1000 : -1000) }
      file["quant_conv.bias"] = StoredTensor(
        dtype: "F32", shape: [32], bytes: bias.flatMap { value in withUnsafeBytes(of: value) { Array($0) } })
    }
    let model = try ModelDirectory(copy.url), configuration = model.qwenImage.vae
    let encoder = try VAEEncoder(model.weights(of: .vae), configuration: configuration, compute: compute)
    let noise = Tensor([Float](repeating: 1, count: 16), shape: [16, 1, 1])
    let latents = encoder(Tensor.zeros([8, 8, 3]), noise: noise).floats()
    for channel in 0..<16 {
      let deviation = exp(channel % 2 == 0 ? 10.0 : -15)
      let expected = (deviation - configuration.latentsMean[channel]) / configuration.latentsStd[channel]
      #expect(abs(Double(latents[channel]) - expected) <= 1e-5 * abs(expected), "channel \(channel)")
    }
  }
}

/// Loading one half of the autoencoder.
@Suite struct CodecPartsTests {
  @Test(arguments: [
    (absent: CodecParts.encoder, prefixes: ["encoder.", "quant_conv."]), (.decoder, ["decoder.", "post_quant_conv."]),
  ])
  func eitherHalfLoadsWithoutTheOther(absent: CodecParts, prefixes: [String]) throws {
    let copy = try CheckpointCopy()
    try copy.merge(.vae) { file in
      for name in file.tensors.map(\.name) where prefixes.contains(where: name.hasPrefix) { file[name] = nil }
    }
    let model = try ModelDirectory(copy.url), pool = ThreadPool(threads: 1), both: CodecParts = [.encoder, .decoder]
    _ = try model.family.codec(of: model, pool: pool, parts: both.subtracting(absent))
    for parts in [absent, both] {
      let error = #expect(throws: WeightsError.self) {
        try model.family.codec(of: model, pool: pool, parts: parts)
      }
      #expect(error.map { "\($0)".contains("vae/diffusion_pytorch_model.safetensors") } == true, "\(error as Any)")
    }
  }

  @Test func familyLoadsTheHalvesItIsAskedFor() throws {
    let model = try ModelDirectory(Golden.tinyCheckpoint), pool = ThreadPool(threads: 1)
    let image = EncodedImage.all[0], reference = try image.reference()
    let pixels = try reference.pixels("vae.encode0.in"), grid = TokenGrid(height: 4, width: 6)
    let both = try model.family.codec(of: model, pool: pool, parts: [.encoder, .decoder])
    let encoder = try model.family.codec(of: model, pool: pool, parts: .encoder)
    let decoder = try model.family.codec(of: model, pool: pool, parts: .decoder)
    let latents = both.encode(pixels, noise: nil, probe: .none), tokens = LatentPacking.pack(latents, patch: 2)
    #expect(latents.shape == [16, 8, 12])
    #expect(encoder.encode(pixels, noise: nil, probe: .none).floats() == latents.floats())
    #expect(
      decoder.decode(tokens, grid: grid, probe: .none).floats()
        == both.decode(tokens, grid: grid, probe: .none).floats())
    #expect(encoder.numericsClass == decoder.numericsClass)
  }

  @Test func halvesThatAreNotLoadedTrap() async throws {
    await #expect(processExitsWith: .failure) {
      let model = try ModelDirectory(Golden.tinyCheckpoint), pool = ThreadPool(threads: 1)
      _ = try model.family.codec(of: model, pool: pool, parts: .decoder)
        .encode(Tensor.zeros([16, 16, 3]), noise: nil, probe: .none)
    }
    await #expect(processExitsWith: .failure) {
      let model = try ModelDirectory(Golden.tinyCheckpoint), pool = ThreadPool(threads: 1)
      _ = try model.family.codec(of: model, pool: pool, parts: .encoder)
        .decode(Tensor.zeros([1, 64]), grid: TokenGrid(height: 1, width: 1), probe: .none)
    }
  }
}
