import Observability
import Tracing

/// Makes spans and hands those that are sampled to an exporter.
///
/// A trace that comes with a request is sampled if its sender samples it; of those that begin here a share is, which
/// follows from the trace's id, so that all processes that ask for the same share or less agree.
public struct ExportingTracer: Tracer {
  private let exporter: SpanExporter
  /// Traces whose last eight bytes are below it are sampled; nil: all.
  private let threshold: UInt64?

  /// A tracer that samples the share `ratio`, 0 to 1, of new traces.
  public init(_ exporter: SpanExporter, ratio: Double) {
    self.exporter = exporter
    threshold = ratio >= 1 ? nil : UInt64(max(0, ratio) * 0x1p64)
  }

  /// See `Tracer`.
  public func startSpan<Instant: TracerInstant>(
    _ operationName: String, context: @autoclosure () -> ServiceContext, ofKind kind: SpanKind,
    at instant: @autoclosure () -> Instant, function: String, file fileID: String, line: UInt
  ) -> ExportedSpan {
    let context = context()
    let trace = context.traceContext?.child() ?? newTrace()
    return ExportedSpan(operationName, kind, in: context, trace: trace, at: instant()) { [exporter] in
      exporter.enqueue($0)
    }
  }

  /// See `LegacyTracer`.
  public func startAnySpan<Instant: TracerInstant>(
    _ operationName: String, context: @autoclosure () -> ServiceContext, ofKind kind: SpanKind,
    at instant: @autoclosure () -> Instant, function: String, file fileID: String, line: UInt
  ) -> any Span {
    startSpan(
      operationName, context: context(), ofKind: kind, at: instant(), function: function, file: fileID, line: line)
  }

  /// See `LegacyTracer`. Spans are exported soon anyway.
  public func forceFlush() {}

  /// See `Instrument`: reads `traceparent`.
  public func extract<Carrier, Extract: Extractor>(
    _ carrier: Carrier, into context: inout ServiceContext, using extractor: Extract
  ) where Extract.Carrier == Carrier {
    context.traceContext =
      extractor.extract(key: "traceparent", from: carrier).flatMap { TraceContext(traceparent: $0) }
      ?? context.traceContext
  }

  /// See `Instrument`: writes `traceparent`.
  public func inject<Carrier, Inject: Injector>(
    _ context: ServiceContext, into carrier: inout Carrier, using injector: Inject
  ) where Inject.Carrier == Carrier {
    guard let trace = context.traceContext else { return }
    injector.inject(trace.traceparent, forKey: "traceparent", into: &carrier)
  }

  private func newTrace() -> TraceContext {
    let trace = TraceContext.random()
    guard let threshold else { return trace }
    let number = trace.traceID.suffix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    return number < threshold ? trace : TraceContext(traceID: trace.traceID, parentID: trace.parentID, flags: 0)
  }
}
