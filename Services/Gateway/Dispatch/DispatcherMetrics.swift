import ClusterCore
import Metrics
import Observability
import Scheduling

/// What the dispatcher counts.
public struct DispatcherMetrics {
  static let jobsFinished = Counter(label: "qwenimage_gateway_jobs_total", dimensions: [("outcome", "finished")])
  static let jobsFailed = Counter(label: "qwenimage_gateway_jobs_total", dimensions: [("outcome", "failed")])

  /// Says what the gateway's metrics mean.
  public static func describe(in registry: PrometheusRegistry) {
    registry.describe("qwenimage_gateway_jobs_total", "Images that ended, by outcome.")
    registry.describe("qwenimage_gateway_queued_jobs", "Images that no denoiser has started.")
    registry.describe("qwenimage_gateway_started_jobs", "Images that a denoiser has started.")
    registry.describe("qwenimage_gateway_cached_prompt_bytes", "Bytes of encoded prompts kept for later requests.")
    registry.describe("qwenimage_gateway_payload_bytes", "Bytes of tensors and images held.")
    registry.describe("qwenimage_gateway_workers", "Workers that are connected, by stage.")
    registry.describe("qwenimage_gateway_free_credits", "Tasks that workers could take now, by stage.")
    registry.describe("qwenimage_gateway_webhook_attempts_total", "Attempts to notify webhooks, by outcome.")
    registry.describe("qwenimage_gateway_webhook_attempt_seconds", "Time that attempts to notify webhooks took.")
    registry.describe("qwenimage_gateway_prompt_enhancements_total", "Prompts to be rewritten, by outcome.")
    registry.describe("qwenimage_gateway_webhook_pending", "Notifications of webhooks that are to be delivered.")
    registry.describe("qwenimage_http_requests_total", "HTTP requests, by endpoint and status.")
    registry.describe(
      "qwenimage_http_request_seconds", "Time to answer HTTP requests, without the streaming of events.")
  }

  /// Stages that gauges exist for: a stage whose last worker has left is shown with 0.
  private var stages: Set<StageName>

  /// Gauges for `stages`, and for every stage that a worker brings.
  init(stages: some Sequence<StageName>) { self.stages = Set(stages) }

  mutating func record(_ status: ClusterStatus, payloadBytes: Int) {
    Gauge(label: "qwenimage_gateway_queued_jobs").record(status.queuedImages)
    Gauge(label: "qwenimage_gateway_started_jobs").record(status.startedImages)
    Gauge(label: "qwenimage_gateway_cached_prompt_bytes").record(status.cacheBytes)
    Gauge(label: "qwenimage_gateway_payload_bytes").record(payloadBytes)
    stages.formUnion(status.stages)
    for stage in stages {
      let workers = status.workers.filter { $0.registration.stage == stage }
      let dimensions = [("stage", stage.text)]
      Gauge(label: "qwenimage_gateway_workers", dimensions: dimensions).record(workers.count)
      Gauge(label: "qwenimage_gateway_free_credits", dimensions: dimensions).record(
        workers.reduce(0) { $0 + $1.freeCredits })
    }
  }
}
