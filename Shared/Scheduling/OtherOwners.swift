/// What is known of the other owners of a shared journal.
struct OtherOwners: Hashable, Sendable {
  /// By their epochs.
  private(set) var loads: [Int64: OwnerLoad] = [:]
  /// Jobs of all of them that have not ended.
  private(set) var openJobs = 0
  private var tenantJobs: [TenantID: Int] = [:]

  /// Owners that are taken note of.
  private static let maxOwners = 256

  func openJobs(of tenant: TenantID) -> Int { tenantJobs[tenant] ?? 0 }

  /// Replaces what was known.
  ///
  /// - Returns: the work that was begun for each tenant since, as cost ÷ weight.
  mutating func replace(_ newLoads: [Int64: OwnerLoad]) -> [(tenant: TenantID, served: Double)] {
    let kept = newLoads.sorted { $0.key < $1.key }.suffix(Self.maxOwners)
    var served: [TenantID: Double] = [:]
    (openJobs, tenantJobs) = (0, [:])
    for (epoch, load) in kept {
      let earlier = loads[epoch].map { Dictionary($0.tenants.map { ($0.tenant, $0.served) }) { max($0, $1) } }
      openJobs += load.openJobs
      for tenant in load.tenants {
        tenantJobs[tenant.tenant, default: 0] += tenant.openJobs
        // What an owner did before this one knew of it is over.
        guard let earlier else { continue }
        // One that was left out for lack of space may have been served long ago.
        guard let before = earlier[tenant.tenant] ?? (earlier.count < OwnerLoad.maxTenants ? 0 : nil) else { continue }
        served[tenant.tenant, default: 0] += tenant.served >= before ? tenant.served - before : tenant.served
      }
    }
    loads = Dictionary(uniqueKeysWithValues: kept.map { ($0.key, $0.value) })
    return served.filter { $0.value > 0 }.map { ($0.key, $0.value) }.sorted { $0.tenant.text < $1.tenant.text }
  }
}

extension Scheduler {
  /// Takes note of what the other owners do: their jobs count towards the limits, and what they have served towards
  /// their tenants' shares.
  mutating func takeLoads(_ loads: [Int64: OwnerLoad]) {
    for (tenant, served) in others.replace(loads.filter { $0.key != owner }) { shares.advance(tenant, by: served) }
    var isAnyOpen = false
    var clock = Double.infinity
    for tenant in openTenants() {
      isAnyOpen = true
      clock = min(clock, shares.clock(of: tenant))
    }
    if isAnyOpen { shares.catchUp(to: clock) }
    isOrderNew = true
  }

  /// Tenants with an open job here or elsewhere.
  private func openTenants() -> Set<TenantID> {
    var tenants = Set(queues.tenants.keys)
    for load in others.loads.values {
      for tenant in load.tenants where tenant.openJobs > 0 { tenants.insert(tenant.tenant) }
    }
    return tenants
  }

  /// What this owner tells the others in the note of its lease.
  public func load(now: Instant) -> OwnerLoad {
    var loads: [TenantID: TenantLoad] = [:]
    for (tenant, queue) in queues.tenants {
      let first = [queue.urgent.all.first, queue.batch.all.first].compactMap { $0.flatMap { jobs[$0.id]?.admittedAt } }
      loads[tenant] = TenantLoad(
        tenant: tenant, openJobs: queue.jobCount, waitingJobs: queue.urgent.count,
        waitingBatchJobs: queue.batch.count, waitSeconds: first.min().map { (now - $0).seconds } ?? 0)
    }
    for tenant in shares.servedTenants {
      loads[tenant, default: TenantLoad(tenant: tenant, openJobs: 0)].served = shares.served(of: tenant)
    }
    let sorted = loads.values.sorted {
      ($1.openJobs, $1.served, $0.tenant.text) < ($0.openJobs, $0.served, $1.tenant.text)
    }
    return OwnerLoad(tenants: sorted)
  }
}
