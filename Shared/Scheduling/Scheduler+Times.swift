extension Scheduler {
  /// Ends what took too long: sessions without a message, offers without an answer, steps without an end, jobs past their deadline.
  mutating func checkTimes(now: Instant) {
    promoteOldJobs(now: now)
    retryEnds(now: now)
    for (id, worker) in workers where now - worker.lastHeardAt > configuration.lease {
      loseWorker(id, reason: "no message for \(Int((now - worker.lastHeardAt).seconds)) s", now: now)
    }
    for (id, worker) in workers {
      for attempt in worker.attempts.keys {
        // Read afresh: an earlier round may have revoked it.
        guard let record = workers[id]?.attempts[attempt], let failure = overdue(record, at: worker, now: now) else { continue }
        revoke(attempt, at: id, reason: failure.message)
        countFault(of: id, failure, now: now)
        retry(attempt, failure, by: worker.registration.name, now: now)
      }
    }
    for (id, job) in jobs {
      guard let deadline = job.submission.deadline, deadline <= now else { continue }
      failJob(id, Failure(.deadlineExceeded, "the deadline passed \(whereabouts(of: job))"))
    }
  }

  private func overdue(_ attempt: Attempt, at worker: Worker, now: Instant) -> Failure? {
    let name = worker.registration.name
    switch attempt.state {
    case .revoked: return nil
    case .offered:
      guard now - attempt.offeredAt > configuration.acceptLimit else { return nil }
      return Failure(.unavailable, "worker \(name) did not accept the task within \(configuration.acceptLimit)")
    case .running:
      let limit =
        attempt.ownSteps == 0
        ? configuration.firstStepLimit
        : max(configuration.stepLimit, .seconds(attempt.slowestStepSeconds * configuration.stepSlowdown))
      guard now - attempt.stepStartedAt > limit else { return nil }
      return Failure(.unavailable, "worker \(name) has not finished step \(attempt.completedSteps + 1) within \(limit)")
    }
  }

  /// Where a job that is given up was, for people.
  private func whereabouts(of job: Job) -> String {
    for case .some(let id) in job.tasks {
      guard let task = tasks[id], task.state != .blocked else { continue }
      let stage = task.plan.stage.rawValue
      guard case .running(let worker) = task.state else { return "while the job waited for a \(stage)" }
      let steps = workers[worker]?.attempts[AttemptID(task: id, number: task.attemptNumber)]?.completedSteps ?? 0
      return "in the \(stage)" + (task.plan.stepCount > 0 ? " after \(steps) of \(task.plan.stepCount) steps" : "")
    }
    return "before the job could begin"
  }
}
