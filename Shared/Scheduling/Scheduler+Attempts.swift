import ClusterCore
import OrderedCollections

extension Scheduler {
  /// Whether the attempt's answers count: its task is there and waits for exactly this attempt by exactly this worker.
  private func isCurrent(_ attempt: AttemptID, by worker: WorkerID) -> Bool {
    guard attempt.assistance == 0, let task = tasks[attempt.task] else { return false }
    if omissions.contains(.fencing), workers[worker]?.attempts[attempt] != nil { return true }
    return task.attemptNumber == attempt.number && task.state == .running(worker)
  }

  mutating func progress(_ id: AttemptID, by worker: WorkerID, _ report: StepReport, now: Instant) {
    guard isCurrent(id, by: worker), let task = tasks[id.task], var attempt = workers[worker]?.attempts[id],
      report.completedSteps > attempt.completedSteps || omissions.contains(.stepOrder),
      report.completedSteps <= task.plan.stepCount
    else {
      if let latents = report.checkpoint { discard(latents) }
      return
    }
    let stepSeconds = plausible(report.stepSeconds, elapsed: (now - attempt.stepStartedAt).seconds)
    attempt.state = .running
    attempt.completedSteps = report.completedSteps
    attempt.stepStartedAt = now
    attempt.ownSteps += 1
    attempt.ownStepSeconds += stepSeconds
    attempt.slowestStepSeconds = max(attempt.slowestStepSeconds, stepSeconds)
    workers[worker]?.attempts[id] = attempt
    if assistants[id] == nil, !task.plan.hasUnevenSteps {
      workers[worker]?.measure(cost: task.plan.cost / Double(task.plan.stepCount), seconds: stepSeconds)
    }
    if let latents = report.checkpoint { keep(latents, after: report.checkpointSteps, of: id.task, by: worker) }
    let left = Double(task.plan.stepCount - report.completedSteps) * attempt.ownStepSeconds / Double(attempt.ownSteps)
    for place in places(of: id.task) {
      guard let plan = jobs[place.job]?.plan else { continue }
      effects.append(
        .image(
          place.job,
          .progressed(
            completedSteps: plan.stepCount(before: place.index) + report.completedSteps, stepCount: plan.stepCount,
            secondsLeft: left + seconds(ofTasksAfter: place.index, in: plan))))
    }
  }

  /// What a worker says a step took, as long as that can be true; else what passed here.
  private func plausible(_ reported: Double, elapsed: Double) -> Double {
    reported >= 0 && reported <= elapsed + 1 ? reported : max(0, elapsed)
  }

  /// A new checkpoint is progress: earlier failures do not count towards the limit any more.
  private mutating func keep(_ latents: Payload, after completedSteps: Int, of id: TaskID, by worker: WorkerID) {
    // After the last step there is nothing to resume: the output is about to come. One that is not newer, as steps that
    // use what an earlier one has computed give, is no progress.
    let kept = tasks[id]?.checkpoint?.completedSteps ?? 0
    guard completedSteps < tasks[id]?.plan.stepCount ?? 0, completedSteps > kept || omissions.contains(.stepOrder)
    else {
      discard(latents)
      return
    }
    guard let numericsClass = workers[worker]?.registration.numericsClass else { return }
    ledger.retain(latents)
    if let old = tasks[id]?.checkpoint { release(old.latents) }
    tasks[id]?.checkpoint = Checkpoint(completedSteps: completedSteps, latents: latents)
    tasks[id]?.numericsClass = numericsClass
    tasks[id]?.failures = []
    tasks[id]?.failedOn = []
    journalCheckpoint(of: id)
  }

  mutating func finish(_ id: AttemptID, by worker: WorkerID, output: Payload, now: Instant) {
    let isCurrent = isCurrent(id, by: worker)
    let freeCredits = workers[worker]?.freeCredits ?? 0
    let attempt = workers[worker]?.attempts.removeValue(forKey: id)
    noteFree(worker, before: freeCredits, now: now)
    if id.assistance > 0, let name = workers[worker]?.registration.name {
      loseAssistant(id, Status(.internal, "worker \(name) has ended its assistance with an output"), by: name)
    }
    let places = places(of: id.task)
    guard isCurrent, let attempt, let numericsClass = workers[worker]?.registration.numericsClass,
      let task = tasks.removeValue(forKey: id.task)
    else {
      discard(output)
      return
    }
    workers[worker]?.faults = 0
    workers[worker]?.quarantinedUntil = nil
    workers[worker]?.tasksFinished += 1
    recordPace(of: attempt, at: worker, task, now: now)
    recordOccupancy(of: attempt, at: worker, task.plan, now: now)
    ledger.retain(output)
    let result = Output(payload: output, numericsClass: numericsClass)
    if let key = task.key {
      shared[key] = nil
      if let evicted = cache.insert(result, for: key) {
        ledger.retain(output)
        for payload in evicted { release(payload) }
      }
    }
    if let checkpoint = task.checkpoint { release(checkpoint.latents) }
    for job in task.waiters { deliver(result, of: id.task, to: job, now: now) }
    journalOutputs(places)
    release(output)
  }

  private mutating func recordPace(of attempt: Attempt, at worker: WorkerID, _ task: ImageTask, now: Instant) {
    if task.plan.stepCount == 0 {
      let seconds = (now - attempt.offeredAt).seconds
      pace.record(task.plan.stage, cost: task.plan.cost, seconds: seconds)
      workers[worker]?.measure(cost: task.plan.cost, seconds: seconds)
    } else if attempt.ownSteps > 0 {
      let stepCost = task.plan.cost / Double(task.plan.stepCount), steps = Double(attempt.ownSteps)
      guard task.plan.hasUnevenSteps else {
        pace.record(task.plan.stage, cost: stepCost * steps, seconds: attempt.ownStepSeconds)
        return
      }
      pace.record(task.plan.stage, cost: stepCost * steps, seconds: attempt.slowestStepSeconds * steps)
      workers[worker]?.measure(cost: stepCost, seconds: attempt.slowestStepSeconds)
    }
  }

  mutating func fail(_ id: AttemptID, by worker: WorkerID, _ failure: Status, now: Instant) {
    let isCurrent = isCurrent(id, by: worker)
    let freeCredits = workers[worker]?.freeCredits ?? 0
    guard let attempt = workers[worker]?.attempts.removeValue(forKey: id), let record = workers[worker] else { return }
    noteFree(worker, before: freeCredits, now: now)
    if id.assistance > 0 { loseAssistant(id, failure, by: record.registration.name) }
    guard isCurrent else { return }
    let name = record.registration.name
    if attempt.state == .offered, failure.code == .resourceExhausted || failure.code == .unavailable {
      // It has no capacity for the task, whatever its credits here say: not counted as a fault. Its next report brings
      // the credits up to date.
      workers[worker]?.haveNoFreeCredits()
      free.update(worker, workers[worker])
      refuse(id, failure, by: name, now: now)
      return
    }
    workers[worker]?.tasksFailed += 1
    guard failure.code.allowsAnotherAttempt else {
      failWaiters(of: id.task, failure)
      return
    }
    // A worker that drains gives up what it runs: neither its fault nor the task's.
    if !record.isLeaving { countFault(of: worker, failure, now: now) }
    retry(id, failure, by: name, isBlameless: record.isLeaving, now: now)
  }

  /// A worker had no credit for an offer. The others are tried at once, but after some refusals in a row not all at a
  /// time: an offer may carry much, and they may all work for another gateway.
  private mutating func refuse(_ id: AttemptID, _ failure: Status, by name: String, now: Instant) {
    retry(id, failure, by: name, isBlameless: true, isOfInterest: false, now: now)
    guard let task = tasks[id.task], case .ready = task.state else { return }
    tasks[id.task]?.refusals += 1
    guard task.refusals >= Self.refusalsWithoutPause else { return }
    let pause = doubled(
      configuration.refusalDelay, times: task.refusals - Self.refusalsWithoutPause,
      atMost: configuration.maxRefusalDelay)
    tasks[id.task]?.state = .ready(notBefore: now + pause)
  }

  /// Refusals in a row after which a task waits before it is offered again.
  private static let refusalsWithoutPause = 4

  /// Fails every job that waits for the task. A failure that blames a field of the stage's request blames the field of
  /// the client's request that it was made of: the same prompt may be the negative prompt of another job.
  private mutating func failWaiters(of id: TaskID, _ failure: Status) {
    for place in places(of: id) {
      let field = jobs[place.job]?.plan.tasks[place.index].field
      failJob(place.job, field.map { failure.blaming($0) } ?? failure)
    }
  }

  /// Makes the task ready for another attempt, or fails its jobs after too many.
  ///
  /// - Parameter isOfInterest: whether clients are notified.
  mutating func retry(
    _ id: AttemptID, _ failure: Status, by workerName: String, isBlameless: Bool = false, isOfInterest: Bool = true,
    now: Instant
  ) {
    guard id.assistance == 0 else { return loseAssistant(id, failure, by: workerName) }
    guard let task = tasks[id.task], task.attemptNumber == id.number else { return }
    var failures = task.failures
    if !isBlameless { failures.append(failure) }
    guard failures.count < configuration.maxAttempts, !AttemptNumbers.areUsedUp(after: task.attemptNumber) else {
      let reasons = failures.map(\.message).joined(separator: "; ")
      let message = "the \(task.plan.stage.text) failed \(failures.count) times in a row: \(reasons)"
      // The attempt is over: nothing is left to revoke.
      tasks[id.task]?.state = .blocked
      failWaiters(of: id.task, Status(failure.code == .unavailable ? .unavailable : .internal, message))
      return
    }
    let delay: Duration =
      failures.count < 2 || isBlameless
      ? .zero : doubled(configuration.retryDelay, times: failures.count - 2, atMost: configuration.maxRetryDelay)
    tasks[id.task]?.failures = failures
    if !isBlameless { tasks[id.task]?.failedOn.append(workerName) }
    tasks[id.task]?.state = .ready(notBefore: now + delay)
    noteReady(id.task)
    if isOfInterest { effects += task.waiters.map { .image($0, .retrying(task.plan.stage, failure)) } }
  }

  /// Stops an attempt. It keeps its credit until the worker lets go of it.
  mutating func revoke(_ id: AttemptID, at worker: WorkerID, reason: String) {
    guard workers[worker]?.attempts[id] != nil else { return }
    workers[worker]?.attempts[id]?.state = .revoked
    workers[worker]?.attempts[id]?.missedReports = 0
    workers[worker]?.attempts[id]?.missedAt = lastStepAt
    effects.append(.cancel(id, at: worker, reason: reason))
  }
}
