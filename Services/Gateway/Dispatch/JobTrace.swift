import ClusterCore
import Observability
import Scheduling
import Tracing

/// An image's spans: one from its submission to its end, and below it one for each wait and each attempt at a task.
struct JobTrace {
  private let tracer: (any Tracer)?
  private let span: (any Span)?
  private let traceparent: String?

  /// Of the span, or of the request.
  var context: ServiceContext {
    span?.context ?? .tracing(traceparent.flatMap { TraceContext(traceparent: $0) })
  }

  /// Begins the span, if there is a tracer.
  init(_ submission: ImageJobSubmission, _ traceparent: String?, _ tracer: (any Tracer)?) {
    self.tracer = tracer
    self.traceparent = traceparent
    guard let tracer else {
      span = nil
      return
    }
    let cause = ServiceContext.tracing(traceparent.flatMap { TraceContext(traceparent: $0) })
    let span = tracer.startSpan("image", context: cause, at: TraceInstant.now)
    span.updateAttributes {
      $0["qwenimage.job.id"] = submission.id.text
      $0["qwenimage.model.id"] = submission.model.id
      $0["qwenimage.job.priority"] = submission.priority.rawValue
      $0["qwenimage.job.steps"] = submission.plan.tasks.reduce(0) { $0 + $1.stepCount }
    }
    self.span = span
  }

  /// The image has ended: with a result, or with `failure`.
  func end(_ failure: Status?) { span?.end(with: failure) }

  /// Spans of the wait that is over, and of the attempt that begins.
  func attempt(_ offer: Offer, _ stage: StageName, at worker: String, after waited: Duration) -> AttemptTrace {
    guard let tracer, span?.isRecording == true else { return AttemptTrace(span: nil, context: context) }
    if offer.attempt.assistance == 0 {
      let wait = tracer.startSpan("wait \(stage)", context: context, at: TraceInstant.ago(waited))
      wait.attributes["messaging.destination.name"] = stage.text
      wait.end(at: TraceInstant.now)
    }
    let name = offer.attempt.assistance == 0 ? "attempt" : "assist"
    let span = tracer.startSpan("\(name) \(stage)", context: context, ofKind: .client, at: TraceInstant.now)
    span.updateAttributes {
      $0["messaging.system"] = "qwenimage"
      $0["messaging.operation.name"] = name
      $0["messaging.operation.type"] = "send"
      $0["messaging.destination.name"] = stage.text
      $0["messaging.message.id"] = offer.attempt.description
      $0["qwenimage.worker.id"] = worker
      $0["qwenimage.task.attempt"] = Int(offer.attempt.number)
      if let resume = offer.resume { $0["qwenimage.task.resumed_step"] = resume.completedSteps }
    }
    return AttemptTrace(span: span, context: span.context)
  }
}

/// The span of an attempt at a task.
struct AttemptTrace {
  fileprivate let span: (any Span)?
  let context: ServiceContext

  /// What the worker is sent; nil: what the request has brought.
  var traceparent: String? { span == nil ? nil : context.traceContext?.traceparent }

  /// The gateway has heard of a step.
  func step(_ completedSteps: Int, seconds: Double) {
    guard let span, span.isRecording else { return }
    span.addEvent(
      SpanEvent(
        name: "step", at: TraceInstant.now,
        attributes: [
          "qwenimage.step.completed": .int64(Int64(completedSteps)), "qwenimage.step.seconds": .double(seconds),
        ]))
  }

  /// The attempt has ended: with an output, or with `failure`.
  func end(_ failure: Status?) { span?.end(with: failure) }
}

extension Span {
  /// Ends now, as an error when there is a failure.
  fileprivate func end(with failure: Status?) {
    if let failure {
      attributes["error.type"] = failure.code.name
      setStatus(SpanStatus(code: .error, message: failure.message))
    }
    end(at: TraceInstant.now)
  }
}
