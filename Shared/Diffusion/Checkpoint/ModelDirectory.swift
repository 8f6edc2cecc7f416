import Foundation
import Weights

/// A checkpoint directory in the diffusers layout, with its configurations read and checked.
public struct ModelDirectory: Sendable {
  /// The directory that holds `model_index.json`.
  public let url: URL
  /// What reads it and builds its networks.
  public let family: any ModelFamily
  /// `scheduler/scheduler_config.json`.
  public let scheduler: SchedulerConfiguration

  /// Reads all configurations in `url` and checks that they fit together. Weights are opened by ``weights(of:)``.
  ///
  /// - Parameter families: those that can be read.
  public init(_ url: URL, families: ModelFamilies) throws(ConfigurationError) {
    try ModelLocation.check(url)
    self.url = url
    let index = try ModelIndex(contentsOf: url.appending(path: "model_index.json"))
    guard let family = families.family(of: index.className) else {
      throw index.unsupported(families.classNames)
    }
    try index.require("scheduler", oneOf: ["FlowMatchEulerDiscreteScheduler"])
    self.family = try family.init(contentsOf: url, index: index)
    var scheduler = try SchedulerConfiguration(contentsOf: url.appending(path: "scheduler/scheduler_config.json"))
    scheduler.shiftRule = self.family.shiftRule
    scheduler.sampleSigmas = self.family.sampleSigmas
    self.scheduler = scheduler
  }

  /// The pipeline class that the checkpoint is run as.
  public var className: String { family.className }

  /// The folder of a component.
  public func url(of component: ModelComponent) -> URL {
    url.appending(path: component == .tokenizer ? type(of: family).tokenizerFolder : component.rawValue)
  }

  /// Opens a component's weights; tensors have their published names, whichever names the files use.
  public func weights(of component: ModelComponent) throws(WeightsError) -> ComponentWeights {
    precondition(component != .tokenizer, "the tokenizer has no weights")
    return try type(of: family).weights(of: component, in: url(of: component))
  }
}
