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
  /// Cost ÷ weight of what was begun here, of the tenants in `clocks`.
  private var charges: [TenantID: Double] = [:]

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
    charges[tenant, default: 0] += cost / weight
    forgetClocks()
  }

  /// Another owner has begun work for the tenant.
  ///
  /// - Parameter served: cost ÷ weight.
  mutating func advance(_ tenant: TenantID, by served: Double) { clocks[tenant] = clock(of: tenant) + served }

  /// All tenants with open jobs have come as far.
  mutating func catchUp(to clock: Double) {
    common = max(common, clock)
    forgetClocks()
  }

  /// Cost ÷ weight of what was begun here for a tenant since it was no further than all.
  func served(of tenant: TenantID) -> Double { charges[tenant] ?? 0 }

  /// Tenants for which work was begun here lately.
  var servedTenants: [TenantID] { charges.keys.sorted { $0.text < $1.text } }

  private mutating func forgetClocks() {
    let common = common
    clocks.removeAll { $0.value <= common }
    if charges.count > 2 * clocks.count + 64 { charges = charges.filter { clocks[$0.key] != nil } }
  }
}
