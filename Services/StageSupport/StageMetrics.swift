import Metrics
import Observability
import Transport

/// What a stage says of itself besides what its worker counts.
enum StageMetrics {
  /// Says what a stage's metrics mean.
  static func describe(in registry: PrometheusRegistry) {
    registry.describe(
      "qwenimage_denoiser_assisted_predictions_total",
      "Predictions of guided steps that another denoiser was asked for, by outcome.")
    registry.describe(
      "qwenimage_denoiser_prefix_cache_bytes",
      "Keys and values of text and references that are kept for later images, of models that have them.")
    registry.describe(
      "qwenimage_denoiser_adapter_bytes", "Adapters that are kept in memory, ready for the next image.")
    registry.describe(
      "qwenimage_denoiser_step_cache_bytes", "What the step cache of the last job has kept between its steps, at most.")
    registry.describe(
      "qwenimage_denoiser_steps_total",
      "Denoising steps, by whether the whole network has run, or a part with a step cache.")
    registry.describe("qwenimage_stage_load_seconds", "Time it took to load the model.")
    registry.describe("qwenimage_stage_info", "1; its labels are the arithmetic and the class of equal results.")
    registry.describe("qwenimage_worker_running_tasks", "Tasks at work.")
    registry.describe("qwenimage_worker_registered_gateways", "Gateways with a session.")
    registry.describe("qwenimage_worker_step_seconds", "Time of denoising steps.")
    registry.describe("qwenimage_worker_task_seconds", "Time of tasks, whatever their outcome.")
    registry.describe("qwenimage_worker_tasks_total", "Tasks that ended, by outcome.")
    registry.describe("qwenimage_worker_credits", "Tasks that the worker runs at a time.")
    registry.describe("qwenimage_trace_spans_total", "Spans that ended, by what became of them.")
    for (name, help) in transportMetricDescriptions { registry.describe(name, help) }
  }

  /// The model is loaded.
  static func noteLoad(seconds: Double, precision: String, numericsClass: String) {
    Gauge(label: "qwenimage_stage_load_seconds").record(seconds)
    Gauge(label: "qwenimage_stage_info", dimensions: [("precision", precision), ("numerics", numericsClass)]).record(1)
  }
}
