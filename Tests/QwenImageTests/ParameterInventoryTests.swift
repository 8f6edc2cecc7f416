import Diffusion
import Foundation
import GoldenSupport
import ModelRegistry
import QwenImage
import Testing
import Weights

/// The inventory against the published models' parameter counts and against checkpoints the reference wrote.
@Suite struct ParameterInventoryTests {
  @Test func publishedParameterCounts() {
    #expect(ParameterInventory(transformer: .published).valueCount == 20_430_401_088)
    #expect(ParameterInventory(textEncoder: .published).valueCount == 8_292_166_656)
    #expect(ParameterInventory(vae: .published).valueCount == 126_892_531)
  }

  @Test func everyTensorOfTheReferenceCheckpointIsListed() throws {
    let model = try ModelDirectory(Golden.tinyCheckpoint)
    let inventories: [(ModelComponent, ParameterInventory)] = [
      (.transformer, ParameterInventory(transformer: model.qwenImage.transformer)),
      (.vae, ParameterInventory(vae: model.qwenImage.vae)),
    ]
    for (component, inventory) in inventories { try expectAll(inventory, in: model.weights(of: component)) }
  }

  @Test func everyTensorOfLayeredAndControlNetworksIsListed() throws {
    let tiny = golden.appending(path: "tiny")
    func weights(_ folder: String) throws -> ComponentWeights {
      try ComponentWeights(directory: tiny.appending(path: folder), baseName: "diffusion_pytorch_model")
    }
    let layered = "checkpoint-layered/transformer"
    try expectAll(
      ParameterInventory(
        transformer: TransformerConfiguration(contentsOf: tiny.appending(path: "\(layered)/config.json"))),
      in: weights(layered))
    for folder in ["controlnet", "controlnet-inpaint"] {
      try expectAll(
        ParameterInventory(
          controlNetwork: ControlNetworkConfiguration(contentsOf: tiny.appending(path: "\(folder)/config.json"))),
        in: weights(folder))
    }
  }

  private func expectAll(_ inventory: ParameterInventory, in weights: ComponentWeights) throws {
    #expect(weights.names == inventory.parameters.map(\.name).sorted())
    for parameter in inventory.parameters { _ = try weights.tensor(parameter.name, parameter.shape) }
  }
}
