import Foundation
import Kernels
import Weights

/// Writes checkpoints with random weights: for measuring speed and memory at any size without a download.
public enum SyntheticCheckpoint {
  /// Writes a checkpoint to `destination`, which appears when it is complete.
  ///
  /// - Parameters:
  ///   - precision: `bf16`, or `int8` or `q4` for a quantised checkpoint.
  ///   - isLaidOut: whether a checkpoint in bf16 is laid out for the kernels instead of written as it is published; quantised ones always are.
  ///   - tokenizer: a tokenizer directory to copy instead of making one.
  ///   - progress: called with the values written, and their total; it may throw to stop, which leaves nothing behind.
  /// - Throws: ``PipelineError/checkpoint(_:)``, `ConfigurationError`, `WeightsError`, or what `progress` throws.
  public static func write(
    _ configuration: SyntheticConfiguration, seed: UInt64, precision: Precision, isLaidOut: Bool = false,
    tokenizer: URL? = nil,
    to destination: URL, pool: ThreadPool, progress: (_ done: Int, _ total: Int) throws -> Void
  ) throws {
    precondition(precision != .fp32, "checkpoints are not written in fp32")
    let staged = try StagedDirectory.beside(destination)
    try CheckpointFiles.write(configuration, tokenizer: tokenizer, to: staged.url)
    let model = try ModelDirectory(staged.url)
    let mode = isLaidOut || precision != .bf16 ? precision : nil
    let plans = ModelComponent.withWeights.map { ($0, plan(model, $0, laidOutFor: mode)) }
    try requireRoom(plans.flatMap(\.1), in: staged.url)

    let packer = WeightPacker(compute: Compute(precision: .bf16, pool: pool)),
      source = RandomWeights(seed: seed, pool: pool)
    let total = plans.flatMap(\.1).reduce(0) { $0 + $1.shape.elementCount }
    var before = 0
    for (component, plan) in plans {
      let writer = ShardedWriter(
        model.url(of: component), baseName: component.weightsBaseName, packedFor: component == .vae ? nil : mode,
        tensorsMax: plan.count)
      _ = try packer.write(plan, from: source, to: writer) { try progress(before + $0, total) }
      _ = try writer.finish()
      before += plan.reduce(0) { $0 + $1.shape.elementCount }
    }
    try staged.commit()
  }

  private static func plan(_ model: ModelDirectory, _ component: ModelComponent, laidOutFor mode: Precision?)
    -> [PlannedTensor]
  {
    // The inventory knows the published vision tower only; smaller models do without one.
    let hasVision = model.textEncoder.hiddenSize == TextEncoderConfiguration.published.hiddenSize
    return model.inventory(of: component).parameters
      .filter { hasVision || !$0.name.hasPrefix("visual.") }
      .filter { mode == nil || !TextEncoderConfiguration.isUnused($0.name) }
      .map { $0.planned(for: mode) }
  }
}

extension ParameterDescription {
  /// What a checkpoint laid out for `mode` makes of this tensor; nil: a checkpoint as it is published. Modulations that are not quantised
  /// stay as they are, since they are laid out once per schedule; so do the layers that a quantised mode keeps in bf16.
  func planned(for mode: Precision?) -> PlannedTensor {
    guard let mode, isLinear else { return PlannedTensor(name, shape, .copied) }
    let precision = LayerPrecision.precision(of: name, in: mode)
    let isLaidOut = precision != .bf16 || mode == .bf16 && !LayerPrecision.isModulation(name)
    return PlannedTensor(name, shape, isLaidOut ? .packed(precision) : .copied)
  }
}

/// Refuses to begin what the disk cannot hold.
func requireRoom(_ plan: [PlannedTensor], in directory: URL) throws(PipelineError) {
  let needed = plan.reduce(0) { $0 + $1.packedBytes }
  guard let free = freeBytes(directory), free < needed + needed / 50 else { return }
  throw .checkpoint("\(directory.path): about \(needed / 1_000_000) MB are needed, \(free / 1_000_000) MB are free")
}

extension ModelComponent {
  /// The components with weights, small ones first.
  static let withWeights: [ModelComponent] = [.vae, .textEncoder, .transformer]

  /// What the names of the files with weights begin with.
  var weightsBaseName: String { self == .textEncoder ? "model" : "diffusion_pytorch_model" }
}
