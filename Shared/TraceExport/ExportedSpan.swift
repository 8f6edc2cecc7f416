import Foundation
import Observability
import Synchronization
import Tracing

/// What is known of a span that has ended.
package struct SpanRecord: Sendable {
  package struct Event: Sendable {
    package let name: String
    package let nanoseconds: UInt64
    package let attributes: [(key: String, value: SpanAttribute)]
  }

  package let trace: TraceContext
  /// The span that has caused it, in hexadecimal; nil: it is the trace's first.
  package let parentID: String?
  package var name: String
  package let kind: SpanKind
  /// Since 1970.
  package let startNanoseconds: UInt64
  package var endNanoseconds: UInt64
  package var attributes: [(key: String, value: SpanAttribute)] = []
  package var events: [Event] = []
  package var droppedAttributes = 0
  package var droppedEvents = 0
  package var status: SpanStatus?
}

/// A span that is handed to the exporter when it ends. Its times are those of the monotonic clock, counted from its
/// start; only the start is the wall clock's.
public final class ExportedSpan: Span {
  /// More attributes, events and bytes of text are left out, and counted.
  static let maxAttributes = 64, maxEvents = 256, maxTextBytes = 1024

  private struct State {
    var name: String
    var attributes = SpanAttributes()
    var status: SpanStatus?
    var events: [SpanRecord.Event] = []
    var droppedEvents = 0
    var hasEnded = false
  }

  /// See `Span`: with the span as the cause of what follows.
  public let context: ServiceContext
  /// See `Span`.
  public let isRecording: Bool
  private let trace: TraceContext
  private let parentID: String?
  private let kind: SpanKind
  private let startNanoseconds: UInt64
  private let startedAt: ContinuousClock.Instant
  private let state: Mutex<State>
  private let finish: @Sendable (SpanRecord) -> Void

  package init(
    _ name: String, _ kind: SpanKind, in context: ServiceContext, trace: TraceContext, at start: some TracerInstant,
    finish: @escaping @Sendable (SpanRecord) -> Void
  ) {
    var context = context
    parentID = context.traceContext?.parentIDText
    context.traceContext = trace
    self.context = context
    self.trace = trace
    self.kind = kind
    self.finish = finish
    isRecording = trace.isSampled
    startNanoseconds = isRecording ? start.nanosecondsSinceEpoch : 0
    startedAt = (start as? TraceInstant)?.monotonic ?? .now
    state = Mutex(State(name: name))
  }

  /// See `Span`.
  public var operationName: String {
    get { state.withLock { $0.name } }
    set { state.withLock { $0.name = newValue } }
  }

  /// See `Span`.
  public var attributes: SpanAttributes {
    get { state.withLock { $0.attributes } }
    set { if isRecording { state.withLock { $0.attributes = newValue } } }
  }

  /// See `Span`.
  public func setStatus(_ status: SpanStatus) { state.withLock { $0.status = status } }

  /// See `Span`. The event happens now, whatever time it carries: that is the wall clock's.
  public func addEvent(_ event: SpanEvent) {
    guard isRecording else { return }
    let time = nanoseconds(at: .now)
    let (attributes, _) = Self.bounded(event.attributes)
    state.withLock { state in
      guard state.events.count < Self.maxEvents else {
        state.droppedEvents += 1
        return
      }
      state.events.append(
        SpanRecord.Event(name: Self.bounded(event.name), nanoseconds: time, attributes: attributes))
    }
  }

  /// See `Span`.
  public func recordError<Instant: TracerInstant>(
    _ error: any Error, attributes: SpanAttributes, at instant: @autoclosure () -> Instant
  ) {
    guard isRecording else { return }
    var attributes = attributes
    attributes["exception.type"] = String(describing: type(of: error))
    attributes["exception.message"] = "\(error)"
    addEvent(SpanEvent(name: "exception", attributes: attributes))
  }

  /// See `Span`. Spans of this project have no links.
  public func addLink(_ link: SpanLink) {}

  /// See `Span`. Ends once; of instants only those of the monotonic clock count.
  public func end<Instant: TracerInstant>(at instant: @autoclosure () -> Instant) {
    guard isRecording else { return }
    let end = nanoseconds(at: (instant() as? TraceInstant)?.monotonic ?? .now)
    let ended: State? = state.withLock { state in
      guard !state.hasEnded else { return nil }
      state.hasEnded = true
      return state
    }
    guard let ended else { return }
    let (attributes, dropped) = Self.bounded(ended.attributes)
    finish(
      SpanRecord(
        trace: trace, parentID: parentID, name: Self.bounded(ended.name), kind: kind,
        startNanoseconds: startNanoseconds, endNanoseconds: end, attributes: attributes, events: ended.events,
        droppedAttributes: dropped, droppedEvents: ended.droppedEvents, status: ended.status))
  }

  private func nanoseconds(at instant: ContinuousClock.Instant) -> UInt64 {
    startNanoseconds.advanced(by: max(0, Observability.nanoseconds(from: startedAt, to: instant)))
  }

  private static func bounded(_ attributes: SpanAttributes) -> ([(key: String, value: SpanAttribute)], Int) {
    var kept: [(key: String, value: SpanAttribute)] = [], dropped = 0
    attributes.forEach { key, value in
      if kept.count < maxAttributes { kept.append((bounded(key), value)) } else { dropped += 1 }
    }
    return (kept.sorted { $0.key < $1.key }, dropped)
  }

  static func bounded(_ text: String) -> String {
    guard text.utf8.count > maxTextBytes else { return text }
    return String(decoding: text.utf8.prefix(maxTextBytes), as: UTF8.self)
  }
}
