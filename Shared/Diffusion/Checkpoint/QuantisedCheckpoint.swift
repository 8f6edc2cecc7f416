import Foundation
import Kernels
import Weights

/// Turns a published checkpoint into one whose weights are packed for the kernels, and quantised if that is wanted.
public enum QuantisedCheckpoint {
  /// What was done, layer by layer; written to `quantisation.json` in the new checkpoint.
  public struct Report: Sendable, Codable {
    /// One component.
    public struct Component: Sendable, Codable {
      /// `transformer`, `text_encoder`.
      public let name: String
      /// The layers that the mode packs, those included that stayed in bf16 because quantising would have harmed them.
      public let layers: [PackedLayerReport]
      /// Size of the original's files.
      public let originalByteCount: Int
      /// Size of the tensors that were written.
      public let byteCount: Int
    }
    /// The mode.
    public let precision: String
    /// Layers with a larger relative error stay in bf16.
    public let errorLimits: [String: Double]
    /// The quantised components.
    public let components: [Component]
  }

  /// Writes `source`, packed for `precision`, to `destination`, which appears when it is complete. The VAE is copied;
  /// what no pipeline of its class needs, such as `lm_head`, is left out.
  ///
  /// - Parameters:
  ///   - precision: `int8` or `q4`, or `bf16`, in which nothing is lost.
  ///   - progress: called with the values read, and their total; it may throw to stop, which leaves nothing behind.
  /// - Throws: ``PipelineError/checkpoint(_:)``, `WeightsError` naming what is missing or misshapen, or what
  ///   `progress` throws.
  public static func write(
    _ source: ModelDirectory, precision: Precision, to destination: URL, pool: ThreadPool,
    limits: PrecisionLimits = .standard,
    progress: (_ done: Int, _ total: Int) throws -> Void
  ) throws -> Report {
    precondition(precision != .fp32, "checkpoints are not packed for fp32")
    let parts = try [ModelComponent.textEncoder, .transformer].map { component in
      let weights = try source.weights(of: component)
      return (component: component, weights: weights, plan: try plan(source, component, weights, precision))
    }
    try checkDecoder(source)
    let staged = try StagedDirectory.beside(destination)
    try CheckpointFiles.write(CheckpointFiles.copied(from: source.url), to: staged.url)
    let packer = WeightPacker(compute: Compute(precision: .bf16, pool: pool), limits: limits)
    try copyWeights(of: .vae, from: source, to: staged.url, packer)
    try requireSpace(parts.flatMap(\.plan), in: staged.url)

    let total = parts.flatMap(\.plan).reduce(0) { $0 + $1.shape.elementCount }
    var before = 0, components: [Report.Component] = []
    for (component, weights, plan) in parts {
      let folder = staged.url.appending(path: component.rawValue)
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
      let writer = ShardedWriter(
        folder, baseName: component.weightsBaseName, packedFor: precision,
        tensorsMax: plan.count)
      let layers = try packer.write(plan, from: weights, to: writer) { try progress(before + $0, total) }
      _ = try writer.finish()
      before += plan.reduce(0) { $0 + $1.shape.elementCount }
      components.append(
        .init(
          name: component.rawValue, layers: layers, originalByteCount: weights.fileByteCount,
          byteCount: writer.byteCount))
    }
    let report = Report(
      precision: precision.rawValue, errorLimits: ["int8": limits.int8, "q4": limits.q4], components: components)
    try writeJSON(report, to: staged.url.appending(path: "quantisation.json"))
    try staged.commit()
    return report
  }

  /// Requires what a VAE decoder needs: its files are copied as they are, and would be found out only when an image is
  /// decoded.
  private static func checkDecoder(_ source: ModelDirectory) throws(WeightsError) {
    let weights = try source.weights(of: .vae)
    let family = source.family
    for parameter in family.inventory(of: .vae).parameters where !family.isUnused(parameter.name, in: .vae) {
      try weights.require(parameter.name, parameter.shape)
    }
  }

  /// The tensors that the files hold and stages read, in order; what the model needs must be among them.
  private static func plan(
    _ source: ModelDirectory, _ component: ModelComponent, _ weights: ComponentWeights, _ precision: Precision
  ) throws -> [PlannedTensor] {
    if let packed = weights.packedPrecision {
      throw PipelineError.checkpoint(
        "\(weights.directory) is packed for \(packed.rawValue) already; begin with the original")
    }
    let family = source.family, layers = type(of: family).layers
    let inventory = family.inventory(of: component).parameters.filter { !family.isUnused($0.name, in: component) }
    for parameter in inventory {
      if parameter.isLinear {
        _ = try weights.linearWeight(parameter.name, parameter.shape)
      } else {
        try weights.require(parameter.name, parameter.shape)
      }
    }
    let known = Dictionary(uniqueKeysWithValues: inventory.map { ($0.name, $0) })
    return weights.names.compactMap { name in
      let isPlanned = !family.isUnused(name, in: component) && !weights.isCompanion(name)
      guard isPlanned, let entry = weights.entry(name) else { return nil }
      let stored = weights.quantisation(of: name)
      return known[name]?.planned(for: precision, layers, stored: stored) ?? PlannedTensor(name, entry.shape, .copied)
    }
  }

  /// Copies a component's files, or writes what they hold under the published names if that is not how they are.
  private static func copyWeights(
    of component: ModelComponent, from source: ModelDirectory, to directory: URL, _ packer: WeightPacker
  ) throws {
    let folder = directory.appending(path: component.rawValue)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    let weights = try source.weights(of: component)
    guard case .folder(let original) = source.source(of: component), weights.isPublished else {
      let plan = weights.names.filter { !weights.isCompanion($0) }.compactMap { name in
        weights.entry(name).map { PlannedTensor(name, $0.shape, .copied) }
      }
      let writer = ShardedWriter(folder, baseName: component.weightsBaseName, tensorsMax: plan.count)
      _ = try packer.write(plan, from: weights, to: writer) { _ in }
      _ = try writer.finish()
      return
    }
    for name in try FileManager.default.contentsOfDirectory(atPath: original.path)
    where name.contains(".safetensors") {
      let file = original.appending(path: name).resolvingSymlinksInPath()
      try FileManager.default.copyItem(at: file, to: directory.appending(path: "\(component.rawValue)/\(name)"))
    }
  }
}
