import ClusterCore

/// What is to be expected of an image job, from now.
public struct JobEstimate: Hashable, Sendable {
  /// Until the job's main work begins; nil: it has begun.
  public var secondsToStart: Double?
  /// Until the job ends.
  public var secondsToEnd: Double
}

extension Scheduler {
  /// Jobs that estimates are made for, the first ones in the order of service: fewer with many workers, each of which
  /// is looked at for every job.
  private var maxEstimates: Int { max(64, min(2000, 100_000 / max(1, workers.count))) }

  /// Whether estimates take longer than an event may.
  var isEstimatingSlow: Bool { min(jobs.count, maxEstimates) * workers.count > 10_000 }

  /// What is to be expected if nothing fails and no other job comes: one job after the other, in the order of service,
  /// gets the worker that is free first for each of its tasks, which takes as long as such tasks took there lately.
  ///
  /// Jobs are left out whose main stage has no worker for them, or was never measured.
  public func estimates(now: Instant) -> [ImageJobID: JobEstimate] {
    var timetable = Timetable(self, now: now)
    var entries = order(limit: maxEstimates).compactMap { id in jobs[id].flatMap { timetable.enter($0) } }
    // What follows a job's main work is done in the order in which that ends.
    entries.sort { $0.mainEndsAt < $1.mainEndsAt }
    return entries.reduce(into: [:]) { estimates, entry in
      estimates[entry.job.submission.id] = JobEstimate(
        secondsToStart: entry.startsAt, secondsToEnd: timetable.complete(entry))
    }
  }

  /// How long a task takes at a worker, or at any of its stage when this one was never measured.
  fileprivate func expectedSeconds(_ plan: TaskPlan, at worker: WorkerSession) -> Double? {
    (worker.occupancy.typical ?? occupancies[plan.stage]?.typical).map { $0 * plan.cost }
  }

  /// How long the attempt still takes, by the steps that are done and the time since.
  fileprivate func remainingSeconds(of attempt: Attempt, _ plan: TaskPlan, at worker: WorkerSession, now: Instant)
    -> Double?
  {
    guard let all = expectedSeconds(plan, at: worker) else { return nil }
    let open = plan.stepCount == 0 ? 1 : Double(plan.stepCount - attempt.completedSteps) / Double(plan.stepCount)
    return max(0, all * open - (now - attempt.stepStartedAt).seconds)
  }

  /// Measures how long an attempt that has succeeded has held its worker.
  mutating func recordOccupancy(of attempt: Attempt, at worker: WorkerID, _ plan: TaskPlan, now: Instant) {
    guard let firstStep = attempt.firstStep else { return }
    let share = plan.stepCount == 0 ? 1 : Double(plan.stepCount - firstStep) / Double(plan.stepCount)
    let seconds = (now - attempt.offeredAt).seconds
    workers[worker]?.occupancy.record(cost: plan.cost * share, seconds: seconds)
    occupancies[plan.stage, default: PaceWindow()].record(cost: plan.cost * share, seconds: seconds)
  }
}

/// When workers are free and tasks are done, in seconds from now.
private struct Timetable {
  private struct Slot {
    let worker: WorkerSession
    var freeAt: Double
  }

  private let scheduler: Scheduler
  private let now: Instant
  private var slots: [StageName: [Slot]] = [:]
  private var ends: [TaskID: Double] = [:]

  /// With what runs now.
  init(_ scheduler: Scheduler, now: Instant) {
    self.scheduler = scheduler
    self.now = now
    for worker in scheduler.workers.values where !worker.isLeaving && !worker.isQuarantined(now: now) {
      let stage = worker.registration.stage
      for (id, attempt) in worker.attempts {
        var freeAt = 0.0
        if id.assistance == 0, attempt.state != .revoked, let plan = scheduler.tasks[id.task]?.plan {
          freeAt = scheduler.remainingSeconds(of: attempt, plan, at: worker, now: now) ?? 0
          ends[id.task] = freeAt
        }
        slots[stage, default: []].append(Slot(worker: worker, freeAt: freeAt))
      }
      let free = Array(repeating: Slot(worker: worker, freeAt: 0), count: worker.freeCredits)
      slots[stage, default: []] += free
    }
  }

  /// A job whose main work, and what comes before it, is in the timetable.
  struct Entry {
    let job: ImageJob
    /// Ends of its tasks.
    var ends: [Double] = []
    /// nil: its main work has begun.
    var startsAt: Double?
    var mainEndsAt: Double { ends.last ?? 0 }
  }

  /// Enters a job up to its main work.
  ///
  /// - Returns: nil when it cannot be said how long that takes.
  mutating func enter(_ job: ImageJob) -> Entry? {
    var entry = Entry(job: job)
    for index in 0...job.plan.principal {
      guard let times = enter(index, of: entry) else {
        if index == job.plan.principal { return nil }
        entry.ends.append(0)
        continue
      }
      entry.ends.append(times.end)
      if index == job.plan.principal, !job.isStarted { entry.startsAt = times.start }
    }
    return entry
  }

  /// Enters the other tasks of a job; returns the end of the last one.
  mutating func complete(_ entry: Entry) -> Double {
    var entry = entry
    for index in entry.job.plan.tasks.indices.dropFirst(entry.ends.count) {
      // What was never measured counts for nothing.
      let readyAt = entry.job.plan.tasks[index].inputs.map { entry.ends[$0] }.max() ?? 0
      entry.ends.append(enter(index, of: entry)?.end ?? readyAt)
    }
    return entry.mainEndsAt
  }

  /// When a task begins and ends; nil: no worker does it, or none was measured.
  private mutating func enter(_ index: Int, of entry: Entry) -> (start: Double, end: Double)? {
    let plan = entry.job.plan.tasks[index]
    guard let id = entry.job.tasks[index] else { return (0, 0) }
    let task = scheduler.tasks[id] ?? ImageTask(index, of: entry.job)
    if let end = ends[id] { return (0, end) }
    var readyAt = plan.inputs.map { entry.ends[$0] }.max() ?? 0
    if case .ready(let notBefore) = task.state { readyAt = max(readyAt, (notBefore - now).seconds) }
    guard let (slot, seconds) = firstFree(for: task, readyAt: readyAt) else { return nil }
    let start = max(readyAt, slots[plan.stage]?[slot].freeAt ?? 0)
    slots[plan.stage]?[slot].freeAt = start + seconds
    ends[id] = start + seconds
    return (start, start + seconds)
  }

  /// The slot at which the task can begin first, and how long it takes there; nil: no worker does it, or none was
  /// measured.
  private func firstFree(for task: ImageTask, readyAt: Double) -> (slot: Int, seconds: Double)? {
    var best: (slot: Int, startsAt: Double, seconds: Double)?
    for (index, slot) in (slots[task.plan.stage] ?? []).enumerated() where slot.worker.takes(task) {
      let startsAt = max(readyAt, slot.freeAt)
      guard best.map({ startsAt < $0.startsAt }) ?? true,
        let seconds = scheduler.expectedSeconds(task.plan, at: slot.worker)
      else { continue }
      best = (index, startsAt, seconds)
    }
    return best.map { ($0.slot, $0.seconds) }
  }
}
