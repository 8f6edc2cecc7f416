import ClusterCore
import Observability
import Tracing
import Wire

/// The span of a task that runs here, below that of the gateway's attempt.
struct TaskTrace {
  private let span: (any Span)?
  let context: ServiceContext

  /// No trace.
  static let none = TaskTrace(span: nil, context: .topLevel)

  private init(span: (any Span)?, context: ServiceContext) {
    self.span = span
    self.context = context
  }

  /// Begins the span, if spans are kept.
  init(_ reference: TaskReference, _ stage: StageName, worker: String, traceparent: String?) {
    let cause = ServiceContext.tracing(traceparent.flatMap { TraceContext(traceparent: $0) })
    span = InstrumentationSystem.activeTracer?.startSpan(
      "process \(stage)", context: cause, ofKind: .server, at: TraceInstant.now)
    span?.updateAttributes {
      $0["messaging.system"] = "qwenimage"
      $0["messaging.operation.name"] = "process"
      $0["messaging.operation.type"] = "process"
      $0["messaging.destination.name"] = stage.text
      $0["messaging.message.id"] = reference.description
      $0["qwenimage.worker.id"] = worker
    }
    context = span?.context ?? cause
  }

  /// Steps are done, up to the one named, each of which took so long.
  func step(_ completedSteps: Int, seconds: Double) {
    guard let span, span.isRecording else { return }
    span.addEvent(
      SpanEvent(
        name: "step", at: TraceInstant.now,
        attributes: [
          "qwenimage.step.completed": .int64(Int64(completedSteps)), "qwenimage.step.seconds": .double(seconds),
        ]))
  }

  /// The task has ended.
  func end(_ result: Result<StageOutput, Status>) {
    guard let span else { return }
    if case .failure(let status) = result {
      span.attributes["error.type"] = status.code.name
      span.setStatus(SpanStatus(code: .error, message: status.message))
    }
    span.end(at: TraceInstant.now)
  }
}
