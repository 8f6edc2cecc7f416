import ClusterCore
import OrderedCollections

/// What is to be done when the journal has answered an entry.
enum PendingEntry: Hashable, Sendable {
  case admission([ImageJobID])
  case attempt
  case reservation(TaskID)
  case output(places: [TaskID])
  case checkpoint(TaskID, completedSteps: Int)
  case end(ImageJobID)
}

/// A job whose admission is on its way to the journal.
struct Admission: Hashable, Sendable {
  let submission: ImageJobSubmission
  /// Why it is not wanted any more.
  var cancelReason: Status?
}

/// A job that has ended, which the journal does not know yet.
struct Ending: Hashable, Sendable {
  enum Outcome: Hashable, Sendable {
    case finished(Payload)
    case failed(Status)
  }
  let tenant: TenantID
  let outcome: Outcome
  /// When to write it again; nil: it is on its way.
  var retryAt: Instant?
  var refusals = 0
}

extension Scheduler {
  /// Jobs of any state that count towards `maxJobs`.
  var placesTaken: Int { jobs.count + admissions.count + endings.count }

  var isJournalBusy: Bool { pending.count >= configuration.maxJournalEntries }

  mutating func journal(_ entry: JournalEntry, _ consequence: PendingEntry) {
    lastEntry = JournalSequence(lastEntry.number + 1)
    pending[lastEntry] = consequence
    effects.append(.journal(lastEntry, entry))
  }

  // MARK: Entries

  mutating func journalAdmission(of submissions: [ImageJobSubmission]) {
    for submission in submissions {
      admissions[submission.id] = Admission(submission: submission)
      queues.count(1, of: submission.tenant)
    }
    journal(.imagesAdmitted(submissions), .admission(submissions.map(\.id)))
  }

  mutating func journalAttempt(_ id: AttemptID) {
    guard !isJournalBusy, tasks[id.task]?.reservedNumber != id.number else { return }
    journal(.attemptStarted(id, places: places(of: id.task)), .attempt)
  }

  /// Writes one entry at a time for each task; after the answer the latest checkpoint follows. Inputs come first: an
  /// attempt that resumes from a checkpoint needs the inputs that led to it.
  mutating func journalCheckpoint(of id: TaskID) {
    guard let task = tasks[id], let checkpoint = task.checkpoint, let numericsClass = task.numericsClass,
      !task.isCheckpointPending, checkpoint.completedSteps > task.journalledSteps, !isJournalBusy
    else { return }
    let places = places(of: id)
    for place in places {
      for input in task.plan.inputs { journalOutputs([TaskID(job: place.job, index: input)]) }
    }
    tasks[id]?.isCheckpointPending = true
    let entry = JournalEntry.checkpointed(places: places, checkpoint, numericsClass: numericsClass)
    journal(entry, .checkpoint(id, completedSteps: checkpoint.completedSteps))
  }

  /// Journals one task's output in the plans of several jobs, of which those that still hold it and have not done so
  /// count.
  mutating func journalOutputs(_ places: [TaskID]) {
    let places = places.filter { place in
      jobs[place.job]?.outputs[place.index].map { !$0.isJournalled } ?? false
    }
    guard let first = places.first, let output = jobs[first.job]?.outputs[first.index] else { return }
    for place in places { jobs[place.job]?.outputs[place.index]?.isJournalled = true }
    journal(
      .taskFinished(places: places, output: output.payload, numericsClass: output.numericsClass),
      .output(places: places))
  }

  /// The task's places in the plans of the jobs that wait for it.
  func places(of id: TaskID) -> [TaskID] {
    (tasks[id]?.waiters ?? []).flatMap { job in
      (jobs[job]?.tasks ?? []).indices.filter { jobs[job]?.tasks[$0] == id }.map { TaskID(job: job, index: $0) }
    }
  }

  /// The job has ended; clients are notified once that is durable.
  mutating func end(_ job: ImageJob, _ outcome: Ending.Outcome) {
    endings[job.submission.id] = Ending(tenant: job.submission.tenant, outcome: outcome)
    journalEnd(of: job.submission.id)
  }

  private mutating func journalEnd(of id: ImageJobID) {
    guard let ending = endings[id] else { return }
    endings[id]?.retryAt = nil
    switch ending.outcome {
    case .finished(let output): journal(.imageFinished(id, output: output), .end(id))
    case .failed(let failure): journal(.imageFailed(id, failure), .end(id))
    }
  }

  mutating func retryEnds(now: Instant) {
    for (id, ending) in endings where ending.retryAt.map({ $0 <= now }) ?? false { journalEnd(of: id) }
  }

  // MARK: Answers

  mutating func settle(through last: JournalSequence, now: Instant) {
    while let (sequence, entry) = pending.first, sequence <= last {
      pending.removeValue(forKey: sequence)
      settle(entry, sequence, now: now)
    }
  }

  private mutating func settle(_ entry: PendingEntry, _ sequence: JournalSequence, now: Instant) {
    switch entry {
    case .admission(let ids):
      for id in ids {
        guard let admission = admissions.removeValue(forKey: id) else { continue }
        effects.append(.admitted(id))
        admit(RestoredImageJob(submission: admission.submission), from: .admitted, now: now)
        if let reason = admission.cancelReason { failJob(id, reason) }
      }
    case .attempt, .output: break
    case .reservation(let id):
      if tasks[id]?.numbers.reservation == .pending(sequence) { tasks[id]?.numbers.reservation = .done }
    case .checkpoint(let id, let completedSteps):
      tasks[id]?.isCheckpointPending = false
      tasks[id]?.journalledSteps = completedSteps
      journalCheckpoint(of: id)
    case .end(let id): tellEnd(of: id)
    }
  }

  private mutating func tellEnd(of id: ImageJobID) {
    guard let ending = endings.removeValue(forKey: id) else { return }
    queues.count(-1, of: ending.tenant)
    isOrderNew = true
    switch ending.outcome {
    case .finished(let output):
      effects.append(.image(id, .finished(output: output)))
      release(output)
    case .failed(let failure): effects.append(.image(id, .failed(failure)))
    }
  }

  mutating func refuse(_ sequence: JournalSequence, _ failure: Status, now: Instant) {
    switch pending.removeValue(forKey: sequence) {
    case .admission(let ids):
      for id in ids {
        guard let admission = admissions.removeValue(forKey: id) else { continue }
        queues.count(-1, of: admission.submission.tenant)
        effects.append(.rejected(id, failure))
      }
    case .attempt, nil: break
    case .reservation(let id):
      guard let task = tasks[id], task.numbers.reservation == .pending(sequence) else { return }
      tasks[id]?.numbers.reservation = .needed
      if case .ready = task.state { tasks[id]?.state = .ready(notBefore: now + configuration.journalRetryDelay) }
    case .output(let places):
      for place in places { jobs[place.job]?.outputs[place.index]?.isJournalled = false }
    case .checkpoint(let id, _):
      // The job continues; the next step brings another.
      tasks[id]?.isCheckpointPending = false
    case .end(let id):
      guard let ending = endings[id] else { return }
      if ending.refusals == 0 { effects.append(.image(id, .held(failure))) }
      let pause = doubled(
        configuration.journalRetryDelay, times: ending.refusals, atMost: configuration.maxJournalRetryDelay)
      endings[id]?.refusals += 1
      endings[id]?.retryAt = now + pause
    }
  }

  // MARK: After a restart

  /// Takes over the unfinished jobs of an earlier run.
  mutating func restore(_ restored: [RestoredImageJob], now: Instant) {
    restoredJobCount = restored.count
    let payloads = OrderedSet(restored.flatMap(\.payloads))
    for payload in payloads { ledger.retain(payload) }
    for job in restored where jobs[job.submission.id] == nil {
      admit(job, from: .restored, now: now)
      delayAdoptable(job, now: now)
    }
    for payload in payloads { release(payload) }
  }

  /// A task whose attempt may still run waits for its worker.
  mutating func delayAdoptable(_ restored: RestoredImageJob, now: Instant) {
    for record in restored.tasks where record.attemptNumber > 0 {
      let id = TaskID(job: restored.submission.id, index: record.index)
      if case .ready = tasks[id]?.state { tasks[id]?.state = .ready(notBefore: now + configuration.adoptionGrace) }
    }
  }
}
