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
    queues.remove(job.ranked, of: tenant, isUrgent: job.isUrgent)
    queues.insertBegun(job.ranked)
    shares.charge(tenant, cost: job.plan.tasks[job.plan.principal].cost, weight: policy(of: tenant).weight)
  }

  /// A task may be offered to a worker.
  mutating func noteReady(_ id: TaskID) {
    isAssignmentDue = true
    for waiter in tasks[id]?.waiters ?? [] {
      guard let job = jobs[waiter] else { continue }
      if job.isStarted {
        queues.readyBegun.insert(job.ranked)
      } else if job.tasks[job.plan.principal] == id {
        queues.ready.insert(job.ranked)
      }
    }
  }

  /// Batch jobs that have waited long enough count as interactive from now on.
  mutating func promoteOldJobs(now: Instant) {
    for (tenant, queue) in queues.tenants {
      for ranked in queue.batch.all {
        guard let job = jobs[ranked.id], now - job.admittedAt >= configuration.batchPatience else { break }
        let isReady = queues.ready.contains(ranked)
        queues.remove(ranked, of: tenant, isUrgent: false)
        queues.insert(ranked, of: tenant, isUrgent: true)
        if isReady { queues.ready.insert(ranked) }
        jobs[ranked.id]?.isUrgent = true
        isOrderNew = true
      }
    }
  }

  /// Jobs that were begun first, in the order of their admission; then the others, interactive ones first, and among
  /// equals always one of the tenant that has had the least of its share.
  ///
  /// - Parameter limit: at most so many.
  func order(limit: Int) -> [ImageJobID] {
    let begun = queues.begun.all.prefix(limit).map(\.id)
    return begun + waitingOrder(limit: limit - begun.count)
  }

  /// Those that were not begun, at most `limit`.
  func waitingOrder(limit: Int) -> [ImageJobID] {
    var order = waiting, ids: [ImageJobID] = []
    while ids.count < limit, let id = order.next() { ids.append(id) }
    return ids
  }

  /// Goes through the jobs that wait.
  var waiting: WaitingOrder { WaitingOrder(self) }
}
