import ClusterCore

/// A worker as operators see it.
public struct WorkerStatus: Hashable, Sendable {
  /// What a worker is good for right now.
  public enum State: String, Sendable {
    /// Takes tasks, or will when a credit is free.
    case ready
    /// Finishes what it runs.
    case draining
    /// Pauses after repeated faults.
    case quarantined
  }
  /// As it registered.
  public var registration: WorkerRegistration
  /// What it is good for.
  public var state: State
  /// Tasks it could take now.
  public var freeCredits: Int
  /// Attempts that count.
  public var running: [AttemptID]
  /// Attempts whose answers do not count, but that hold a credit.
  public var revokedCount: Int
  /// In this session.
  public var tasksFinished: Int
  /// In this session.
  public var tasksFailed: Int
  /// Age of its last message.
  public var silentSeconds: Double
  /// Age of its session.
  public var sessionSeconds: Double
}

/// The cluster as operators see it.
public struct ClusterStatus: Hashable, Sendable {
  /// In the order of their registration.
  public var workers: [WorkerStatus]
  /// Jobs whose main work no stage has begun.
  public var queuedImages: Int
  /// Jobs whose main work has begun.
  public var startedImages: Int
  /// Jobs that wait for the journal before they begin.
  public var unadmittedImages: Int
  /// Jobs that have ended, which the journal has yet to learn.
  public var endingImages: Int
  /// Entries that the journal has not answered.
  public var pendingEntries: Int
  /// Bytes of shared outputs kept.
  public var cacheBytes: Int
  /// Shared outputs kept.
  public var cacheEntries: Int
  /// Shared outputs that were there when asked for.
  public var cacheHits: Int
  /// Shared outputs that were not.
  public var cacheMisses: Int
}

extension Scheduler {
  /// A job that waits for the output of the attempt, and the task's place in its plan; nil: the attempt's answers do
  /// not count.
  public func waiter(for attempt: AttemptID) -> (job: ImageJobID, index: Int)? {
    guard attempt.assistance == 0, let task = tasks[attempt.task], task.attemptNumber == attempt.number,
      let job = task.waiters.first,
      let index = jobs[job]?.tasks.firstIndex(of: attempt.task)
    else { return nil }
    return (job, index)
  }

  /// The cluster as it is at `now`.
  public func status(now: Instant) -> ClusterStatus {
    let startedImages = queues.begun.count
    return ClusterStatus(
      workers: workers.values.map { status(of: $0, now: now) }, queuedImages: jobs.count - startedImages,
      startedImages: startedImages,
      unadmittedImages: admissions.count, endingImages: endings.count, pendingEntries: pending.count,
      cacheBytes: cache.byteCount, cacheEntries: cache.count, cacheHits: cache.hits, cacheMisses: cache.misses)
  }

  private func status(of worker: WorkerSession, now: Instant) -> WorkerStatus {
    WorkerStatus(
      registration: worker.registration,
      state: worker.isLeaving ? .draining : worker.isQuarantined(now: now) ? .quarantined : .ready,
      freeCredits: worker.freeCredits, running: worker.attempts.filter { $0.value.state != .revoked }.map(\.key),
      revokedCount: worker.attempts.values.count { $0.state == .revoked }, tasksFinished: worker.tasksFinished,
      tasksFailed: worker.tasksFailed, silentSeconds: (now - worker.lastHeardAt).seconds,
      sessionSeconds: (now - worker.joinedAt).seconds)
  }
}

extension ClusterStatus {
  /// Those of `stages` that have no ready worker for a pipeline of `model`, and none that could load it.
  public func missingStages(of model: ModelIdentity, for pipeline: PipelineName, stages: [StageName]) -> [StageName] {
    stages.filter { stage in
      !workers.contains {
        $0.state == .ready && $0.registration.stage == stage
          && $0.registration.pipelines(of: model).contains(pipeline)
      }
    }
  }

  /// Models with a worker, in the order in which their first workers came.
  public var models: [ModelIdentity] {
    var seen: [ModelIdentity] = []
    for worker in workers where !seen.contains(worker.registration.model) { seen.append(worker.registration.model) }
    return seen
  }

  /// Stages with a worker, in alphabetical order.
  public var stages: [StageName] { Set(workers.map(\.registration.stage)).sorted() }
}
