extension Scheduler {
  /// What must hold between two events, whatever happened; each line says what does not. For tests and simulations.
  package func brokenInvariants() -> [String] {
    var broken: [String] = []
    func check(_ holds: Bool, _ text: @autoclosure () -> String) {
      if !holds { broken.append(text()) }
    }
    checkJournal(&broken)
    check(cache.byteCount <= configuration.maxCacheBytes, "the cache holds \(cache.byteCount) bytes")
    for (id, worker) in workers {
      let live = worker.attempts.filter { $0.value.state != .revoked }
      check(
        live.count <= worker.registration.credits,
        "\(id) runs \(live.count) attempts with \(worker.registration.credits) credits")
      for attempt in live.keys where attempt.assistance > 0 {
        check(assistants[attempt.main] == Assistance(id: attempt, worker: id), "\(attempt) at \(id) assists no attempt")
      }
      for attempt in live.keys where attempt.assistance == 0 {
        let task = tasks[attempt.task]
        check(
          task?.state == .running(id) && task?.attemptNumber == attempt.number,
          "\(attempt) is live at \(id) but not current")
      }
    }
    for (id, task) in tasks {
      check(!task.waiters.isEmpty, "no job waits for \(id)")
      check(
        task.waiters.allSatisfy { jobs[$0]?.tasks.contains(id) ?? false },
        "\(id) is waited for by a job that does not know it")
      check(task.failures.count < configuration.maxAttempts, "\(id) failed \(task.failures.count) times")
      check(task.checkpoint == nil || task.numericsClass != nil, "\(id) has a checkpoint of no class")
      if let key = task.key { check(shared[key] == id, "\(id) is shared but not found") }
      if case .running(let worker) = task.state {
        let attempt = AttemptID(task: id, number: task.attemptNumber)
        check(workers[worker]?.attempts[attempt].map { $0.state != .revoked } ?? false, "\(attempt) runs nowhere")
      }
    }
    for (id, job) in jobs {
      for (index, task) in job.tasks.enumerated() {
        if let task {
          check(
            tasks[task]?.waiters.contains(id) ?? !job.hasInputs(of: index),
            "\(id) waits for task \(index), which does not know it")
        }
      }
    }
    for (attempt, assistance) in assistants {
      let holder = tasks[attempt.task].flatMap {
        if case .running(let worker) = $0.state { workers[worker] } else { nil }
      }
      let worker = workers[assistance.worker]
      check(
        worker?.attempts[assistance.id].map { $0.state != .revoked } ?? false, "\(assistance.id) is made by no worker")
      check(
        holder?.attempts[attempt] != nil && holder?.registration.id != assistance.worker
          && holder?.registration.numericsClass == worker?.registration.numericsClass,
        "\(assistance.id) at \(assistance.worker) is of no use")
    }
    checkLedger(&broken)
    // Takes longer than all others together: at one of eight times.
    if Int(lastStepAt.sinceZero / .milliseconds(1)).isMultiple(of: 8) { checkQueues(&broken) }
    return broken
  }

  /// What is kept for speed says the same as what it was made of.
  private func checkQueues(_ broken: inout [String]) {
    let begun = jobs.filter { $0.value.isStarted }.map(\.key)
    if queues.begun.all.map(\.id) != begun { broken.append("\(begun) are begun, not \(queues.begun.all)") }
    let waiting = slowWaitingOrder()
    if waitingOrder(limit: .max) != waiting || queues.waitingCount != waiting.count {
      broken.append("\(waitingOrder(limit: .max)) is not the order \(waiting)")
    }
    for (id, job) in jobs {
      let ready = job.tasks.indices.filter {
        if let id = job.tasks[$0], case .ready = tasks[id]?.state { true } else { false }
      }
      if job.isStarted
        ? !ready.isEmpty && !queues.readyBegun.contains(job.ranked)
        : ready.contains(job.plan.principal) != queues.ready.contains(job.ranked)
      {
        broken.append("tasks \(ready) of \(id) are ready, which is not known")
      }
    }
    var counts: [TenantID: Int] = [:]
    for job in jobs.values { counts[job.submission.tenant, default: 0] += 1 }
    for admission in admissions.values { counts[admission.submission.tenant, default: 0] += 1 }
    for ending in endings.values { counts[ending.tenant, default: 0] += 1 }
    let known = Dictionary(uniqueKeysWithValues: queues.tenants.map { ($0.key, $0.value.jobCount) })
    if known != counts { broken.append("tenants have \(counts) jobs, not \(known)") }
    for (id, worker) in workers where free.contains(id) != (worker.freeCredits > 0 && !worker.isLeaving) {
      broken.append("\(id) has \(worker.freeCredits) free credits, which is not known")
    }
  }

  /// The order of service of the jobs that were not begun, by what it means.
  private func slowWaitingOrder() -> [ImageJobID] {
    var clocks: [TenantID: Double] = [:], order: [ImageJobID] = []
    for isUrgent in [true, false] {
      var left = jobs.values.filter { !$0.isStarted && $0.isUrgent == isUrgent }
      while !left.isEmpty {
        let places = left.indices.map { index in
          let tenant = left[index].submission.tenant
          return (clock: clocks[tenant] ?? shares.clock(of: tenant), index: index)
        }
        guard let next = places.min(by: { ($0.clock, $0.index) < ($1.clock, $1.index) }) else { break }
        let job = left.remove(at: next.index), tenant = job.submission.tenant
        clocks[tenant] = next.clock + job.plan.tasks[job.plan.principal].cost / policy(of: tenant).weight
        order.append(job.submission.id)
      }
    }
    return order
  }

  /// No worker has a task of a job that is not durable, or that has ended; what waits for the journal is bounded.
  private func checkJournal(_ broken: inout [String]) {
    if placesTaken > max(configuration.maxJobs, restoredJobCount) { broken.append("\(placesTaken) jobs") }
    for id in admissions.keys where jobs[id] != nil { broken.append("\(id) is admitted before it is durable") }
    for id in endings.keys where jobs[id] != nil { broken.append("\(id) has ended and still runs") }
    for (id, ending) in endings where ending.retryAt == nil && !pending.values.contains(.end(id)) {
      broken.append("the end of \(id) is neither written nor going to be")
    }
    // Per job: its end or admission, and per task an output and a checkpoint.
    let limit = configuration.maxJournalEntries + jobs.values.reduce(placesTaken) { $0 + 2 * $1.tasks.count }
    if pending.count > limit { broken.append("\(pending.count) entries wait for the journal, the limit is \(limit)") }
  }

  /// Every payload that is held is claimed exactly as often as something refers to it.
  private func checkLedger(_ broken: inout [String]) {
    var claims: [Payload: Int] = [:]
    for payload in cache.payloads { claims[payload, default: 0] += 1 }
    for job in jobs.values { for output in job.heldOutputs { claims[output.payload, default: 0] += 1 } }
    for ending in endings.values { if case .finished(let output) = ending.outcome { claims[output, default: 0] += 1 } }
    for task in tasks.values { if let checkpoint = task.checkpoint { claims[checkpoint.latents, default: 0] += 1 } }
    if claims != ledger.counts { broken.append("payloads are claimed \(claims) but counted \(ledger.counts)") }
  }
}
