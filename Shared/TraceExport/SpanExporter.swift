import Foundation
import HTTPClient
import Logging
import Metrics
import ServiceLifecycle
import Synchronization

/// Sends spans to a collector by the OpenTelemetry protocol over HTTP, many at a time. What does not fit in its queue
/// is dropped and counted: making spans never waits.
public final class SpanExporter: Service {
  /// How it sends.
  public struct Configuration: Sendable {
    /// Where `ExportTraceServiceRequest`s are posted to.
    public var url: String
    /// Header fields of each request, such as the collector's key.
    public var headers: [(name: String, value: String)] = []
    /// What the process is.
    public var resource: [(key: String, value: String)] = []
    /// The version of what makes the spans.
    public var version = ""
    /// Spans that wait; more are dropped.
    public var maxQueuedSpans = 4096
    /// Spans in one request.
    public var maxBatchSpans = 512
    /// How long spans wait for others at most.
    public var interval = Duration.seconds(2)
    /// A request that takes longer has failed.
    public var timeout = Duration.seconds(10)
    /// Requests for one batch, with a wait between them that doubles.
    public var maxAttempts = 4
    /// The first of these waits.
    public var firstDelay = Duration.seconds(1)
    /// The longest wait, also when the collector asks for more.
    public var maxDelay = Duration.seconds(30)
    /// How long the last spans may take at the end.
    public var flushLimit = Duration.seconds(3)

    /// The defaults, for the collector at `url`.
    public init(url: String) { self.url = url }
  }

  private struct State {
    var waiting: [SpanRecord] = []
    var wake: CheckedContinuation<Void, Never>?
    var isStopping = false
  }

  private enum Outcome {
    case taken
    case refused(String)
    /// Worth another attempt, after so long if the collector says so.
    case busy(String, after: Duration?)
  }

  private let configuration: Configuration
  private let encoding: SpanEncoding
  private let client: HTTPClient
  private let logger: Logger
  private let state = Mutex(State())
  private let exported = counter("exported"), dropped = counter("dropped"), failed = counter("failed")

  /// An exporter that sends nothing before it runs.
  public init(_ configuration: Configuration, logger: Logger) {
    self.configuration = configuration
    self.logger = logger
    encoding = SpanEncoding(
      resource: configuration.resource, scope: (name: "qwen-image", version: configuration.version))
    client = HTTPClient(
      userAgent: "qwen-image/\(configuration.version)", connectTimeout: configuration.timeout, maxRedirections: 0,
      maxConnectionsPerHost: 1)
  }

  private static func counter(_ outcome: String) -> Counter {
    Counter(label: "qwenimage_trace_spans_total", dimensions: [("outcome", outcome)])
  }

  /// Takes a span that has ended; never waits.
  func enqueue(_ span: SpanRecord) {
    let (isDropped, wake): (Bool, CheckedContinuation<Void, Never>?) = state.withLock { state in
      guard state.waiting.count < configuration.maxQueuedSpans else { return (true, nil) }
      state.waiting.append(span)
      guard state.waiting.count >= configuration.maxBatchSpans, let wake = state.wake else { return (false, nil) }
      state.wake = nil
      return (false, wake)
    }
    if isDropped { dropped.increment() }
    wake?.resume()
  }

  /// Sends until a graceful shutdown begins or the task is cancelled, then what is left, for `flushLimit` at most.
  public func run() async {
    // Unstructured: a request that is on its way is not cancelled with this task.
    let sender = Task { [self] in
      while !isStopping {
        await waitForSpans()
        await send(maxAttempts: configuration.maxAttempts)
      }
      while hasSpans, !Task.isCancelled { await send(maxAttempts: 1) }
    }
    try? await gracefulShutdown()
    state.withLock { $0.isStopping = true }
    wakeUp()
    let timer = Task { [configuration] in
      try? await Task.sleep(for: configuration.flushLimit)
      sender.cancel()
    }
    await sender.value
    timer.cancel()
    state.withLock { $0.isStopping = false }
  }

  private var isStopping: Bool { state.withLock { $0.isStopping } }

  private var hasSpans: Bool { queuedSpanCount > 0 }

  /// Spans that wait.
  package var queuedSpanCount: Int { state.withLock { $0.waiting.count } }

  /// Returns when a batch is full, when the interval is over, or when all is to be sent.
  private func waitForSpans() async {
    await withTaskGroup(of: Void.self) { group in
      group.addTask { [configuration] in try? await Task.sleep(for: configuration.interval) }
      group.addTask { [self] in
        await withTaskCancellationHandler {
          await withCheckedContinuation { continuation in
            let isDue = state.withLock { state in
              if state.waiting.count >= configuration.maxBatchSpans || state.isStopping || Task.isCancelled {
                return true
              }
              state.wake = continuation
              return false
            }
            if isDue { continuation.resume() }
          }
        } onCancel: {
          wakeUp()
        }
      }
      await group.next()
      group.cancelAll()
      wakeUp()
    }
  }

  private func wakeUp() {
    let wake = state.withLock { state in
      defer { state.wake = nil }
      return state.wake
    }
    wake?.resume()
  }

  /// Sends one batch, if there is one.
  private func send(maxAttempts: Int) async {
    let batch = state.withLock { state in
      let batch = Array(state.waiting.prefix(configuration.maxBatchSpans))
      state.waiting.removeFirst(batch.count)
      return batch
    }
    guard !batch.isEmpty else { return }
    let body = encoding.request(batch)
    var delay = configuration.firstDelay
    for attempt in 1...maxAttempts {
      switch await post(body) {
      case .taken:
        exported.increment(by: batch.count)
        return
      case .refused(let reason): return fail(batch, reason)
      case .busy(let reason, let wait):
        let wait = min(max(wait ?? delay, delay), configuration.maxDelay)
        guard attempt < maxAttempts, (try? await Task.sleep(for: wait)) != nil else { return fail(batch, reason) }
        delay = min(delay * 2, configuration.maxDelay)
      }
    }
  }

  private func fail(_ batch: [SpanRecord], _ reason: String) {
    failed.increment(by: batch.count)
    logger.warning("spans are lost", metadata: ["spans": "\(batch.count)", "reason": "\(reason)"])
  }

  private func post(_ body: [UInt8]) async -> Outcome {
    var request = HTTPClient.Request(configuration.url, method: "POST", timeout: configuration.timeout)
    request.headers = [("content-type", "application/json")] + configuration.headers
    request.body = body
    do {
      let response = try await client.execute(request)
      // What is read to its end leaves the connection for the next request; longer answers are of no interest.
      _ = try? await response.body.collect(upTo: 1 << 16)
      switch response.status {
      case 200..<300: return .taken
      case 429, 502, 503, 504:
        let seconds = response.header("retry-after").flatMap(Double.init)
        return .busy("the collector answers \(response.status)", after: seconds.map { .seconds(min(max($0, 0), 3600)) })
      default: return .refused("the collector answers \(response.status)")
      }
    } catch {
      return .busy("\(error)", after: nil)
    }
  }
}
