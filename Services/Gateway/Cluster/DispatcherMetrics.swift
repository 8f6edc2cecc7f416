import Metrics
import Scheduling

/// What the dispatcher counts.
enum DispatcherMetrics {
  static let jobsFinished = Counter(label: "qwenimage_gateway_jobs_total", dimensions: [("outcome", "finished")])
  static let jobsFailed = Counter(label: "qwenimage_gateway_jobs_total", dimensions: [("outcome", "failed")])

  static func record(_ status: ClusterStatus, payloadBytes: Int) {
    Gauge(label: "qwenimage_gateway_queued_jobs").record(status.queuedJobs)
    Gauge(label: "qwenimage_gateway_started_jobs").record(status.startedJobs)
    Gauge(label: "qwenimage_gateway_cached_prompt_bytes").record(status.cacheBytes)
    Gauge(label: "qwenimage_gateway_payload_bytes").record(payloadBytes)
    for stage in Stage.allCases {
      let workers = status.workers.filter { $0.registration.stage == stage }
      let dimensions = [("stage", stage.rawValue)]
      Gauge(label: "qwenimage_gateway_workers", dimensions: dimensions).record(workers.count)
      Gauge(label: "qwenimage_gateway_free_credits", dimensions: dimensions).record(workers.reduce(0) { $0 + $1.freeCredits })
    }
  }
}
