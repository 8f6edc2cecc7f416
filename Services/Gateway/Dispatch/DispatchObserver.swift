import ClusterCore
import Metrics
import Observability
import Scheduling
import Tracing

/// Watches what the scheduler takes note of and what it decides, for metrics and traces. Nothing depends on it.
struct DispatchObserver {
  /// A job that has not ended. There may be very many: what is the scheduler's anyway is shared with it. A class like
  /// ``OpenJob``.
  private final class ObservedJob {
    let group: QueueCensus.Group
    let plan: ImageJobPlan
    let submittedAt: Instant
    let trace: JobTrace
    var admittedAt: Instant?
    var isQueued = false

    init(_ submission: ImageJobSubmission, submittedAt now: Instant, _ trace: JobTrace) {
      group = QueueCensus.Group(priority: submission.priority, isNamed: submission.tenant != .anonymous)
      plan = submission.plan
      submittedAt = now
      self.trace = trace
    }

    /// By stage.
    var costs: [StageName: Double] {
      Dictionary(plan.tasks.map { ($0.stage, $0.cost) }, uniquingKeysWith: +)
    }
  }

  /// An attempt at a task that has not ended.
  private struct ObservedAttempt {
    let stage: StageName
    let worker: WorkerID
    let offeredAt: Instant
    let trace: AttemptTrace
  }

  private var meters = StageMeters()
  private var demand: StageDemand
  private var queue = QueueCensus()
  private var observed: [ImageJobID: ObservedJob] = [:]
  private var attempts: [AttemptID: ObservedAttempt] = [:]
  /// Stages that gauges exist for: a stage whose last worker has left is shown with 0.
  private var stages: Set<StageName>
  private var lastCache = (hits: 0, misses: 0)
  private let tracer: (any Tracer)?

  /// An observer that knows of no jobs.
  ///
  /// - Parameters:
  ///   - stages: shown from the beginning on.
  ///   - drainSeconds: see ``StageDemand``.
  ///   - tracer: takes the spans; nil: there are none.
  init(stages: some Sequence<StageName>, drainSeconds: Double, tracer: (any Tracer)?) {
    self.stages = Set(stages)
    self.tracer = tracer
    demand = StageDemand(drainSeconds: drainSeconds)
    for stage in self.stages { meters.prepare(stage) }
    DispatcherMetrics.prepare()
  }

  // MARK: Jobs

  /// A job is submitted; the journal is yet to have it.
  mutating func submitted(_ submission: ImageJobSubmission, traceparent: String?, now: Instant) {
    for task in submission.plan.tasks { show(task.stage) }
    observed[submission.id] = ObservedJob(submission, submittedAt: now, JobTrace(submission, traceparent, tracer))
  }

  /// The journal has the job, or an earlier run has left it: it waits for its main work from now on.
  mutating func admitted(_ id: ImageJobID, isRestored: Bool = false, now: Instant) {
    guard let job = observed[id], job.admittedAt == nil else { return }
    (isRestored ? DispatcherMetrics.jobsRestored : DispatcherMetrics.jobsAdmitted).increment()
    job.admittedAt = now
    job.isQueued = true
    queue.join(id, job.group, now: now)
    demand.arrive(job.costs, now: now)
  }

  /// The job does not exist.
  mutating func rejected(_ id: ImageJobID, _ status: Status) { observed.removeValue(forKey: id)?.trace.end(status) }

  /// The job's main work begins, again if it has begun before.
  mutating func started(_ id: ImageJobID, now: Instant) {
    guard let job = observed[id], job.isQueued, let admittedAt = job.admittedAt else { return }
    job.isQueued = false
    queue.leave(id, job.group)
    demand.start(job.costs)
    job.trace.context.measuring {
      DispatcherMetrics.queueWait(job.group.priority).recordSeconds((now - admittedAt).seconds)
    }
  }

  // MARK: Attempts

  /// The job waits again.
  mutating func retrying(_ stage: StageName) { meters[stage].retries.increment() }

  /// A task goes to a worker.
  ///
  /// - Parameters:
  ///   - offer: the task.
  ///   - worker: who gets it.
  ///   - stage: what the worker does.
  ///   - name: what the worker is called.
  ///   - waited: since the task was ready.
  mutating func offered(
    _ offer: Offer, to worker: WorkerID, _ stage: StageName, named name: String, after waited: Duration, now: Instant
  ) {
    guard let job = observed[offer.job] else { return }
    if offer.attempt.assistance == 0 {
      meters[stage].offers.increment()
      if offer.resume != nil { meters[stage].resumes.increment() }
      job.trace.context.measuring { meters[stage].wait.recordSeconds(waited.seconds) }
    } else {
      meters[stage].assistances.increment()
    }
    attempts[offer.attempt] = ObservedAttempt(
      stage: stage, worker: worker, offeredAt: now,
      trace: job.trace.attempt(offer, stage, at: name, after: waited))
  }

  /// A step of the attempt is done.
  mutating func stepped(_ attempt: AttemptID, _ report: StepReport) {
    attempts[attempt]?.trace.step(report.completedSteps, seconds: report.stepSeconds)
  }

  /// The attempt is over: it has succeeded, or ended with `failure`.
  mutating func ended(_ attempt: AttemptID, _ failure: Status?, now: Instant) {
    guard let ended = attempts.removeValue(forKey: attempt) else { return }
    ended.trace.end(failure)
    guard attempt.assistance == 0 else { return }
    if let failure {
      if failure.code != .cancelled { meters[ended.stage].failures.increment() }
    } else {
      ended.trace.context.measuring { meters[ended.stage].taskSeconds.recordSeconds((now - ended.offeredAt).seconds) }
    }
  }

  /// The job is over.
  mutating func ended(_ id: ImageJobID, _ failure: Status?, now: Instant) {
    guard let job = observed.removeValue(forKey: id) else { return }
    if job.isQueued { queue.leave(id, job.group) }
    if job.admittedAt != nil { demand.end(job.costs, wasQueued: job.isQueued) }
    let outcome = DispatcherMetrics.Outcome(failure)
    outcome.count.increment()
    job.trace.context.measuring { outcome.time.recordSeconds((now - job.submittedAt).seconds) }
    job.trace.end(failure)
  }

  // MARK: Workers

  /// Shows a stage from now on.
  mutating func show(_ stage: StageName) {
    if stages.insert(stage).inserted { meters.prepare(stage) }
  }

  /// A worker has failed too often.
  mutating func quarantined(_ stage: StageName) { meters[stage].quarantines.increment() }

  /// A worker's session is over, and with it what it ran.
  mutating func lost(_ worker: WorkerID, _ stage: StageName, because reason: String, now: Instant) {
    meters[stage].losses.increment()
    for attempt in attempts.filter({ $0.value.worker == worker }).keys {
      ended(attempt, Status(.unavailable, reason), now: now)
    }
  }

  /// What a worker is to name as the cause of its spans; nil: what the job's request has brought.
  func traceparent(of attempt: AttemptID) -> String? { attempts[attempt]?.trace.traceparent }

  // MARK: What is read

  /// Sets the gauges.
  ///
  /// - Parameters:
  ///   - status: the cluster as it is.
  ///   - payloadBytes: tensors and images held.
  ///   - secondsPerCost: how long tasks of a stage take; nil: not measured.
  mutating func record(
    _ status: ClusterStatus, payloadBytes: Int, secondsPerCost: (StageName) -> Double?, now: Instant
  ) {
    DispatcherMetrics.record(status, payloadBytes: payloadBytes)
    DispatcherMetrics.cacheHits.increment(by: Int64(status.cacheHits - lastCache.hits))
    DispatcherMetrics.cacheMisses.increment(by: Int64(status.cacheMisses - lastCache.misses))
    lastCache = (status.cacheHits, status.cacheMisses)
    for group in QueueCensus.Group.all {
      DispatcherMetrics.record(group, count: queue.count(group), oldestSeconds: queue.oldestSeconds(group, now: now))
    }
    for stage in status.stages { show(stage) }
    let workers = Dictionary(grouping: status.workers, by: \.registration.stage)
    for stage in stages {
      let all = workers[stage] ?? [], ready = all.filter { $0.state == .ready }
      let wanted = demand.workersWanted(
        stage, workers: ready.count, credits: ready.reduce(0) { $0 + $1.registration.credits },
        secondsPerCost: secondsPerCost(stage), now: now)
      meters[stage].record(all, wanted: wanted)
    }
  }
}
