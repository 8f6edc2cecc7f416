import Kernels

/// Which linear layers the quantised modes quantise, by the names of their weights.
///
/// `int8` and `q4` leave in bf16 what decides the image out of proportion to its size: the embeddings of time, text and
/// latents at the entrance, the projections at the exit, and the first layer of either network
/// (`Tests/Benchmarks/PERFORMANCE-LOG.md` has the measurements). Modulations have 8 bits in both modes: they act on
/// every token alike, and are read once per schedule. A layer that quantising harms more than `PrecisionLimits` allow
/// stays in bf16 too; that is found by measuring its weight.
public struct LayerPrecision: Sendable {
  /// Part of what results depend on: raised whenever the family's rules change.
  public let version: Int
  private let repeated: [String]
  private let modulations: [String]
  /// Whether layers in int8 rotate groups of their inputs before: without it, single large inputs decide how coarsely
  /// all others are seen. Layers in q4 always do, see `rotates(at:stored:)`.
  public let rotatesInputs: Bool

  /// The rules of a family.
  ///
  /// - Parameters:
  ///   - repeated: what the names of layers that are repeated begin with, before their number: `transformer_blocks.`.
  ///   - modulations: what the names of modulations contain.
  ///   - rotatesInputs: see the property.
  public init(
    version: Int, repeated: [String], modulations: [String], rotatesInputs: Bool = false
  ) {
    self.version = version
    self.repeated = repeated
    self.modulations = modulations
    self.rotatesInputs = rotatesInputs
  }

  /// These rules and those of another network of the family, whose layers have other names.
  public func adding(_ other: LayerPrecision) -> LayerPrecision {
    LayerPrecision(
      version: max(version, other.version), repeated: repeated + other.repeated,
      modulations: modulations + other.modulations, rotatesInputs: rotatesInputs || other.rotatesInputs)
  }

  /// The precision that the layer with the weight `name` is to have in `mode`.
  public func precision(of name: String, in mode: Precision) -> Precision {
    switch mode {
    case .fp32, .bf16: mode
    case .int8, .q4:
      isModulation(name) ? .int8 : isKept(name) ? .bf16 : mode
    }
  }

  /// The precision that a layer is to have in `mode` whose weight is stored at `stored`, or nil: in plain numbers. What
  /// is quantised already stays as it is in that mode: bf16 could not bring back what is lost.
  func precision(of name: String, in mode: Precision, stored: Precision?) -> Precision {
    stored == mode ? mode : precision(of: name, in: mode)
  }

  /// Whether a layer of `precision` rotates its inputs whose weight is stored in blocks of `format`, or nil: in plain
  /// numbers. What Q4_0 holds are q4's own groups and levels, which rotating would mix; only families whose inputs
  /// must be rotated do it all the same.
  package func rotates(at precision: Precision, stored format: BlockFormat?) -> Bool {
    rotatesInputs || precision == .q4 && format != .q4_0
  }

  /// Names everything that results of a network depend on besides weights and inputs.
  public func numericsClass(_ compute: Compute) -> String {
    let isQuantised = compute.precision == .int8 || compute.precision == .q4
    return isQuantised ? "\(compute.numericsClass)/layers-\(version)" : compute.numericsClass
  }

  /// Whether the weight serves only the modulation vectors, which are computed once per schedule.
  func isModulation(_ name: String) -> Bool { modulations.contains { name.contains($0) } }

  private func isKept(_ name: String) -> Bool {
    guard let prefix = repeated.first(where: { name.hasPrefix($0) }) else { return true }
    return name.hasPrefix(prefix + "0.")
  }
}
