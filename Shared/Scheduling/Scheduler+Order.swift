import OrderedCollections

extension Scheduler {
  func policy(of tenant: TenantID) -> TenantPolicy { shares.policy(of: tenant) ?? configuration.defaultTenant }

  mutating func changeTenants(_ tenants: [Tenant]) {
    shares.setPolicies(tenants)
    isOrderNew = true
  }

  /// A stage begins with the job's main work, for which its tenant pays; further attempts cost nothing.
  mutating func start(_ id: ImageJobID) {
    guard let job = jobs[id], !job.isStarted else { return }
    jobs[id]?.isStarted = true
    isOrderNew = true
    let tenant = job.submission.tenant
    shares.charge(tenant, cost: job.plan.tasks[job.plan.principal].cost, weight: policy(of: tenant).weight)
  }

  /// Batch jobs that have waited long enough count as interactive from now on.
  mutating func promoteOldJobs(now: Instant) {
    for (id, job) in jobs where !job.isUrgent && now - job.admittedAt >= configuration.batchPatience {
      jobs[id]?.isUrgent = true
      isOrderNew = true
    }
  }

  /// Jobs that were begun first, in the order of their admission; then the others, interactive ones first, and among
  /// equals always one of the tenant that has had the least of its share.
  mutating func refreshOrder() {
    var waiting: OrderedDictionary<TenantID, [ImageJobID]> = [:]
    order = []
    for (id, job) in jobs {
      if job.isStarted { order.append(id) } else { waiting[job.submission.tenant, default: []].append(id) }
    }
    var clocks = waiting.keys.map { shares.clock(of: $0) }
    for isUrgent in [true, false] {
      let queues = waiting.values.map { queue in queue.filter { jobs[$0]?.isUrgent == isUrgent } }
      merge(queues, &clocks, tenants: waiting.keys)
    }
  }

  /// Appends the jobs of several tenants' queues to the order as `charge` would let them follow each other.
  private mutating func merge(_ queues: [[ImageJobID]], _ clocks: inout [Double], tenants: OrderedSet<TenantID>) {
    var next = queues.map { _ in 0 }
    for _ in 0..<queues.reduce(0, { $0 + $1.count }) {
      var best: Int?
      for tenant in queues.indices where next[tenant] < queues[tenant].count {
        guard let other = best else {
          best = tenant
          continue
        }
        let isEarlier =
          (clocks[tenant], rank(of: queues[tenant][next[tenant]])) < (
            clocks[other], rank(of: queues[other][next[other]])
          )
        if isEarlier { best = tenant }
      }
      guard let best else { return }
      let id = queues[best][next[best]]
      next[best] += 1
      order.append(id)
      guard let plan = jobs[id]?.plan else { continue }
      clocks[best] += plan.tasks[plan.principal].cost / policy(of: tenants[best]).weight
    }
  }

  /// The job's place in the order of admission.
  private func rank(of id: ImageJobID) -> Int { jobs.index(forKey: id) ?? 0 }
}
