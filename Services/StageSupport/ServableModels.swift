import ClusterCore
import Diffusion
import Foundation
import ModelRegistry

/// The checkpoints that a worker can serve, one at a time.
struct ServableModels {
  /// Two directories hold the same model.
  struct Duplicate: Error, CustomStringConvertible {
    let directories: [String]
    let model: ModelIdentity

    var description: String {
      "model.standbyDirectories: \(directories.joined(separator: " and ")) hold the same model, \(model)"
    }
  }

  private var models: [(directory: String, card: ModelCard)] = []
  private var index = 0

  /// Reads what the checkpoints say of themselves, and no weights.
  ///
  /// - Throws: what is wrong with any of them, which is better known at start than when its turn comes.
  init(_ configuration: StageConfiguration) throws {
    for directory in [configuration.modelDirectory] + configuration.standbyDirectories {
      var card = try ModelDirectory(URL(filePath: directory)).card()
      card.pipelines.removeAll(where: \.isForControl)
      if let other = models.first(where: { $0.card.model == card.model }) {
        throw Duplicate(directories: [other.directory, directory], model: card.model)
      }
      models.append((directory, card))
    }
  }

  /// The checkpoint to load.
  var directory: String { models[index].directory }

  /// What the worker could load instead.
  var standbyCards: [ModelCard] { models.indices.filter { $0 != index }.map { models[$0].card } }

  /// The checkpoint is loaded: the card may say more than its directory did.
  mutating func loaded(_ card: ModelCard) { models[index].card = card }

  /// Makes a model the one to load; false: there is no such model.
  mutating func choose(_ model: ModelIdentity?) -> Bool {
    guard let index = models.firstIndex(where: { $0.card.model == model }) else { return false }
    self.index = index
    return true
  }
}
