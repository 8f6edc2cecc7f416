import OrderedCollections

extension Scheduler {
  /// Offers ready tasks to workers with free credits, in the order of the jobs.
  mutating func assignTasks(now: Instant) {
    guard !free.isEmpty || !assistants.isEmpty || omissions.contains(.credits) else { return }
    var round = Round(othersFirst: firstWaitingElsewhere(), releasing: assistants.isEmpty ? 0 : releasingCount)
    for ranked in Array(queues.readyBegun.all) {
      assign(ranked.id, mayEncode: true, &round, now: now)
      if !hasReadyTask(ranked.id) { queues.readyBegun.remove(ranked) }
    }
    let (ids, encodable) = candidates()
    for (number, id) in ids.enumerated() { assign(id, mayEncode: number < encodable, &round, now: now) }
  }

  /// What a round of offers keeps in mind.
  private struct Round {
    let othersFirst: QueuePlace?
    /// Workers that are about to be free.
    var releasing: Int
  }

  /// Jobs that wait and of which a task may be offered: the first ones, whose prompts may be encoded, and those after
  /// them whose main task is ready and could have a worker.
  private func candidates() -> (ids: [ImageJobID], encodable: Int) {
    var order = waiting
    var (ids, encodable) = encodableJobs(&order)
    var left = queues.ready.count - ids.count { jobs[$0].map { queues.ready.contains($0.ranked) } ?? false }
    let isAnyWanted =
      !assistants.isEmpty || queues.ready.all.prefix(256).contains { hasFreeWorker(forMainTaskOf: $0.id) }
    guard left > 0, isAnyWanted || queues.ready.count > 256 else { return (ids, encodable) }
    while left > 0, ids.count < Self.maxCandidates, let id = order.next() {
      guard let job = jobs[id], queues.ready.contains(job.ranked) else { continue }
      left -= 1
      if !assistants.isEmpty || hasFreeWorker(forMainTaskOf: id) { ids.append(id) }
    }
    return (ids, encodable)
  }

  /// The jobs whose prompts may be encoded: those for whose main task a worker is free that the jobs before leave, so
  /// that it does not wait for them, and `encodeAheadJobs` more. The job after them is the last of `ids`, if there is
  /// one.
  private func encodableJobs(_ order: inout WaitingOrder) -> (ids: [ImageJobID], encodable: Int) {
    var ids: [ImageJobID] = [], ahead = configuration.encodeAheadJobs
    var idle: [(kind: FreeWorkers.Kind, count: Int)] = []
    while ids.count < Self.maxCandidates, let id = order.next() {
      guard let job = jobs[id] else { continue }
      ids.append(id)
      let kind = FreeWorkers.Kind(stage: job.plan.tasks[job.plan.principal].stage, model: job.submission.model)
      let index = idle.firstIndex { $0.kind == kind } ?? idle.count
      if index == idle.count {
        // Of no use while no worker is free to encode.
        idle.append((kind, free.workers(of: job.plan.tasks[0].stage).isEmpty ? 0 : free.count(of: kind)))
      }
      if idle[index].count > 0 {
        idle[index].count -= 1
      } else if ahead > 0 {
        ahead -= 1
      } else {
        return (ids, ids.count - 1)
      }
    }
    return (ids, ids.count)
  }

  /// Jobs that one round looks at; more than workers that become free at a time.
  private static let maxCandidates = 4096

  private func hasFreeWorker(forMainTaskOf id: ImageJobID) -> Bool {
    guard let job = jobs[id] else { return false }
    return !free.workers(of: job.plan.tasks[job.plan.principal].stage).isEmpty || omissions.contains(.credits)
  }

  private func hasReadyTask(_ id: ImageJobID) -> Bool {
    jobs[id]?.tasks.contains { id in if let id, case .ready = tasks[id]?.state { true } else { false } } ?? false
  }

  private mutating func assign(_ id: ImageJobID, mayEncode: Bool, _ round: inout Round, now: Instant) {
    guard let job = jobs[id] else { return }
    let principal = job.plan.principal
    for (index, taskID) in job.tasks.enumerated() where index == principal || mayEncode {
      guard let taskID, let task = tasks[taskID], case .ready(let notBefore) = task.state, notBefore <= now
      else { continue }
      let yields =
        !job.isStarted && index == principal && round.othersFirst?.isBefore(place(of: job, now: now)) ?? false
      if let worker = worker(for: task, yields: yields, now: now) {
        guard reserveNumber(of: taskID) else { continue }
        offer(taskID, task, number: index, of: id, to: worker, now: now)
      } else if !yields {
        releaseAssistant(for: task, &round.releasing)
      }
    }
  }

  /// The worker to offer a task to: of those that may do it the one with most free credits or with its adapters in
  /// memory, and among equals the oldest, or with several owners the one with the smallest precedence. One that has
  /// failed with the task gets it again only when there is no other, free or not.
  ///
  /// - Parameter yields: whether workers that have just become free are left to other owners.
  private func worker(for task: ImageTask, yields: Bool, now: Instant) -> WorkerID? {
    guard task.failedOn.isEmpty, omissions.isDisjoint(with: [.credits, .model, .numericsClass]) else {
      return anyWorker(for: task, yields: yields, now: now)
    }
    var best: (worker: WorkerID, preference: Int)?
    let greatest = 2 * free.mostCredits(of: task.plan.stage) + (task.plan.adapters.isEmpty ? 0 : 3)
    for entry in free.workers(of: task.plan.stage) {
      guard let worker = workers[entry.id], worker.takes(task), !worker.isQuarantined(now: now),
        task.numericsClass.map({ $0 == worker.registration.numericsClass }) ?? true,
        !(yields && isLeftToOthers(worker, now: now))
      else { continue }
      let preference = worker.preference(for: task, freeCredits: worker.freeCredits)
      if best.map({ preference > $0.preference }) ?? true { best = (entry.id, preference) }
      if preference >= greatest { break }
    }
    return best?.worker
  }

  /// The same for a task that workers have failed with, of which also those count that are not free.
  private func anyWorker(for task: ImageTask, yields: Bool, now: Instant) -> WorkerID? {
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
    // More prompts may be encoded now.
    isAssignmentDue = true
    var numbers = task.numbers
    let attempt = AttemptID(task: id, number: numbers.next(after: task.attemptNumber))
    let deadlines = task.waiters.map { jobs[$0]?.submission.deadline }
    tasks[id]?.attemptNumber = attempt.number
    if !claimable.isEmpty { claimable.remove(id) }
    tasks[id]?.state = .running(worker)
    workers[worker]?.attempts[attempt] = Attempt(offeredAt: now, completedSteps: task.checkpoint?.completedSteps ?? 0)
    if case .ready(let readyAt) = task.state { workers[worker]?.attempts[attempt]?.waited = max(.zero, now - readyAt) }
    free.update(worker, workers[worker])
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
    let candidates = jobs.count <= Self.maxCandidates ? Array(jobs.keys) : queues.begun.all.prefix(1000).map(\.id)
    return candidates.compactMap { id in
      guard let job = jobs[id], tenant == nil || job.submission.tenant == tenant else { return nil }
      return remainingSeconds(of: job, job.plan.tasks[job.plan.principal]).map {
        $0 + secondsAfterPrincipal(of: job.submission.id)
      }
    }.min()
  }
}
