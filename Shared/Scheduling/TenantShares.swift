import OrderedCollections

/// Start-time fair queueing (Goyal, Vin, Cheng 1996): every tenant has a clock that its jobs advance by cost / weight;
/// the tenant whose clock is behind is served next. After a pause a tenant begins at the common clock, so that idle
/// time is not saved up.
struct TenantShares: Hashable, Sendable {
  private var policies: OrderedDictionary<TenantID, TenantPolicy> = [:]
  /// Of tenants whose clock is ahead of the common one.
  private var clocks: OrderedDictionary<TenantID, Double> = [:]
  /// The clock of the tenant that was served last, when it was.
  private(set) var common = 0.0

  mutating func setPolicies(_ tenants: [Tenant]) {
    policies = OrderedDictionary(tenants.map { ($0.id, $0.policy) }, uniquingKeysWith: { $1 })
  }

  func policy(of tenant: TenantID) -> TenantPolicy? { policies[tenant] }

  /// Where the tenant's next job begins.
  func clock(of tenant: TenantID) -> Double { max(common, clocks[tenant] ?? 0) }

  /// A job of the tenant is begun.
  mutating func charge(_ tenant: TenantID, cost: Double, weight: Double) {
    let start = clock(of: tenant)
    common = max(common, start)
    clocks[tenant] = start + cost / weight
    let common = common
    clocks.removeAll { $0.value <= common }
  }
}
