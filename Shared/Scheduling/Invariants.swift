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
          check(tasks[task]?.waiters.contains(id) ?? false, "\(id) waits for task \(index), which does not know it")
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
    return broken
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
    for job in jobs.values { for case .some(let output) in job.outputs { claims[output.payload, default: 0] += 1 } }
    for ending in endings.values { if case .finished(let output) = ending.outcome { claims[output, default: 0] += 1 } }
    for task in tasks.values { if let checkpoint = task.checkpoint { claims[checkpoint.latents, default: 0] += 1 } }
    if claims != ledger.counts { broken.append("payloads are claimed \(claims) but counted \(ledger.counts)") }
  }
}
