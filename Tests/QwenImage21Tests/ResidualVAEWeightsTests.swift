import Diffusion
import Foundation
import GoldenSupport
import Kernels
import QwenImage21
import TensorCore
import Testing
import Weights

/// The autoencoder's tensors: their names, shapes and types, and either half alone.
@Suite struct ResidualVAEWeightsTests {
  @Test func publishedParameters() {
    let parameters = ParameterInventory(residualVAE: .published).parameters
    func values(_ prefixes: String...) -> Int {
      parameters.filter { parameter in prefixes.contains { parameter.name.hasPrefix($0) } }
        .reduce(0) { $0 + $1.shape.elementCount }
    }
    #expect(parameters.count == 238 && Set(parameters.map(\.name)).count == 238)
    #expect(ParameterInventory(residualVAE: .published).valueCount == 337_740_404)
    #expect(values("encoder.") == 78_675_680 && values("decoder.") == 259_044_052)
    #expect(parameters.allSatisfy { !$0.isLinear })
    func shape(_ name: String) -> Shape? { parameters.first { $0.name == name }?.shape }
    #expect(shape("encoder.conv_in.weight") == [96, 4, 3, 3])
    #expect(shape("encoder.down_blocks.3.downsampler.time_conv.weight") == [768, 768, 1, 1])
    #expect(shape("encoder.down_blocks.3.resnets.0.conv_shortcut.weight") == [768, 384, 1, 1])
    #expect(shape("decoder.mid_block.attentions.0.to_qkv.weight") == [3456, 1152, 1, 1])
    #expect(shape("decoder.up_blocks.2.upsampler.resample.1.weight") == [576, 576, 3, 3])
    #expect(shape("decoder.up_blocks.2.upsampler.time_conv.weight") == [1152, 576, 1, 1])
    #expect(shape("decoder.up_blocks.3.upsampler.time_conv.weight") == nil)
    #expect(shape("decoder.norm_out.gamma") == [144, 1, 1, 1])
  }

  @Test func everyTensorOfTheReferenceCheckpointIsListed() throws {
    let inventory = ParameterInventory(residualVAE: try TinyAutoencoder.configuration())
    let weights = try TinyAutoencoder.weights()
    #expect(weights.names == inventory.parameters.map(\.name).sorted())
    for parameter in inventory.parameters { _ = try weights.tensor(parameter.name, parameter.shape) }
  }

  private static let halves: [(half: CodecParts, prefixes: [String])] = [
    (.encoder, ["encoder.", "quant_conv."]), (.decoder, ["decoder.", "post_quant_conv."]),
  ]

  /// Convolutions over time are used by neither half.
  private static func isUsed(_ name: String, by parts: CodecParts) -> Bool {
    !name.contains(".time_conv.")
      && halves.contains { half in parts.contains(half.half) && half.prefixes.contains(where: name.hasPrefix) }
  }

  @Test(arguments: [CodecParts.decoder, .encoder, [.decoder, .encoder]])
  func damagedTensorsAreRefused(parts: CodecParts) throws {
    try TinyAutoencoder.withCopy { folder in
      let target = DamageTarget(folder: folder, isUsed: { Self.isUsed($0, by: parts) }) {
        _ = try TinyAutoencoder.codec(parts, folder)
      }
      let counts = try target.damageEveryTensor()
      let used = (parts.contains(.decoder) ? 128 : 0) + (parts.contains(.encoder) ? 98 : 0)
      #expect(counts.tensors == 238 && counts.used == used, "\(counts)")
      #expect(counts.refused == counts.used * 8 + (counts.tensors - counts.used) * 2, "\(counts)")
    }
  }

  /// Tensors of several types in one file give what their values in fp32 give.
  @Test func everyTensorMayHaveATypeOfItsOwn() throws {
    let types = ["BF16", "F32", "F16"], call = try AutoencoderCase(name: "edit_rgba").load()
    let pixels = try Tensor(pixels: call.inputs[0].resized()), latents = try call.latents()[0]
    var results: [[Float]] = []
    for isWidened in [false, true] {
      try TinyAutoencoder.withCopy { file in
        for (index, (name, tensor)) in file.tensors.enumerated() {
          let rounded = tensor.converted(to: types[index % types.count])
          file[name] = isWidened ? rounded.converted(to: "F32") : rounded
        }
        #expect(Set(file.tensors.map(\.tensor.dtype)).count == (isWidened ? 1 : types.count))
      } _: { folder in
        let codec = try TinyAutoencoder.codec([.encoder, .decoder], folder)
        results.append(codec.encode(pixels, noise: nil, probe: .none).floats())
        results.append(codec.decode(latents, grid: call.grid, probe: .none).floats())
      }
    }
    #expect(results[0] == results[2] && results[1] == results[3])
  }

  @Test(arguments: halves) func eitherHalfLoadsWithoutTheOther(absent: CodecParts, prefixes: [String]) throws {
    let both: CodecParts = [.encoder, .decoder], present = both.subtracting(absent)
    let call = try AutoencoderCase(name: "edit_rgba").load()
    let whole = try TinyAutoencoder.codec(both)
    try TinyAutoencoder.withCopy { file in
      for name in file.tensors.map(\.name) where prefixes.contains(where: name.hasPrefix) { file[name] = nil }
    } _: { folder in
      let codec = try TinyAutoencoder.codec(present, folder)
      #expect(codec.numericsClass == whole.numericsClass)
      if present == .encoder {
        let pixels = try Tensor(pixels: call.inputs[0].resized())
        #expect(
          codec.encode(pixels, noise: nil, probe: .none).floats()
            == whole.encode(pixels, noise: nil, probe: .none).floats())
      } else {
        let latents = try call.latents()[0]
        #expect(
          codec.decode(latents, grid: call.grid, probe: .none).floats()
            == whole.decode(latents, grid: call.grid, probe: .none).floats())
      }
      for parts in [absent, both] {
        let error = #expect(throws: WeightsError.self) { try TinyAutoencoder.codec(parts, folder) }
        #expect(error.map { "\($0)".contains("vae/diffusion_pytorch_model.safetensors") } == true, "\(error as Any)")
      }
    }
  }

  @Test func halvesThatAreNotLoadedTrap() async throws {
    await #expect(processExitsWith: .failure) {
      _ = try TinyAutoencoder.codec(.decoder).encode(Tensor.zeros([16, 16, 4]), noise: nil, probe: .none)
    }
    await #expect(processExitsWith: .failure) {
      _ = try TinyAutoencoder.codec(.encoder)
        .decode(Tensor.zeros([1, 64]), grid: TokenGrid(height: 1, width: 1), probe: .none)
    }
  }

  @Test func imagesOfOtherSizesAndChannelsTrap() async throws {
    await #expect(processExitsWith: .failure) {
      _ = try TinyAutoencoder.codec(.encoder).encode(Tensor.zeros([16, 24, 4]), noise: nil, probe: .none)
    }
    await #expect(processExitsWith: .failure) {
      _ = try TinyAutoencoder.codec(.encoder).encode(Tensor.zeros([16, 16, 3]), noise: nil, probe: .none)
    }
  }
}
