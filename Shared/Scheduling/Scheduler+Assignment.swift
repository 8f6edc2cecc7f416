import OrderedCollections

extension Scheduler {
  /// Offers ready tasks to workers with free credits, in the order of the jobs.
  mutating func assignTasks(now: Instant) {
    guard workers.values.contains(where: { $0.freeCredits > 0 && !$0.isLeaving }) || !assistants.isEmpty else { return }
    if isOrderNew { refreshOrder() }
    let othersFirst = firstWaitingElsewhere()
    var waiting = 0
    var releasing = assistants.isEmpty ? 0 : releasingCount
    for id in order {
      guard let job = jobs[id] else { continue }
      let principal = job.plan.principal
      let mayEncode = job.isStarted || waiting < configuration.encodeAheadJobs
      if !job.isStarted { waiting += 1 }
      for (index, taskID) in job.tasks.enumerated() where index == principal || mayEncode {
        guard let taskID, let task = tasks[taskID], case .ready(let notBefore) = task.state, notBefore <= now
        else { continue }
        let yields =
          !job.isStarted && index == principal && othersFirst.map { $0.isBefore(place(of: job, now: now)) } ?? false
        if let worker = worker(for: task, yields: yields, now: now) {
          guard reserveNumber(of: taskID) else { continue }
          offer(taskID, task, number: index, of: id, to: worker, now: now)
        } else if !yields {
          releaseAssistant(for: task, &releasing)
        }
      }
    }
  }

  /// The worker to offer a task to: of those that may do it the one with most free credits or with its adapters in
  /// memory, and among equals the oldest, or with several owners the one with the smallest precedence. One that has
  /// failed with the task gets it again only when there is no other, free or not.
  ///
  /// - Parameter yields: whether workers that have just become free are left to other owners.
  private func worker(for task: ImageTask, yields: Bool, now: Instant) -> WorkerID? {
    var best: (worker: WorkerID, preference: Int, precedence: UInt64)?
    var isAnotherThere = false
    for worker in workers.values {
      let registration = worker.registration
      guard worker.takes(task, ofAnyModel: omissions.contains(.model)), !worker.isLeaving,
        !worker.isQuarantined(now: now),
        task.numericsClass.map({ $0 == registration.numericsClass || omissions.contains(.numericsClass) }) ?? true
      else { continue }
      let hasFailed = task.failedOn.contains(registration.name)
      if !hasFailed, !isAnotherThere {
        isAnotherThere = true
        best = nil
      }
      let freeCredits = omissions.contains(.credits) ? registration.credits : worker.freeCredits
      guard freeCredits > 0, !(hasFailed && isAnotherThere), !(yields && isLeftToOthers(worker, now: now))
      else { continue }
      let preference = worker.preference(for: task, freeCredits: worker.freeCredits)
      let isBetter =
        best.map { ($0.preference, worker.precedence) < (preference, $0.precedence) } ?? true
      if isBetter { best = (registration.id, preference, worker.precedence) }
    }
    return best?.worker
  }

  private mutating func offer(
    _ id: TaskID, _ task: ImageTask, number index: Int, of owner: ImageJobID, to worker: WorkerID, now: Instant
  ) {
    guard let job = jobs[owner] else { return }
    var numbers = task.numbers
    let attempt = AttemptID(task: id, number: numbers.next(after: task.attemptNumber))
    let deadlines = task.waiters.map { jobs[$0]?.submission.deadline }
    tasks[id]?.attemptNumber = attempt.number
    if !claimable.isEmpty { claimable.remove(id) }
    tasks[id]?.state = .running(worker)
    workers[worker]?.attempts[attempt] = Attempt(offeredAt: now, completedSteps: task.checkpoint?.completedSteps ?? 0)
    let offer = Offer(
      attempt: attempt, job: owner, index: index, inputs: task.plan.inputs.compactMap { job.outputs[$0]?.payload },
      resume: task.checkpoint,
      deadline: deadlines.contains(nil) ? nil : deadlines.compactMap { $0 }.max())
    journalAttempt(attempt)
    effects.append(.offer(offer, to: worker))
    for waiter in task.waiters {
      guard let waiting = jobs[waiter] else { continue }
      let isMain = waiting.tasks[waiting.plan.principal] == id
      if isMain { start(waiter) }
      effects.append(.image(waiter, .started(task.plan.stage, isMain: isMain, attempt: attempt.number)))
    }
  }

  /// Tells each job that no stage has begun the main work of how many such jobs come before it, when that has changed.
  mutating func tellPositions() {
    guard isOrderNew else { return }
    refreshOrder()
    isOrderNew = false
    var position = 0
    var estimates: [ImageJobID: JobEstimate]?
    for id in order {
      guard let job = jobs[id], !job.isStarted else { continue }
      position += 1
      guard job.position != position else { continue }
      jobs[id]?.position = position
      let known = estimates ?? self.estimates(now: lastStepAt)
      estimates = known
      let estimate = known[id]
      effects.append(
        .image(
          id,
          .queued(
            position: position, secondsLeft: estimate?.secondsToEnd, secondsToStart: estimate?.secondsToStart)))
    }
  }

  /// How long the main work of a job takes from here; nil when that was never measured.
  private func remainingSeconds(of job: ImageJob, _ principal: TaskPlan) -> Double? {
    guard let all = pace.seconds(principal.stage, cost: principal.cost) else { return nil }
    guard let id = job.tasks[job.plan.principal] else { return 0 }
    guard let task = tasks[id], principal.stepCount > 0 else { return all }
    var completedSteps = task.checkpoint?.completedSteps ?? 0
    if case .running(let worker) = task.state {
      let attempt = AttemptID(task: id, number: task.attemptNumber)
      completedSteps = workers[worker]?.attempts[attempt]?.completedSteps ?? completedSteps
    }
    return all * Double(principal.stepCount - completedSteps) / Double(principal.stepCount)
  }

  /// How long the tasks after a job's main one take, as far as that was measured.
  func secondsAfterPrincipal(of id: ImageJobID) -> Double {
    guard let plan = jobs[id]?.plan else { return 0 }
    return seconds(ofTasksAfter: plan.principal, in: plan)
  }

  /// How long the tasks after task `index` take, as far as that was measured.
  func seconds(ofTasksAfter index: Int, in plan: ImageJobPlan) -> Double {
    plan.tasks[(index + 1)...].reduce(0) { $0 + (pace.seconds($1.stage, cost: $1.cost) ?? 0) }
  }

  /// When to ask again while the queue of all or of one tenant is full: the time the job takes that ends next; nil when
  /// that is not known.
  func secondsToNextFreePlace(of tenant: TenantID? = nil) -> Double? {
    jobs.values.compactMap { job in
      if let tenant, job.submission.tenant != tenant { return nil }
      return remainingSeconds(of: job, job.plan.tasks[job.plan.principal]).map {
        $0 + secondsAfterPrincipal(of: job.submission.id)
      }
    }.min()
  }
}
