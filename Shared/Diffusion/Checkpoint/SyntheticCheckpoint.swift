import Foundation
import Kernels
import Weights

/// The configuration of a checkpoint with random weights.
public enum SyntheticConfiguration: Sendable {
  /// Sizes of a family.
  case family(any ModelFamily.Type, SyntheticSize)
  /// Sizes of one of a family's ``ModelFamily/syntheticReleases``.
  case release(any ModelFamily.Type, String, SyntheticSize)
  /// The configuration, scheduler and tokenizer files of a checkpoint directory; its weights are not read.
  case directory(URL)
}

/// Writes checkpoints with random weights: for measuring speed and memory at any size without a download.
public enum SyntheticCheckpoint {
  /// Writes a checkpoint to `destination`, which appears when it is complete.
  ///
  /// - Parameters:
  ///   - precision: `bf16`, or `int8` or `q4` for a quantised checkpoint.
  ///   - isPacked: whether a checkpoint in bf16 is packed for the kernels instead of written as it is published;
  ///     quantised ones always are.
  ///   - tokenizer: a tokenizer directory to copy instead of making one.
  ///   - progress: called with the values written, and their total; it may throw to stop, which leaves nothing behind.
  /// - Throws: ``PipelineError/checkpoint(_:)``, `ConfigurationError`, `WeightsError`, or what `progress` throws.
  public static func write(
    _ configuration: SyntheticConfiguration, seed: UInt64, precision: Precision, isPacked: Bool = false,
    tokenizer: URL? = nil, families: ModelFamilies, to destination: URL, pool: ThreadPool,
    progress: (_ done: Int, _ total: Int) throws -> Void
  ) throws {
    precondition(precision != .fp32, "checkpoints are not written in fp32")
    let staged = try StagedDirectory.beside(destination)
    try CheckpointFiles.write(files(configuration, tokenizer), to: staged.url)
    let model = try ModelDirectory(staged.url, families: families)
    if let tokenizer { try replace(model.url(of: .tokenizer), by: tokenizer) }
    let mode = isPacked || precision != .bf16 ? precision : nil
    let plans = type(of: model.family).components.map { ($0, plan(model, $0, packedFor: mode)) }
    try requireSpace(plans.flatMap(\.1), in: staged.url)

    let packer = WeightPacker(compute: Compute(precision: .bf16, pool: pool)),
      source = RandomWeights(seed: seed, pool: pool)
    let total = plans.flatMap(\.1).reduce(0) { $0 + $1.shape.elementCount }
    var before = 0
    for (component, plan) in plans {
      try FileManager.default.createDirectory(at: model.url(of: component), withIntermediateDirectories: true)
      let writer = ShardedWriter(
        model.url(of: component), baseName: component.weightsBaseName, packedFor: component == .vae ? nil : mode,
        tensorsMax: plan.count)
      _ = try packer.write(plan, from: source, to: writer) { try progress(before + $0, total) }
      _ = try writer.finish()
      before += plan.reduce(0) { $0 + $1.shape.elementCount }
    }
    try staged.commit()
  }

  private static func files(_ configuration: SyntheticConfiguration, _ tokenizer: URL?) throws -> [String: Data] {
    switch configuration {
    case .family(let family, let size): try family.syntheticFiles(size, withTokenizer: tokenizer == nil)
    case .release(let family, let release, let size):
      try family.syntheticFiles(size, release: release, withTokenizer: tokenizer == nil)
    case .directory(let source): try CheckpointFiles.copied(from: source)
    }
  }

  private static func replace(_ folder: URL, by other: URL) throws {
    try? FileManager.default.removeItem(at: folder)
    try FileManager.default.copyItem(at: other, to: folder)
  }

  private static func plan(
    _ model: ModelDirectory, _ component: ModelComponent, packedFor mode: Precision?
  ) -> [PlannedTensor] {
    let family = model.family, layers = type(of: family).layers
    return family.inventory(of: component).parameters
      .filter { mode == nil || component == .vae || !family.isUnused($0.name, in: component) }
      .map { $0.planned(for: mode, layers) }
  }
}

extension ParameterDescription {
  /// What a checkpoint packed for `mode` makes of this tensor; nil: a checkpoint as it is published. Modulations that
  /// are not quantised stay as they are, since they are packed once per schedule; so do the layers that a quantised
  /// mode keeps in bf16.
  func planned(for mode: Precision?, _ layers: LayerPrecision, stored: StoredQuantisation? = nil) -> PlannedTensor {
    guard let mode, isLinear else { return PlannedTensor(name, shape, .copied) }
    let precision = layers.precision(of: name, in: mode, stored: stored?.precision)
    let isPacked = precision != .bf16 || stored != nil || mode == .bf16 && !layers.isModulation(name)
    let rotates = layers.rotates(at: precision, stored: stored?.format)
    return PlannedTensor(name, shape, isPacked ? .packed(precision, rotates: rotates) : .copied)
  }
}

/// Refuses to begin what the disk cannot hold.
func requireSpace(_ plan: [PlannedTensor], in directory: URL) throws(PipelineError) {
  let needed = plan.reduce(0) { $0 + $1.packedBytes }
  guard let free = freeBytes(directory), free < needed + needed / 50 else { return }
  throw .checkpoint("\(directory.path): about \(needed / 1_000_000) MB are needed, \(free / 1_000_000) MB are free")
}
