import Foundation
import Weights

/// Adapters that act together, each with a scale, in their order. Velocities depend on the set: what is computed with
/// one must not be taken for another's.
public struct AdapterSet: Sendable, Equatable {
  /// An adapter and how much of it acts.
  public struct Member: Sendable, Equatable {
    /// The adapter.
    public let adapter: Adapter
    /// What it adds is multiplied with: 1 is as it was trained, 0 is without effect.
    public let scale: Double
  }

  /// The adapters.
  public let members: [Member]

  /// Most adapters of a set.
  public static let maxCount = 16
  /// Largest magnitude of a scale.
  public static let maxScale = 100.0

  /// No adapters.
  public static let none = AdapterSet(members: [])

  private init(members: [Member]) { self.members = members }

  /// A set of adapters with scales.
  ///
  /// - Throws: ``PipelineError/invalidRequest(field:reason:)`` when there are too many, or a scale is out of range.
  public init(_ members: [(adapter: Adapter, scale: Double)]) throws(PipelineError) {
    guard members.count <= Self.maxCount else {
      throw .invalidRequest(field: "loras", reason: "are \(members.count); the limit is \(Self.maxCount)")
    }
    for (adapter, scale) in members where !(scale.magnitude <= Self.maxScale) {
      throw .invalidRequest(
        field: "loras",
        reason:
          "have \(printable(adapter.name, max: 100)) with the scale \(scale); it must be from \(-Self.maxScale) to "
          + "\(Self.maxScale)")
    }
    self.members = members.map { Member(adapter: $0.adapter, scale: $0.scale) }
  }

  /// Whether there are no adapters.
  public var isEmpty: Bool { members.isEmpty }

  /// SHA-256, in hexadecimal, that tells sets apart whose velocities may differ; empty for no adapters.
  public var fingerprint: String {
    if isEmpty { return "" }
    var hash = LabelledHash()
    for member in members {
      hash.update(member.adapter.digest, Data("\(member.scale.bitPattern)".utf8))
    }
    return hash.hexDigest()
  }
}
