/// Names who submits jobs.
public struct TenantID: Hashable, Sendable, CustomStringConvertible {
  /// As the operator wrote it.
  public let text: String

  /// The tenant named `text`.
  public init(_ text: String) {
    self.text = text
  }

  /// All clients of a gateway without API keys.
  public static let anonymous = TenantID("")
  /// For logs and messages.
  public var description: String { text.isEmpty ? "anonymous" : text }
}

/// What a tenant may ask for.
public struct TenantPolicy: Hashable, Sendable {
  /// Its share of the work while others wait too, in proportion to their weights. At least 0.001.
  public var weight: Double
  /// Jobs that it may have waiting or running; nil: as many as all together.
  public var maxJobs: Int?

  /// A policy; weights that are no number or too small become 0.001.
  public init(weight: Double = 1, maxJobs: Int? = nil) {
    self.weight = weight.isFinite ? max(0.001, weight) : 0.001
    self.maxJobs = maxJobs
  }
}

/// A tenant that the operator has named.
public struct Tenant: Hashable, Sendable {
  /// Who.
  public var id: TenantID
  /// What it may ask for.
  public var policy: TenantPolicy

  /// Tenant `id` under `policy`.
  public init(id: TenantID, policy: TenantPolicy) {
    self.id = id
    self.policy = policy
  }
}

/// How urgent a job is. All waiting interactive jobs come before all batch jobs, except those that have waited too
/// long.
public enum JobPriority: String, CaseIterable, Sendable {
  /// A person waits for the image.
  case interactive
  /// Whenever there is nothing more urgent.
  case batch
}
