import OrderedCollections

extension Scheduler {
  /// Admits all of `submissions` or none.
  mutating func submit(_ submissions: [JobSubmission], now: Instant) {
    if let failure = refusal(of: submissions, now: now) {
      effects += submissions.map { .rejected($0.id, failure) }
      return
    }
    for submission in submissions { admit(submission, now: now) }
  }

  private func refusal(of submissions: [JobSubmission], now: Instant) -> Failure? {
    if Set(submissions.map(\.id)).count < submissions.count || submissions.contains(where: { jobs[$0.id] != nil }) {
      return Failure(.alreadyExists, "a job with this id exists already")
    }
    if submissions.contains(where: { $0.deadline.map { $0 <= now } ?? false }) {
      return Failure(.deadlineExceeded, "the deadline had passed before the job was submitted")
    }
    guard submissions.count <= configuration.maxJobs - jobs.count else {
      return Failure(
        .resourceExhausted,
        "the queue is full: \(jobs.count) of \(configuration.maxJobs) jobs are waiting or running, and \(submissions.count) more were asked for",
        retryAfterSeconds: secondsToNextFreePlace())
    }
    return nil
  }

  private mutating func admit(_ submission: JobSubmission, now: Instant) {
    let plan = submission.plan
    var job = Job(submission: submission, tasks: [], outputs: Array(repeating: nil, count: plan.tasks.count))
    for (index, taskPlan) in plan.tasks.enumerated() {
      let id = TaskID(job: submission.id, index: index)
      let key = taskPlan.content.map { ContentKey(model: submission.model, stage: taskPlan.stage, content: $0) }
      if let key, let output = cache.output(for: key) {
        ledger.retain(output)
        job.outputs[index] = output
        job.tasks.append(nil)
      } else if let key, let sharedID = shared[key] {
        tasks[sharedID]?.waiters.append(submission.id)
        job.tasks.append(sharedID)
      } else {
        tasks[id] = StageTask(plan: taskPlan, model: submission.model, key: key, state: .blocked, waiters: [submission.id])
        if let key { shared[key] = id }
        job.tasks.append(id)
      }
    }
    jobs[submission.id] = job
    isOrderNew = true
    if job.tasks[plan.tasks.count - 1] == nil {
      finishJob(submission.id)
    } else {
      unblockTasks(of: submission.id, now: now)
    }
  }

  /// Makes those tasks of the job ready whose inputs are there, and gives the outputs up that nothing needs any more.
  mutating func unblockTasks(of id: JobID, now: Instant) {
    guard let job = jobs[id] else { return }
    for case .some(let taskID) in job.tasks {
      guard let task = tasks[taskID], task.state == .blocked else { continue }
      if task.plan.inputs.allSatisfy({ job.outputs[$0] != nil }) { tasks[taskID]?.state = .ready(notBefore: now) }
    }
    for (index, output) in job.outputs.enumerated() {
      guard let output else { continue }
      let isNeeded = job.plan.tasks.indices.contains { job.tasks[$0] != nil && job.plan.tasks[$0].inputs.contains(index) }
      if !isNeeded {
        jobs[id]?.outputs[index] = nil
        release(output)
      }
    }
  }

  /// Gives a task's output to a job that waits for it.
  mutating func deliver(_ output: Payload, of taskID: TaskID, to id: JobID, now: Instant) {
    guard let job = jobs[id] else { return }
    for index in job.tasks.indices where job.tasks[index] == taskID {
      ledger.retain(output)
      jobs[id]?.outputs[index] = output
      jobs[id]?.tasks[index] = nil
    }
    if jobs[id]?.tasks.last == .some(nil) {
      finishJob(id)
    } else {
      unblockTasks(of: id, now: now)
    }
  }

  private mutating func finishJob(_ id: JobID) {
    guard let job = jobs.removeValue(forKey: id), let output = job.outputs[job.plan.tasks.count - 1] else {
      preconditionFailure("job \(id) has no output to finish with")
    }
    effects.append(.job(id, .finished(output: output)))
    drop(job)
  }

  mutating func failJob(_ id: JobID, _ failure: Failure) {
    guard let job = jobs.removeValue(forKey: id) else { return }
    effects.append(.job(id, .failed(failure)))
    drop(job)
  }

  /// Lets go of what a job held that is not among the jobs any more.
  private mutating func drop(_ job: Job) {
    isOrderNew = true
    for case .some(let taskID) in job.tasks {
      tasks[taskID]?.waiters.remove(job.submission.id)
      if tasks[taskID]?.waiters.isEmpty == true { abandon(taskID) }
    }
    for case .some(let output) in job.outputs { release(output) }
  }

  /// Nobody needs the task any more.
  private mutating func abandon(_ id: TaskID) {
    guard let task = tasks.removeValue(forKey: id) else { return }
    if let key = task.key { shared[key] = nil }
    if let checkpoint = task.checkpoint { release(checkpoint.latents) }
    if case .running(let worker) = task.state {
      revoke(AttemptID(task: id, number: task.attemptNumber), at: worker, reason: "nobody waits for the task any more")
    }
  }
}
