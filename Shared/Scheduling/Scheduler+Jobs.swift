import ClusterCore
import OrderedCollections

extension Scheduler {
  /// Admits all of `submissions` or none, once the journal has them.
  mutating func submit(_ submissions: [ImageJobSubmission], now: Instant) {
    if let failure = refusal(of: submissions, now: now) {
      effects += submissions.map { .rejected($0.id, failure) }
    } else if !submissions.isEmpty {
      journalAdmission(of: submissions)
    }
  }

  private func refusal(of submissions: [ImageJobSubmission], now: Instant) -> Status? {
    if let disownedReason { return disownedReason }
    let isKnown = { (id: ImageJobID) in jobs[id] != nil || admissions[id] != nil || endings[id] != nil }
    if Set(submissions.map(\.id)).count < submissions.count || submissions.contains(where: { isKnown($0.id) }) {
      return Status(.alreadyExists, "a job with this id exists already")
    }
    if submissions.contains(where: { $0.deadline.map { $0 <= now } ?? false }) {
      return Status(.deadlineExceeded, "the deadline had passed before the job was submitted")
    }
    guard pending.count < configuration.maxJournalEntries else {
      return Status(
        .unavailable,
        "the journal is behind: \(pending.count) entries wait to be written, "
          + "the limit is \(configuration.maxJournalEntries)",
        retryAfterSeconds: 5)
    }
    let present = placesTaken + others.openJobs
    guard submissions.count <= configuration.maxJobs - present else {
      return Status(
        .resourceExhausted,
        "the queue is full: \(present) of \(configuration.maxJobs) jobs are waiting or running, "
          + "and \(submissions.count) more were asked for",
        retryAfterSeconds: secondsToNextFreePlace(), resource: .queue)
    }
    return refusalByTenant(of: submissions)
  }

  private func refusalByTenant(of submissions: [ImageJobSubmission]) -> Status? {
    for tenant in OrderedSet(submissions.map(\.tenant)) {
      guard let limit = policy(of: tenant).maxJobs else { continue }
      let wanted = submissions.count { $0.tenant == tenant }
      let present = (queues.tenants[tenant]?.jobCount ?? 0) + others.openJobs(of: tenant)
      guard wanted > limit - present else { continue }
      return Status(
        .resourceExhausted,
        "tenant \(tenant) has \(present) of \(limit) jobs waiting or running, and \(wanted) more were asked for",
        retryAfterSeconds: secondsToNextFreePlace(of: tenant), resource: .tenantQueue)
    }
    return nil
  }

  /// Takes a job in that is durable: a new one, or what is left of one from an earlier run or of another owner.
  mutating func admit(_ restored: RestoredImageJob, from origin: ImageJob.Origin, now: Instant) {
    let submission = restored.submission
    lastRank += 1
    var job = ImageJob(submission, from: origin, rank: lastRank, admittedAt: now)
    if origin != .admitted { queues.count(1, of: submission.tenant) }
    for task in restored.tasks where job.plan.tasks.indices.contains(task.index) {
      guard let payload = task.output, let numericsClass = task.numericsClass else { continue }
      ledger.retain(payload)
      job.outputs[task.index] = Output(payload: payload, numericsClass: numericsClass, isJournalled: true)
    }
    let isDue = dueTasks(of: job)
    for index in job.plan.tasks.indices {
      job.tasks.append(isDue[index] ? place(TaskID(job: submission.id, index: index), of: &job, restored) : nil)
    }
    let principal = job.plan.principal
    job.isStarted =
      !isDue[principal]
      || restored.tasks.contains { $0.index == principal && ($0.attemptNumber > 0 || $0.checkpoint != nil) }
    jobs[submission.id] = job
    if job.isStarted {
      queues.insertBegun(job.ranked)
    } else {
      queues.insert(job.ranked, of: submission.tenant, isUrgent: job.isUrgent)
      if let id = job.tasks[principal], case .ready = tasks[id]?.state { queues.ready.insert(job.ranked) }
    }
    if let deadline = submission.deadline { deadlines.insert(job.ranked, at: deadline) }
    isOrderNew = true
    if job.tasks[job.plan.tasks.count - 1] == nil {
      finishJob(submission.id)
    } else {
      unblockTasks(of: submission.id, now: now)
      let cached = job.plan.tasks.indices.filter { job.outputs[$0].map { !$0.isJournalled } ?? false }
      for index in cached { journalOutputs([TaskID(job: submission.id, index: index)]) }
    }
  }

  /// Which tasks of the plan must be done: the last one, and what such a task needs, as far as the output is not there.
  private func dueTasks(of job: ImageJob) -> [Bool] {
    var isDue = job.plan.tasks.map { _ in false }
    for index in job.plan.tasks.indices.reversed() where job.outputs[index] == nil {
      let isLast = index == job.plan.tasks.count - 1
      isDue[index] =
        isLast || job.plan.tasks.indices.contains { isDue[$0] && job.plan.tasks[$0].inputs.contains(index) }
    }
    return isDue
  }

  /// Finds out who does a task of a new job; nil: it is done, and the job has the output.
  private mutating func place(_ id: TaskID, of job: inout ImageJob, _ restored: RestoredImageJob) -> TaskID? {
    let plan = job.plan.tasks[id.index]
    let key = ContentKey(plan, of: job.submission.model)
    if let key, let output = cache.output(for: key) {
      ledger.retain(output.payload)
      job.outputs[id.index] = output
      return nil
    }
    if let key, let sharedID = shared[key] {
      tasks[sharedID]?.waiters.append(id.job)
      return sharedID
    }
    let record = restored.tasks.first { $0.index == id.index }
    guard record != nil || job.hasInputs(of: id.index) else { return id }
    var task = newTask(id, of: job, after: record?.attemptNumber ?? 0)
    // Without the inputs that led to them, an attempt and its checkpoint are worth nothing.
    if let record, plan.inputs.allSatisfy({ job.outputs[$0]?.isJournalled ?? false }) {
      task.attemptNumber = record.attemptNumber < task.numbers.first ? record.attemptNumber : 0
      if let checkpoint = record.checkpoint, (1..<max(1, plan.stepCount)).contains(checkpoint.completedSteps),
        let numericsClass = record.numericsClass
      {
        ledger.retain(checkpoint.latents)
        task.checkpoint = checkpoint
        task.numericsClass = numericsClass
        task.journalledSteps = checkpoint.completedSteps
      }
    }
    tasks[id] = task
    if let key { shared[key] = id }
    return id
  }

  /// - Parameter lastNumber: the task's last attempt that the journal knows; 0: none.
  private func newTask(_ id: TaskID, of job: ImageJob, after lastNumber: UInt32 = 0) -> ImageTask {
    var task = ImageTask(id.index, of: job)
    task.waiters = [id.job]
    switch job.origin {
    case .admitted where owner != 0: break
    case .admitted, .restored: task.numbers = AttemptNumbers(run: run, after: lastNumber)
    case .adopted where omissions.contains(.adoptedNumbers): break
    case .adopted: task.numbers = AttemptNumbers(after: lastNumber)
    }
    return task
  }

  /// Makes those tasks of the job ready whose inputs are there, and gives the outputs up that nothing needs any more.
  mutating func unblockTasks(of id: ImageJobID, now: Instant) {
    guard let job = jobs[id] else { return }
    // What is shared has no inputs.
    for case .some(let taskID) in job.tasks where taskID.job == id && job.hasInputs(of: taskID.index) {
      if tasks[taskID] == nil { tasks[taskID] = newTask(taskID, of: job) }
      guard tasks[taskID]?.state == .blocked else { continue }
      tasks[taskID]?.state = .ready(notBefore: now)
      noteReady(taskID)
    }
    for index in job.plan.tasks.indices {
      guard let output = job.outputs[index] else { continue }
      let isNeeded = job.plan.tasks.indices.contains {
        job.tasks[$0] != nil && job.plan.tasks[$0].inputs.contains(index)
      }
      if !isNeeded {
        jobs[id]?.outputs[index] = nil
        release(output.payload)
      }
    }
  }

  /// Gives a task's output to a job that waits for it.
  mutating func deliver(_ output: Output, of taskID: TaskID, to id: ImageJobID, now: Instant) {
    guard let job = jobs[id] else { return }
    for index in job.tasks.indices where job.tasks[index] == taskID {
      ledger.retain(output.payload)
      jobs[id]?.outputs[index] = output
      jobs[id]?.tasks[index] = nil
    }
    if jobs[id]?.tasks.last == .some(nil) {
      finishJob(id)
    } else {
      unblockTasks(of: id, now: now)
    }
  }

  private mutating func finishJob(_ id: ImageJobID) {
    guard let job = jobs.removeValue(forKey: id), let output = job.outputs[job.plan.tasks.count - 1] else {
      preconditionFailure("job \(id) has no output to finish with")
    }
    ledger.retain(output.payload)
    end(job, .finished(output.payload))
    drop(job)
  }

  /// Ends the job, whatever runs for it; a job that has ended already is left alone.
  mutating func failJob(_ id: ImageJobID, _ failure: Status) {
    if admissions[id] != nil { admissions[id]?.cancelReason = failure }
    guard let job = jobs.removeValue(forKey: id) else { return }
    end(job, .failed(failure))
    drop(job)
  }

  /// Lets go of what a job held that is not among the jobs any more.
  private mutating func drop(_ job: ImageJob) {
    isOrderNew = true
    if job.isStarted {
      queues.removeBegun(job.ranked)
    } else {
      queues.remove(job.ranked, of: job.submission.tenant, isUrgent: job.isUrgent)
    }
    noteEnd(of: job.submission.id)
    for case .some(let taskID) in job.tasks {
      tasks[taskID]?.waiters.remove(job.submission.id)
      if tasks[taskID]?.waiters.isEmpty == true { abandon(taskID) }
    }
    for output in job.heldOutputs { release(output.payload) }
  }

  /// No job needs the task any more.
  private mutating func abandon(_ id: TaskID) {
    guard let task = tasks.removeValue(forKey: id) else { return }
    if let key = task.key { shared[key] = nil }
    if !claimable.isEmpty { claimable.remove(id) }
    if let checkpoint = task.checkpoint { release(checkpoint.latents) }
    if case .running(let worker) = task.state {
      revoke(AttemptID(task: id, number: task.attemptNumber), at: worker, reason: "no job waits for the task any more")
    }
  }
}
