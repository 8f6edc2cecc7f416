import Foundation
import Weights

/// A checkpoint directory in the diffusers layout, or one whose `model.json` says where the parts are, with its
/// configurations read and checked.
public struct ModelDirectory: Sendable {
  /// The directory that holds `model_index.json` or `model.json`.
  public let url: URL
  /// The directory with the configurations and the tokenizer: `url`, unless `model.json` names another one.
  public let base: URL
  /// Weights that are not in the base's folders.
  private let sources: [ModelComponent: ComponentSource]
  /// What reads it and builds its networks.
  public let family: any ModelFamily
  /// `scheduler/scheduler_config.json`.
  public let scheduler: SchedulerConfiguration

  /// Reads all configurations in `url` and checks that they fit together. Weights are opened by ``weights(of:)``.
  ///
  /// - Parameter families: those that can be read.
  public init(_ url: URL, families: ModelFamilies) throws(ConfigurationError) {
    let parts = try ModelSources(url), base = parts.base
    try ModelLocation.check(base)
    self.url = url
    self.base = base
    sources = parts.components
    let index = try ModelIndex(contentsOf: base.appending(path: "model_index.json"))
    guard let family = families.family(of: index.className) else {
      throw index.unsupported(families.classNames)
    }
    try index.require("scheduler", oneOf: ["FlowMatchEulerDiscreteScheduler"])
    self.family = try family.init(contentsOf: base, index: index)
    var scheduler = try SchedulerConfiguration(contentsOf: base.appending(path: "scheduler/scheduler_config.json"))
    scheduler.shiftRule = self.family.shiftRule
    scheduler.sampleSigmas = self.family.sampleSigmas
    scheduler.lightningShift = self.family.lightningShift
    self.scheduler = scheduler
  }

  /// The pipeline class that the checkpoint is run as.
  public var className: String { family.className }

  /// The folder of a component, with its configuration.
  public func url(of component: ModelComponent) -> URL {
    base.appending(path: component == .tokenizer ? type(of: family).tokenizerFolder : component.rawValue)
  }

  /// Where a component's weights are.
  public func source(of component: ModelComponent) -> ComponentSource {
    sources[component] ?? .folder(url(of: component))
  }

  /// Opens a component's weights; tensors have their published names, whichever names the files use.
  public func weights(of component: ModelComponent) throws(WeightsError) -> ComponentWeights {
    precondition(component != .tokenizer, "the tokenizer has no weights")
    return try type(of: family).weights(of: component, from: source(of: component))
  }
}
