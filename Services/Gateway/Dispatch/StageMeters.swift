import ClusterCore
import Metrics
import Scheduling

/// What is counted of each stage; a stage is shown from when it is first known.
struct StageMeters {
  /// The metrics of one stage.
  struct Stage {
    let offers, resumes, retries, failures, quarantines, losses, assistances: Counter
    let wait, taskSeconds: Timer
    private let registered, ready, credits, freeCredits, busyRatio, wanted: Gauge

    init(_ stage: StageName) {
      let dimensions = [("stage", stage.text)]
      let counter = { (name: String) in Counter(label: "qwenimage_stage_\(name)_total", dimensions: dimensions) }
      offers = counter("offers")
      resumes = counter("resumes")
      retries = counter("retries")
      failures = counter("failures")
      quarantines = counter("quarantines")
      losses = counter("lost_workers")
      assistances = counter("assistances")
      wait = Timer(label: "qwenimage_stage_wait_seconds", dimensions: dimensions)
      taskSeconds = Timer(label: "qwenimage_stage_task_seconds", dimensions: dimensions)
      registered = Gauge(label: "qwenimage_gateway_workers", dimensions: dimensions)
      ready = Gauge(label: "qwenimage_stage_workers_ready", dimensions: dimensions)
      credits = Gauge(label: "qwenimage_stage_credits", dimensions: dimensions)
      freeCredits = Gauge(label: "qwenimage_gateway_free_credits", dimensions: dimensions)
      busyRatio = Gauge(label: "qwenimage_stage_busy_ratio", dimensions: dimensions)
      wanted = Gauge(label: "qwenimage_stage_workers_wanted", dimensions: dimensions)
    }

    /// Sets the gauges to what `workers`, all of the stage, are doing.
    func record(_ workers: [WorkerStatus], wanted count: Double) {
      let ready = workers.filter { $0.state == .ready }
      let all = ready.reduce(0) { $0 + $1.registration.credits }, free = ready.reduce(0) { $0 + $1.freeCredits }
      registered.record(workers.count)
      self.ready.record(ready.count)
      credits.record(all)
      freeCredits.record(workers.reduce(0) { $0 + $1.freeCredits })
      busyRatio.record(all == 0 ? 0 : Double(all - free) / Double(all))
      wanted.record(count)
    }
  }

  private var stages: [StageName: Stage] = [:]

  /// Shows a stage.
  mutating func prepare(_ stage: StageName) { _ = self[stage] }

  /// The stage's metrics.
  subscript(_ stage: StageName) -> Stage {
    mutating get {
      if let known = stages[stage] { return known }
      let new = Stage(stage)
      stages[stage] = new
      return new
    }
  }
}
