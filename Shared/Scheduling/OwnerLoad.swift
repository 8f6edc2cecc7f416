/// What an owner of a shared journal tells the others of its work, in the note of its lease.
public struct OwnerLoad: Hashable, Sendable {
  /// Those with the most open jobs first, at most ``maxTenants``.
  public var tenants: [TenantLoad]
  /// Open jobs of all other tenants.
  public var otherJobs: Int

  /// Tenants of a load.
  public static let maxTenants = 256

  /// A load; tenants beyond ``maxTenants`` count towards `otherJobs`, and negative numbers as none.
  public init(tenants: [TenantLoad] = [], otherJobs: Int = 0) {
    self.tenants = Array(tenants.prefix(Self.maxTenants))
    self.otherJobs = tenants.dropFirst(Self.maxTenants).reduce(max(0, otherJobs)) {
      $0.addingUpTo(1 << 40, $1.openJobs)
    }
  }

  /// Open jobs of all tenants.
  public var openJobs: Int { tenants.reduce(otherJobs) { $0.addingUpTo(1 << 40, $1.openJobs) } }
}

/// What one tenant has at an owner of a shared journal.
public struct TenantLoad: Hashable, Sendable {
  /// Who.
  public var tenant: TenantID
  /// Jobs that have not ended.
  public var openJobs: Int
  /// Interactive ones among them whose main work waits for a worker.
  public var waitingJobs: Int
  /// Batch jobs among them whose main work waits for a worker.
  public var waitingBatchJobs: Int
  /// How long the first of those that wait has waited.
  public var waitSeconds: Double
  /// Cost ÷ weight of the work that was begun for it by this owner. Begins at 0 again when the tenant has had no more
  /// than its share.
  public var served: Double

  /// A tenant's load; what is negative or no number counts as none.
  public init(
    tenant: TenantID, openJobs: Int, waitingJobs: Int = 0, waitingBatchJobs: Int = 0, waitSeconds: Double = 0,
    served: Double = 0
  ) {
    self.tenant = tenant
    self.openJobs = max(0, openJobs)
    self.waitingJobs = max(0, waitingJobs)
    self.waitingBatchJobs = max(0, waitingBatchJobs)
    self.waitSeconds = waitSeconds.isFinite ? max(0, waitSeconds) : 0
    self.served = served.isFinite ? max(0, served) : 0
  }
}

extension Int {
  /// The sum of two numbers that are not negative, at most `limit`.
  fileprivate func addingUpTo(_ limit: Int, _ other: Int) -> Int {
    let (sum, isTooLarge) = addingReportingOverflow(other)
    return isTooLarge ? limit : Swift.min(limit, sum)
  }
}
