import Metrics
import Observability
import Settings
import Transport

/// What the gateway's metrics mean. `Shared/Documentation/monitoring.md` has the same names.
enum GatewayMetrics {
  /// Of waits that should be short.
  private static let waits = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800,
  ]

  private static let jobs: KeyValuePairs = [
    "qwenimage_gateway_jobs_admitted_total": "Images that were accepted, each of them durable.",
    "qwenimage_gateway_jobs_restored_total": "Images that an earlier run has left unfinished.",
    "qwenimage_gateway_jobs_adopted_total": "Images taken over from another gateway, whose lease has ended.",
    "qwenimage_gateway_jobs_handed_over_total": "Images given to other gateways at the end of this one.",
    "qwenimage_gateway_jobs_rejected_total": "Images that were not accepted although the request was sound, by reason.",
    "qwenimage_gateway_jobs_total": "Images that ended, by outcome.",
    "qwenimage_gateway_queued_jobs":
      "Images whose denoising has not begun, by priority and whether the request had a key.",
    "qwenimage_gateway_oldest_queued_job_seconds": "For how long the oldest of these images has waited.",
    "qwenimage_gateway_started_jobs": "Images whose denoising has begun.",
    "qwenimage_gateway_cached_prompt_bytes": "Bytes of encoded prompts kept for later requests.",
    "qwenimage_gateway_prompt_cache_hits_total": "Encoded prompts that were there when they were needed.",
    "qwenimage_gateway_prompt_cache_misses_total": "Prompts that had to be encoded.",
    "qwenimage_gateway_payload_bytes": "Bytes of tensors and images held.",
    "qwenimage_gateway_prompt_enhancements_total": "Prompts to be rewritten, by outcome.",
    "qwenimage_gateway_webhook_attempts_total": "Attempts to notify webhooks, by outcome.",
    "qwenimage_gateway_webhook_attempt_seconds": "Time that attempts to notify webhooks took.",
    "qwenimage_gateway_webhook_pending": "Notifications of webhooks that are to be delivered.",
    "qwenimage_gateway_info": "1; its label is the version.",
  ]

  private static let stages: KeyValuePairs = [
    "qwenimage_gateway_workers": "Workers that are connected, by stage.",
    "qwenimage_gateway_free_credits": "Tasks that workers could take now, by stage.",
    "qwenimage_stage_workers_ready": "Workers that take tasks.",
    "qwenimage_stage_workers_wanted":
      "Workers that what arrives and what waits at this gateway needs; see monitoring.md.",
    "qwenimage_stage_credits": "Tasks that the ready workers can run at a time.",
    "qwenimage_stage_busy_ratio": "Share of these credits that is in use.",
    "qwenimage_stage_task_seconds": "Time from the offer of a task to its output.",
    "qwenimage_stage_offers_total": "Tasks sent to workers.",
    "qwenimage_stage_resumes_total": "Of these tasks, those that continue from a checkpoint.",
    "qwenimage_stage_assistances_total": "Workers asked to make the predictions of another one's steps.",
    "qwenimage_stage_failures_total": "Attempts that ended without an output, without those that were cancelled.",
    "qwenimage_stage_retries_total": "Images that such an attempt has made wait again.",
    "qwenimage_stage_quarantines_total": "Pauses of workers after repeated failures.",
    "qwenimage_stage_lost_workers_total": "Sessions of workers that have ended, for whatever reason.",
  ]

  private static let others: KeyValuePairs = [
    "qwenimage_journal_pending_entries": "Entries that are to be written to the journal.",
    "qwenimage_journal_written_bytes_total": "Bytes of requests, checkpoints and images written to the journal.",
    "qwenimage_journal_written_changes_total": "Changes written to the journal.",
    "qwenimage_journal_failed_writes_total": "Transactions that the journal has refused.",
    "qwenimage_journal_lease_renewals_total": "Attempts to extend the lease on a shared journal, by outcome.",
    "qwenimage_journal_owners": "Gateways whose lease on the journal holds, this one included.",
    "qwenimage_http_requests_total": "HTTP requests, by endpoint and status.",
    "qwenimage_http_request_seconds": "Time to answer HTTP requests, without the streaming of events.",
    "qwenimage_trace_spans_total": "Spans that ended, by what became of them.",
  ]

  /// Describes them all.
  static func describe(in registry: PrometheusRegistry) {
    for table in [jobs, stages, others, transportMetricDescriptions] {
      for (name, help) in table { registry.describe(name, help) }
    }
    registry.describe(
      "qwenimage_gateway_job_seconds", "Time from the submission of an image to its end, by outcome.")
    registry.describe(
      "qwenimage_gateway_queue_wait_seconds", "Time from the admission of an image to the beginning of its denoising.",
      buckets: waits)
    registry.describe(
      "qwenimage_stage_wait_seconds", "Time from when a task could run to its offer to a worker.", buckets: waits)
    registry.describe(
      "qwenimage_journal_write_seconds", "Time of the journal's transactions.",
      buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10])
  }

  /// Shows which version runs.
  static func noteVersion() {
    Gauge(label: "qwenimage_gateway_info", dimensions: [("version", SoftwareVersion.current)]).record(1)
  }
}
