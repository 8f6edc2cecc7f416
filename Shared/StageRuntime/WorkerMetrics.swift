import ClusterCore
import Metrics
import Wire

/// What a worker counts.
struct WorkerMetrics {
  private let stage: String
  private let busy: Meter
  private let registered: Meter
  private let steps: Timer

  init(stage: StageName, credits: Int) {
    self.stage = stage.text
    Gauge(label: "qwenimage_worker_credits", dimensions: [("stage", stage.text)]).record(credits)
    _ = Timer(label: "qwenimage_worker_task_seconds", dimensions: [("stage", stage.text)])
    // What has never happened is 0, not absent.
    for outcome in [StatusCode.ok, .internal, .unavailable, .cancelled] {
      Counter(label: "qwenimage_worker_tasks_total", dimensions: [("stage", stage.text), ("outcome", outcome.name)])
        .increment(by: 0)
    }
    busy = Meter(label: "qwenimage_worker_running_tasks", dimensions: [("stage", stage.text)])
    registered = Meter(label: "qwenimage_worker_registered_gateways", dimensions: [("stage", stage.text)])
    steps = Timer(label: "qwenimage_worker_step_seconds", dimensions: [("stage", stage.text)])
  }

  func running(_ count: Int) { busy.set(count) }

  func registeredGateways(_ count: Int) { registered.set(count) }

  /// `count` steps of `seconds` each.
  func stepped(_ count: Int, seconds: Double) {
    for _ in 0..<max(0, count) { steps.recordSeconds(seconds) }
  }

  /// `outcome` is `OK` or the status code's name.
  func finished(_ outcome: String, seconds: Double) {
    Counter(label: "qwenimage_worker_tasks_total", dimensions: [("stage", stage), ("outcome", outcome)]).increment()
    Timer(label: "qwenimage_worker_task_seconds", dimensions: [("stage", stage)]).recordSeconds(seconds)
  }
}
