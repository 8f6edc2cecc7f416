import ClusterCore

// What monitoring asks.

extension Scheduler {
  /// How long the task of an attempt was ready before it was offered; nil: the worker does not hold the attempt.
  public func waited(_ attempt: AttemptID, at worker: WorkerID) -> Duration? {
    workers[worker]?.attempts[attempt]?.waited
  }

  /// For how many seconds tasks of the stage have held a worker lately, per unit of their cost; nil: none was measured.
  public func typicalSeconds(of stage: StageName) -> Double? { occupancies[stage]?.typical }
}
