import ClusterCore

extension Scheduler {
  /// Ends what took too long: sessions without a message, offers without an answer, steps without an end, jobs past
  /// their deadline.
  mutating func checkTimes(now: Instant) {
    forgiveOwnSleep(now: now)
    promoteOldJobs(now: now)
    retryEnds(now: now)
    for (id, worker) in workers where now - worker.lastHeardAt > configuration.lease {
      loseWorker(id, reason: "no message for \(Int((now - worker.lastHeardAt).seconds)) s", now: now)
    }
    stopStrays(now: now)
    for (id, worker) in workers {
      for attempt in worker.attempts.keys {
        // Read afresh: an earlier round may have revoked it.
        guard let record = workers[id]?.attempts[attempt],
          let failure = overdue(record, of: attempt, at: worker, now: now)
        else { continue }
        revoke(attempt, at: id, reason: failure.message)
        countFault(of: id, failure, now: now)
        retry(attempt, failure, by: worker.registration.name, now: now)
      }
    }
    moveFromSlowWorkers(now: now)
    assignAssistants(now: now)
    switchModels(now: now)
    tellFarPositions()
    for id in deadlines.removePassed(now) {
      guard let job = jobs[id] else { continue }
      failJob(id, Status(.deadlineExceeded, "the deadline passed \(whereabouts(of: job))"))
    }
    deadlines.compact(jobs.count) { jobs[$0] != nil }
  }

  /// After a long time without a tick, this process was suspended, not the workers: what they sent is still to be read.
  private mutating func forgiveOwnSleep(now: Instant) {
    let gap = lastTickAt.map { now - $0 } ?? .zero
    lastTickAt = now
    guard gap > configuration.lease / 2 else { return }
    for (id, worker) in workers {
      workers[id]?.lastHeardAt = now
      for attempt in worker.attempts.keys { workers[id]?.attempts[attempt]?.shift(by: gap, until: now) }
    }
  }

  private func overdue(_ attempt: Attempt, of id: AttemptID, at worker: WorkerSession, now: Instant) -> Status? {
    let name = worker.registration.name
    switch attempt.state {
    case .revoked: return nil
    case .offered:
      guard now - attempt.offeredAt > configuration.acceptLimit else { return nil }
      return Status(.unavailable, "worker \(name) did not accept the task within \(configuration.acceptLimit)")
    // Who is assisted does not wait long, and says what it got done alone.
    case .running where id.assistance > 0: return nil
    case .running:
      let limit = stepLimit(of: attempt, tasks[id.task], at: worker)
      guard now - attempt.stepStartedAt > limit else { return nil }
      return Status(.unavailable, "worker \(name) has not finished step \(attempt.completedSteps + 1) within \(limit)")
    }
  }

  /// How long the step that runs now may take, by the measure of the attempt's own steps, or else of the worker's
  /// earlier work.
  private func stepLimit(of attempt: Attempt, _ task: ImageTask?, at worker: WorkerSession) -> Duration {
    let own = max(configuration.stepLimit, .seconds(attempt.slowestStepSeconds * configuration.stepSlowdown))
    guard attempt.ownSteps > 0 else { return firstStepLimit(of: task, at: worker) }
    // A resumed attempt may begin with steps that take no time.
    return task?.plan.hasUnevenSteps == true ? max(own, firstStepLimit(of: task, at: worker)) : own
  }

  private func firstStepLimit(of task: ImageTask?, at worker: WorkerSession) -> Duration {
    guard let pace = worker.pace, let plan = task?.plan else { return configuration.firstStepLimit }
    let seconds = pace * plan.cost / Double(max(1, plan.stepCount)) * configuration.stepSlowdown
    guard seconds < configuration.firstStepLimit.seconds else { return configuration.firstStepLimit }
    return min(configuration.firstStepLimit, max(configuration.stepLimit, .seconds(seconds)))
  }

  /// Takes attempts from workers that are much slower than one that is free. They are resumed from the last checkpoint;
  /// with one step left there is nothing to gain.
  private mutating func moveFromSlowWorkers(now: Instant) {
    guard let factor = configuration.slowWorkerFactor else { return }
    for (id, worker) in workers {
      for (attempt, record) in worker.attempts where record.state == .running && record.ownSteps > 0 {
        guard let task = tasks[attempt.task], task.plan.stepCount - record.completedSteps > 1, task.plan.cost > 0,
          task.checkpoint?.completedSteps == record.completedSteps
        else { continue }
        let pace = record.ownStepSeconds / Double(record.ownSteps) * Double(task.plan.stepCount) / task.plan.cost
        let isBetter = { (other: WorkerSession) in
          other.freeCredits > 0 && !other.isLeaving && !other.isQuarantined(now: now)
            && other.pace.map { $0 * factor < pace } ?? false
            && other.takes(task)
            && other.registration.numericsClass == worker.registration.numericsClass
            && !task.failedOn.contains(other.registration.name)
        }
        guard let other = workers.values.first(where: isBetter) else { continue }
        let name = worker.registration.name
        let reason =
          "worker \(name) is more than \(factor) times as slow as worker \(other.registration.name), which is free"
        revoke(attempt, at: id, reason: reason)
        retry(attempt, Status(.unavailable, reason), by: name, isBlameless: true, now: now)
        tasks[attempt.task]?.failedOn.append(name)
      }
    }
  }

  /// Where a job that is given up was, for people.
  private func whereabouts(of job: ImageJob) -> String {
    for case .some(let id) in job.tasks {
      guard let task = tasks[id], task.state != .blocked else { continue }
      let stage = task.plan.stage.text
      guard case .running(let worker) = task.state else {
        return "while the job waited for a \(stage)" + (lacksAdapters(task) ? " that has its adapters" : "")
      }
      let steps = workers[worker]?.attempts[AttemptID(task: id, number: task.attemptNumber)]?.completedSteps ?? 0
      return "in the \(stage)" + (task.plan.stepCount > 0 ? " after \(steps) of \(task.plan.stepCount) steps" : "")
    }
    return "before the job could begin"
  }
}
