import Diffusion
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
    for (component, inventory) in inventories {
      let weights = try model.weights(of: component)
      #expect(weights.names == inventory.parameters.map(\.name).sorted())
      for parameter in inventory.parameters { _ = try weights.tensor(parameter.name, parameter.shape) }
    }
  }
}
