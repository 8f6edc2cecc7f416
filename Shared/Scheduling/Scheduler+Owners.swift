import ClusterCore
import OrderedCollections

/// Several owners of one journal: jobs of one that has ended come to another, and their attempts with them.
extension Scheduler {
  /// Jobs that ended which are remembered.
  private static let maxRecentlyEnded = 4096

  // MARK: Jobs

  /// Takes over the unfinished jobs of an owner that has ended.
  mutating func adopt(_ adopted: [RestoredImageJob], now: Instant) {
    guard disownedReason == nil else {
      for payload in OrderedSet(adopted.flatMap(\.payloads)) { discard(payload) }
      return
    }
    let payloads = OrderedSet(adopted.flatMap(\.payloads))
    for payload in payloads { ledger.retain(payload) }
    var candidates: OrderedSet<TaskID> = []
    for job in adopted where !isKnown(job.submission.id) {
      admit(job, from: .adopted, now: now)
      guard job.tasks.allSatisfy({ AttemptNumbers.hasBlock(after: $0.attemptNumber) }) else {
        failJob(job.submission.id, Status(.internal, "the job changed hands too often: its attempts have no numbers"))
        continue
      }
      delayAdoptable(job, now: now)
      for record in job.tasks {
        let id = TaskID(job: job.submission.id, index: record.index)
        guard let task = tasks[id], task.attemptNumber > 0, case .ready = task.state else { continue }
        candidates.append(id)
      }
    }
    for payload in payloads { release(payload) }
    restoredJobCount = max(restoredJobCount, placesTaken)
    guard !omissions.contains(.claims) else { return }
    claimable.formUnion(candidates)
    for worker in Array(workers.keys) { claim(candidates, at: worker, now: now) }
    // Who is not claimed is to be offered as soon as the grace is over.
    for id in candidates where claimable.contains(id) { _ = reserveNumber(of: id) }
  }

  func isKnown(_ id: ImageJobID) -> Bool { jobs[id] != nil || admissions[id] != nil || endings[id] != nil }

  /// The jobs are another owner's now, or no owner's: what their workers do continues there.
  mutating func disown(_ reason: Status) {
    guard disownedReason == nil else { return }
    disownedReason = reason
    for id in Array(jobs.keys) + Array(admissions.keys) + Array(endings.keys) { effects.append(.disowned(id)) }
    for payload in ledger.counts.keys.sorted(by: { $0.id < $1.id }) { effects.append(.release(payload)) }
    ledger = PayloadLedger()
    cache = OutputCache(maxBytes: configuration.maxCacheBytes)
    jobs = [:]
    tasks = [:]
    shared = [:]
    admissions = [:]
    endings = [:]
    pending = [:]
    assistants = [:]
    claimable = []
    queues = JobQueues()
    deadlines = Deadlines()
    farPositions = nil
    for (id, worker) in workers {
      for attempt in worker.attempts.keys { workers[id]?.attempts[attempt]?.state = .revoked }
    }
  }

  /// Remembers that a job has ended.
  mutating func noteEnd(of id: ImageJobID) {
    guard configuration.strayGrace > .zero else { return }
    if recentlyEnded.count == Self.maxRecentlyEnded, let oldest = recentlyEnded.first {
      recentlyEnded.removeValue(forKey: oldest.key)
    }
    recentlyEnded[id] = ()
  }

  // MARK: Attempts

  /// Asks a worker for those of the tasks' attempts that it could run.
  mutating func claim(_ candidates: OrderedSet<TaskID>, at id: WorkerID, now: Instant) {
    guard !candidates.isEmpty, let worker = workers[id] else { return }
    var wanted: [AttemptID] = []
    for candidate in candidates where claimable.contains(candidate) {
      guard let task = tasks[candidate] else { continue }
      let attempt = AttemptID(task: candidate, number: task.attemptNumber)
      guard let adoptable = adoptableAttempt(attempt, for: worker.registration, now: now) else { continue }
      if worker.attempts[attempt]?.strayAt == nil {
        wanted.append(attempt)
      } else {
        // It runs on this connection.
        workers[id]?.attempts[attempt] = adoptable
        tasks[candidate]?.state = .running(id)
        noteTakeover(of: attempt)
      }
    }
    for start in stride(from: 0, to: wanted.count, by: Self.maxClaims) {
      effects.append(.claim(Array(wanted[start..<min(wanted.count, start + Self.maxClaims)]), at: id))
    }
  }

  /// An attempt of an earlier owner continues here: should this owner end, the next one is to know its number, and then
  /// not that of a later attempt of this one.
  mutating func noteTakeover(of id: AttemptID) {
    claimable.remove(id.task)
    guard let task = tasks[id.task], task.numbers.first > id.number, owner != 0, !isJournalBusy else { return }
    tasks[id.task]?.reservedNumber = nil
    tasks[id.task]?.numbers.reservation = .needed
    journalAttempt(id)
  }

  /// Whether the task's next attempt may be offered; if its number must be durable first, that is begun.
  mutating func reserveNumber(of id: TaskID) -> Bool {
    guard let task = tasks[id] else { return false }
    // The next number may be the first one of a block.
    var numbers = task.numbers
    let number = numbers.next(after: task.attemptNumber)
    switch numbers.reservation {
    case .done: return true
    case .needed where omissions.contains(.reservation):
      tasks[id]?.numbers = numbers
      return true
    case .pending: return false
    case .needed:
      guard !isJournalBusy else { return false }
      journal(
        .attemptStarted(AttemptID(task: id, number: number), places: places(of: id)), .reservation(id))
      numbers.reservation = .pending(lastEntry)
      tasks[id]?.numbers = numbers
      tasks[id]?.reservedNumber = number
      return false
    }
  }

  // MARK: Strays

  /// The record of an attempt of a job that may be adopted yet; nil: its job is over, or the attempt is.
  func stray(_ id: AttemptID, of earlier: [WorkerSession], now: Instant) -> Attempt? {
    guard configuration.strayGrace > .zero, id.assistance == 0, tasks[id.task] == nil, !isKnown(id.task.job),
      recentlyEnded[id.task.job] == nil, disownedReason == nil
    else { return nil }
    let known = earlier.compactMap { $0.attempts[id] }
    guard known.allSatisfy({ $0.strayAt != nil }) else { return nil }
    return known.first ?? Attempt(revokedAt: now, isStray: true)
  }

  /// Asks workers to stop what no owner has adopted.
  mutating func stopStrays(now: Instant) {
    guard configuration.strayGrace > .zero else { return }
    for (id, worker) in workers {
      for (attempt, record) in worker.attempts {
        guard let strayAt = record.strayAt, now - strayAt >= configuration.strayGrace else { continue }
        workers[id]?.attempts[attempt]?.strayAt = nil
        effects.append(.cancel(attempt, at: id, reason: "no gateway knows the job of the attempt"))
      }
    }
  }
}
