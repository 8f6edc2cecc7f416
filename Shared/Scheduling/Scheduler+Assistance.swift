import ClusterCore

/// A worker that makes the second predictions of an attempt's guided steps.
struct Assistance: Hashable, Sendable {
  /// Its own name, which holds a credit of the worker.
  let id: AttemptID
  let worker: WorkerID
}

/// Guided steps predict two velocities that do not depend on one another. While a worker has nothing else to do, it
/// makes one of them for an attempt of another worker of its class: the image's bytes are the same, and the step takes
/// half as long. Every task comes first: an assistant is released when one waits. The attempt does not depend on it.
extension Scheduler {
  /// Gives attempts with long guided steps idle workers.
  mutating func assignAssistants(now: Instant) {
    guard let shortest = configuration.assistedStepDuration else { return }
    var idle = workers.values.filter {
      $0.registration.assists && $0.isIdle && !$0.isLeaving && !$0.isQuarantined(now: now)
    }
    guard !idle.isEmpty else { return }
    for worker in workers.values where worker.registration.assists && !worker.isLeaving {
      for (attempt, record) in worker.attempts where assistants[attempt] == nil && isAssistable(attempt, record) {
        guard let task = tasks[attempt.task], record.ownStepSeconds / Double(record.ownSteps) >= shortest.seconds,
          let index = idle.firstIndex(where: {
            $0.takes(task) && $0.registration.numericsClass == worker.registration.numericsClass
              && !record.lostAssistants.contains($0.registration.name)
              && !task.failedOn.contains($0.registration.name)
          })
        else { continue }
        assist(attempt, task, by: idle.remove(at: index).registration.id, now: now)
      }
    }
  }

  /// Whether the attempt runs, has shown how long its steps take, and has two guided steps left at least.
  private func isAssistable(_ attempt: AttemptID, _ record: Attempt) -> Bool {
    guard attempt.assistance == 0, record.state == .running, record.ownSteps > 0, let task = tasks[attempt.task],
      task.attemptNumber == attempt.number
    else { return false }
    return task.plan.guidedStepCount - record.completedSteps >= 2
  }

  private mutating func assist(
    _ attempt: AttemptID, _ task: ImageTask, by assistant: WorkerID, now: Instant
  ) {
    guard let waiter = waiter(for: attempt), let job = jobs[waiter.job] else { return }
    lastAssistance += 1
    let id = AttemptID(task: attempt.task, number: attempt.number, assistance: lastAssistance)
    workers[assistant]?.attempts[id] = Attempt(offeredAt: now, completedSteps: 0)
    free.update(assistant, workers[assistant])
    assistants[attempt] = Assistance(id: id, worker: assistant)
    let offer = Offer(
      attempt: id, job: waiter.job, index: waiter.index,
      inputs: task.plan.inputs.compactMap { job.outputs[$0]?.payload }, resume: nil, deadline: nil)
    effects.append(.offer(offer, to: assistant))
  }

  /// The worker at the other end of an assistance, and the name by which it knows it: of the attempt that `worker`
  /// calls `id`; nil: there is none.
  public func partner(of id: AttemptID, at worker: WorkerID) -> (id: AttemptID, worker: WorkerID)? {
    guard let assistance = assistants[id.main], let task = tasks[id.task], case .running(let holder) = task.state
    else { return nil }
    if id == assistance.id { return assistance.worker == worker ? (id.main, holder) : nil }
    return id.assistance == 0 && holder == worker ? (assistance.id, assistance.worker) : nil
  }

  /// Ends the assistances that are of no use any more.
  mutating func endAssistances() {
    for (attempt, assistance) in assistants where !isUseful(assistance, of: attempt) {
      if omissions.contains(.assistance) { continue }
      assistants[attempt] = nil
      revoke(assistance.id, at: assistance.worker, reason: "the attempt needs no assistant any more")
    }
  }

  private func isUseful(_ assistance: Assistance, of attempt: AttemptID) -> Bool {
    guard let task = tasks[attempt.task], task.attemptNumber == attempt.number, case .running(let worker) = task.state,
      let record = workers[worker]?.attempts[attempt], let assistant = workers[assistance.worker]
    else { return false }
    return record.completedSteps < task.plan.guidedStepCount && !assistant.isLeaving
  }

  /// Workers that are asked to leave an assistance and have not let go of it yet.
  var releasingCount: Int {
    workers.values.count { worker in
      worker.attempts.contains { $0.key.assistance > 0 && $0.value.state == .revoked }
    }
  }

  /// A task that waits takes the worker that began to assist last.
  ///
  /// - Parameter releasing: workers that are about to be free, each for one of the tasks that wait.
  mutating func releaseAssistant(for task: ImageTask, _ releasing: inout Int) {
    let attempt = assistants.keys.last { attempt in
      guard let worker = assistants[attempt].flatMap({ workers[$0.worker] }) else { return false }
      return worker.takes(task) && task.numericsClass.map { $0 == worker.registration.numericsClass } ?? true
        && !task.failedOn.contains(worker.registration.name)
    }
    guard let attempt, let assistance = assistants[attempt] else { return }
    guard releasing == 0 else {
      releasing -= 1
      return
    }
    let reason = "the assistant has a task of its own"
    assistants[attempt] = nil
    revoke(assistance.id, at: assistance.worker, reason: reason)
    tellLoss(of: attempt, reason)
  }

  /// The assistant is gone, or has failed; it is not asked again for this attempt.
  mutating func loseAssistant(_ id: AttemptID, _ failure: Status, by name: String) {
    let attempt = id.main
    guard assistants[attempt]?.id == id else { return }
    assistants[attempt] = nil
    if let task = tasks[attempt.task], case .running(let worker) = task.state {
      workers[worker]?.attempts[attempt]?.lostAssistants.insert(name)
    }
    tellLoss(of: attempt, failure.message)
  }

  private mutating func tellLoss(of attempt: AttemptID, _ reason: String) {
    guard let task = tasks[attempt.task], task.attemptNumber == attempt.number, case .running(let worker) = task.state
    else { return }
    effects.append(.assistantLost(attempt, at: worker, reason: reason))
  }
}
