import ClusterCore
import Diffusion
import Foundation
import GoldenSupport
import Kernels
import QwenImage21
import TensorCore
import Testing
import Weights

/// Adapters beside the weights of the second family's network, against diffusers and PEFT.
@Suite struct AdapterTests {
  private static let folder = golden.appending(path: "adapters")

  private func style() throws -> AdapterSet {
    try AdapterSet([(adapter: Adapter(Self.folder.appending(path: "style21.safetensors")), scale: 1.1)])
  }

  private func adapter(_ tensors: [String: Tensor], in directory: URL) throws -> AdapterSet {
    let url = directory.appending(path: "a.safetensors")
    try SafetensorsWriter.write(tensors.map { (name: $0.key, tensor: $0.value) }, to: url)
    return try AdapterSet([(adapter: Adapter(url), scale: 1)])
  }

  @Test(arguments: [true, false]) func agreesWithTheReferenceInFP32(_ usesPrefixCache: Bool) throws {
    let recorded = try DenoisingCase("t2i_64x64_nocache")
    let reference = try ReferenceTensors(Self.folder.appending(path: "reference.safetensors"))
    let network = try recorded.transformer(.fp32, usesPrefixCache: usesPrefixCache).adapted(by: try style())
    let latents = try Denoiser(network, scheduler: try recorded.scheduler(), guidance: .plain)(try recorded.input())
    let error = relativeError(latents.floats(), try reference.floats("style21.latents"))
    #expect(error <= 1e-4, "\(error)")
  }

  /// What is kept of a prompt depends on the adapters too.
  @Test func keptKeysAndValuesAreNotSharedAmongSets() throws {
    let recorded = try DenoisingCase("t2i_64x64"), input = try recorded.input()
    let plain = try recorded.transformer(.bf16, prefixCacheKeptBytesMax: 1 << 24)
    func latents(_ network: SingleStreamTransformer) throws -> [Float] {
      try Denoiser(network, scheduler: try recorded.scheduler(), guidance: .plain)(input).floats()
    }
    let fresh = try latents(recorded.transformer(.bf16).adapted(by: try style())), before = try latents(plain)
    #expect(plain.keptBytes > 0)
    #expect(try latents(plain.adapted(by: try style())) == fresh)
    #expect(try latents(plain.adapted(by: try style())) == fresh)
    #expect(try latents(plain.adapted(by: .none)) == before)
  }

  @Test func everyLayerIsReached() throws {
    let recorded = try DenoisingCase("t2i_64x64_nocache"),
      plain = try recorded.transformer(.fp32, usesPrefixCache: false)
    let directory = try TemporaryCheckpoint(empty: true)
    func recording(_ network: SingleStreamTransformer) throws -> [[Float]] {
      let recording = Recording()
      var input = try recorded.input()
      input.steps = 1
      _ = try Denoiser(network, scheduler: try recorded.scheduler(), guidance: .plain)(input, probe: recording.probe)
      return recording.all.map { $0.tensor.floats() }
    }
    let before = try recording(plain)
    let layers = ParameterInventory(singleStream: plain.configuration).parameters.filter(\.isLinear)
    #expect(layers.count == 8 + 7 * plain.configuration.layerCount)
    for (index, layer) in layers.enumerated() {
      let name = layer.name.dropLast(".weight".count)
      let set = try adapter(
        [
          "\(name).lora_A.weight": Self.numbers([1, layer.shape[1]], index),
          "\(name).lora_B.weight": Self.numbers([layer.shape[0], 1], index + 100),
        ], in: directory.url)
      #expect(try recording(plain.adapted(by: set)) != before, "\(name)")
    }
  }

  /// The entrance of the MLP as one layer, as ComfyUI has it, is the two that diffusers has.
  @Test func fusedLayersAreDivided() throws {
    let directory = try TemporaryCheckpoint(empty: true), recorded = try DenoisingCase("t2i_64x64")
    let plain = try recorded.transformer(.fp32), block = "transformer_blocks.1.img_mlp"
    let dim = plain.configuration.innerDim, hidden = plain.configuration.mlpDim
    let down = Self.numbers([2, dim], 1), up = Self.numbers([2 * hidden, 2], 2)
    let fused = try adapter(
      ["diffusion_model.\(block).gate_up.lora_A.weight": down, "diffusion_model.\(block).gate_up.lora_B.weight": up],
      in: directory.url)
    func latents(_ set: AdapterSet) throws -> [Float] {
      let network = try plain.adapted(by: set)
      return try Denoiser(network, scheduler: try recorded.scheduler(), guidance: .plain)(try recorded.input()).floats()
    }
    let found = try latents(fused)
    let divided = try adapter(
      [
        "\(block).gate_layer.lora_A.weight": down, "\(block).gate_layer.lora_B.weight": up.rows(0..<hidden),
        "\(block).proj.lora_A.weight": down, "\(block).proj.lora_B.weight": up.rows(hidden..<2 * hidden),
      ], in: directory.url)
    #expect(try found == latents(divided))
    #expect(try found != latents(.none))
  }

  private static func numbers(_ shape: Shape, _ seed: Int) -> Tensor {
    let values = SyntheticWeights.uniforms("adapter.\(seed)", count: shape.elementCount)
    return Tensor(values, shape: shape)
  }
}
