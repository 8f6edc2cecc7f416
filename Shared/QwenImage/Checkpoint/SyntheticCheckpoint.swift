import Foundation
import Kernels
import Weights

/// Writes checkpoints with random weights: for measuring speed and memory at any size without a download.
public enum SyntheticCheckpoint {
  /// Writes a checkpoint to `destination`, which appears when it is complete.
  ///
  /// - Parameters:
  ///   - precision: `bf16` for a checkpoint as it is published, `int8` or `q4` for a quantised one.
  ///   - tokenizer: a tokenizer directory to copy instead of making one.
  ///   - progress: called with the values written, and their total; it may throw to stop, which leaves nothing behind.
  /// - Throws: ``PipelineError/checkpoint(_:)``, `ConfigurationError`, `WeightsError`, or what `progress` throws.
  public static func write(
    _ configuration: SyntheticConfiguration, seed: UInt64, precision: Precision, tokenizer: URL? = nil, to destination: URL,
    pool: ThreadPool, progress: (_ done: Int, _ total: Int) throws -> Void
  ) throws {
    precondition(precision != .fp32, "checkpoints are not written in fp32")
    let staged = try StagedDirectory.beside(destination)
    try CheckpointFiles.write(configuration, tokenizer: tokenizer, to: staged.url)
    let model = try ModelDirectory(staged.url)
    let plans = ModelComponent.withWeights.map { ($0, plan(model, $0, precision)) }
    try requireRoom(plans.flatMap(\.1), in: staged.url)

    let packer = WeightPacker(compute: Compute(precision: .bf16, pool: pool)), source = RandomWeights(seed: seed, pool: pool)
    let total = plans.flatMap(\.1).reduce(0) { $0 + $1.shape.elementCount }
    var before = 0
    for (component, plan) in plans {
      let isPacked = precision != .bf16 && component != .vae
      let writer = ShardedWriter(
        model.url(of: component), baseName: component.weightsBaseName, packedFor: isPacked ? precision : nil, tensorsMax: plan.count)
      _ = try packer.write(plan, from: source, to: writer) { try progress(before + $0, total) }
      _ = try writer.finish()
      before += plan.reduce(0) { $0 + $1.shape.elementCount }
    }
    try staged.commit()
  }

  private static func plan(_ model: ModelDirectory, _ component: ModelComponent, _ precision: Precision) -> [PlannedTensor] {
    // The inventory knows the published vision tower only; smaller models do without one.
    let hasVision = model.textEncoder.hiddenSize == TextEncoderConfiguration.published.hiddenSize
    return model.inventory(of: component).parameters
      .filter { hasVision || !$0.name.hasPrefix("visual.") }
      .filter { precision == .bf16 || !TextEncoderConfiguration.isUnused($0.name) }
      .map { $0.planned(for: precision) }
  }
}

extension ParameterDescription {
  /// What a checkpoint quantised for `mode` makes of this tensor.
  func planned(for mode: Precision) -> PlannedTensor {
    let precision = LayerPrecision.precision(of: name, in: mode)
    return PlannedTensor(name, shape, isLinear && (precision == .int8 || precision == .q4) ? .packed(precision) : .copied)
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
