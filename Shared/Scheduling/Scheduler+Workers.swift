import ClusterCore
import OrderedCollections

extension Scheduler {
  mutating func register(_ registration: WorkerRegistration, now: Instant) {
    lastPrecedence += 1
    var worker = WorkerSession(registration, owner: owner, number: lastPrecedence, now: now)
    var adopted: OrderedSet<AttemptID> = []
    var unwanted: OrderedSet<AttemptID> = []
    for id in registration.running {
      if adopted.count < registration.credits, let attempt = adoptableAttempt(id, for: registration, now: now) {
        adopted.append(id)
        worker.attempts[id] = attempt
      } else {
        unwanted.append(id)
      }
    }
    let earlier = workers.values.filter { $0.registration.name == registration.name }
    for id in unwanted {
      worker.attempts[id] = stray(id, of: earlier, now: now) ?? Attempt(revokedAt: now)
      if worker.attempts[id]?.strayAt != nil { unwanted.remove(id) }
    }
    worker.faults = earlier.map(\.faults).max() ?? 0
    worker.pace = earlier.compactMap(\.pace).last
    worker.quarantinedUntil = earlier.compactMap(\.quarantinedUntil).max()
    if registration.keepsConnection {
      // What was offered is still on its way, also when it has been revoked since; a revoked attempt that is not goes
      // by the reports.
      for (id, attempt) in earlier.flatMap(\.attempts) where attempt.state != .running && worker.attempts[id] == nil {
        let isLive = attempt.state == .offered && id.assistance == 0 && adopted.count < registration.credits
        if isLive { adopted.append(id) } else if attempt.state == .offered { unwanted.append(id) }
        worker.attempts[id] = isLive ? attempt : Attempt(revokedAt: now)
      }
    }
    for id in adopted {
      for session in earlier { workers[session.registration.id]?.attempts[id] = nil }
      tasks[id.task]?.state = .running(registration.id)
      noteTakeover(of: id)
    }
    for session in earlier {
      // The process lives, so whatever was lost is not the task's fault.
      loseWorker(
        session.registration.id, reason: "worker \(registration.name) registered again", isBlameless: true, now: now)
    }
    workers[registration.id] = worker
    free.update(registration.id, worker)
    endModelSwitches(with: registration)
    effects.append(.worker(registration.id, .joined))
    for id in unwanted.subtracting(adopted) {
      effects.append(.cancel(id, at: registration.id, reason: "the attempt is not the task's current one"))
    }
    claim(claimable, at: registration.id, now: now)
  }

  /// The attempt, if a new session can adopt it: it must be its task's newest, held by no other worker, and fit the
  /// checkpoint.
  func adoptableAttempt(_ id: AttemptID, for registration: WorkerRegistration, now: Instant) -> Attempt? {
    guard id.assistance == 0, let task = tasks[id.task], task.attemptNumber == id.number, registration.serves(task),
      task.numericsClass.map({ $0 == registration.numericsClass }) ?? true
    else { return nil }
    switch task.state {
    case .blocked: return nil
    case .ready: return Attempt(runningSince: now, completedSteps: task.checkpoint?.completedSteps ?? 0)
    case .running(let holder):
      guard let earlier = workers[holder], earlier.registration.name == registration.name else { return nil }
      return earlier.attempts[id].map {
        var attempt = $0
        attempt.state = .running
        attempt.missedReports = 0
        return attempt
      }
    }
  }

  mutating func takeReport(_ report: WorkerReport, of id: WorkerID, now: Instant) {
    hear(id, now: now)
    guard let worker = workers[id] else { return }
    workers[id]?.foreignCount = report.foreignCount
    defer { noteFree(id, before: worker.freeCredits, now: now) }
    if report.isDraining { workers[id]?.isDraining = true } else { repeatModelSwitch(of: id, now: now) }
    for (attempt, record) in worker.attempts {
      if report.running.contains(attempt) {
        workers[id]?.attempts[attempt]?.missedReports = 0
        if record.state == .offered { workers[id]?.attempts[attempt]?.state = .running }
        // Unlike a task it does not end by itself: the message may be lost.
        if record.state == .revoked, attempt.assistance > 0 {
          effects.append(.cancel(attempt, at: id, reason: "the attempt needs no assistant any more"))
        }
        continue
      }
      // An offer may still be on its way; `acceptLimit` bounds that.
      guard record.state != .offered, now - record.missedAt >= configuration.lease / 10 else { continue }
      workers[id]?.attempts[attempt]?.missedAt = now
      workers[id]?.attempts[attempt]?.missedReports += 1
      guard record.missedReports + 1 >= configuration.maxMissedReports else { continue }
      workers[id]?.attempts[attempt] = nil
      if record.state == .running {
        let failure = Status(
          .unavailable, "worker \(worker.registration.name) does not run the task any more, and its answer is lost")
        retry(attempt, failure, by: worker.registration.name, now: now)
      }
    }
    for attempt in report.running where worker.attempts[attempt] == nil {
      let stray = stray(attempt, of: [], now: now)
      workers[id]?.attempts[attempt] = stray ?? Attempt(revokedAt: now)
      if stray == nil {
        effects.append(.cancel(attempt, at: id, reason: "the attempt is not the task's current one"))
      }
    }
  }

  /// Ends a session; its attempts are made again elsewhere.
  mutating func loseWorker(_ id: WorkerID, reason: String, isBlameless: Bool = false, now: Instant) {
    guard let worker = workers.removeValue(forKey: id) else { return }
    free.update(id, nil)
    effects.append(.worker(id, .gone(reason: reason)))
    for (attempt, record) in worker.attempts where record.state != .revoked {
      let name = worker.registration.name
      retry(
        attempt, Status(.unavailable, "worker \(name) is gone: \(reason)"), by: name, isBlameless: isBlameless, now: now
      )
    }
  }

  /// Counts a fault of the worker; after several in a row it pauses, so that a broken worker does not use up every
  /// task's attempts.
  mutating func countFault(of id: WorkerID, _ failure: Status, now: Instant) {
    guard let worker = workers[id] else { return }
    let faults = worker.faults + 1
    workers[id]?.faults = faults
    guard faults >= configuration.maxWorkerFaults else { return }
    let pause = doubled(
      configuration.quarantine, times: faults - configuration.maxWorkerFaults, atMost: configuration.maxQuarantine)
    workers[id]?.quarantinedUntil = now + pause
    let reason = "\(faults) faults in a row, the last one: \(failure.message)"
    effects.append(.worker(id, .quarantined(until: now + pause, reason: reason)))
  }

  /// `duration` doubled a number of times, without overflow.
  func doubled(_ duration: Duration, times: Int, atMost limit: Duration) -> Duration {
    var result = duration
    for _ in 0..<max(0, times) where result < limit { result *= 2 }
    return min(result, limit)
  }
}
