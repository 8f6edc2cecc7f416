import Foundation
import HTTPTesting
import HTTPTypes
import Hummingbird
import Logging
import Observability
import StrictJSON
import Synchronization
import TestSupport
import Testing
import TraceExport
import Tracing

/// A collector that remembers what it was sent, and answers as it is asked to.
private final class Collector: Sendable {
  let requests = Mutex<[JSON]>([])
  private let statuses: Mutex<[Int]>

  /// Answers with `statuses`, then with 200.
  init(_ statuses: [Int] = []) { self.statuses = Mutex(statuses) }

  var router: Router<BasicRequestContext> {
    let router = Router()
    router.post("/v1/traces") { [self] request, _ in
      let body = try await request.body.collect(upTo: 1 << 22)
      let json = try JSON(Array(body.readableBytesView))
      requests.withLock { $0.append(json) }
      let status = statuses.withLock { $0.isEmpty ? 200 : $0.removeFirst() }
      return Response(status: .init(code: status), headers: [.contentType: "application/json"])
    }
    return router
  }

  var requestCount: Int { requests.withLock { $0.count } }

  /// The spans of all requests.
  var spans: [JSON] {
    requests.withLock { $0 }.flatMap { $0["resourceSpans"]?[0]?["scopeSpans"]?[0]?["spans"]?.elements ?? [] }
  }
}

private let silent = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// Runs an exporter beside `body`, then lets it send what is left.
private func exporting(
  to collector: Collector, ratio: Double = 1, _ change: (inout SpanExporter.Configuration) -> Void = { _ in },
  _ body: @escaping @Sendable (ExportingTracer) async throws -> Void
) async throws {
  var configuration = SpanExporter.Configuration(url: "")
  configuration.resource = [("service.name", "test")]
  configuration.interval = .milliseconds(20)
  configuration.firstDelay = .milliseconds(10)
  change(&configuration)
  let changed = configuration
  let application = Application(
    router: collector.router, configuration: .init(address: .hostname("127.0.0.1", port: 0)), logger: silent)
  try await application.test(.live) { client in
    var configuration = changed
    configuration.url = "http://127.0.0.1:\(client.port ?? 0)/v1/traces"
    let exporter = SpanExporter(configuration, logger: silent)
    let task = Task { await exporter.run() }
    try await body(ExportingTracer(exporter, ratio: ratio))
    task.cancel()
    await task.value
  }
}

@Suite("Export of spans", .timeLimit(.minutes(1)))
struct ExportTests {
  @Test("a span has the form of the OpenTelemetry protocol, with its parent, attributes, events and status")
  func form() async throws {
    let collector = Collector()
    try await exporting(to: collector) { tracer in
      let cause = TraceContext(traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
      let span = tracer.startSpan(
        "GET /x", context: .tracing(cause), ofKind: .server, at: TraceInstant.ago(.seconds(2)))
      span.attributes["a"] = "quote \" and\nline"
      span.attributes["n"] = 7
      span.addEvent(SpanEvent(name: "step", at: TraceInstant.now, attributes: ["seconds": .double(0.5)]))
      span.setStatus(SpanStatus(code: .error, message: "lost"))
      span.end(at: TraceInstant.now)
      span.end(at: TraceInstant.now)
    }
    let resource = collector.requests.withLock { $0.first }?["resourceSpans"]?[0]?["resource"]
    #expect(resource?["attributes"]?[0]?["value"]?["stringValue"]?.text == "test")
    try #require(collector.spans.count == 1)
    let span = collector.spans[0]
    #expect(span["traceId"]?.text == "0af7651916cd43dd8448eb211c80319c")
    #expect(span["parentSpanId"]?.text == "b7ad6b7169203331" && span["spanId"]?.text != "b7ad6b7169203331")
    #expect(span["kind"]?.integer == 2 && span["name"]?.text == "GET /x")
    #expect(span["attributes"]?[0]?["value"]?["stringValue"]?.text == "quote \" and\nline")
    #expect(span["attributes"]?[1]?["value"]?["intValue"]?.text == "7")
    #expect(span["events"]?[0]?["attributes"]?[0]?["value"]?["doubleValue"]?.double == 0.5)
    #expect(span["status"]?["code"]?.integer == 2 && span["status"]?["message"]?.text == "lost")
    let start = try #require(span["startTimeUnixNano"]?.text.flatMap(Int.init))
    let end = try #require(span["endTimeUnixNano"]?.text.flatMap(Int.init))
    #expect(end - start >= 2_000_000_000 && end - start < 60_000_000_000)
    let event = try #require(span["events"]?[0]?["timeUnixNano"]?.text.flatMap(Int.init))
    #expect(start < event && event <= end)
  }

  @Test("children share their trace and name their parent; traceparent goes in and out")
  func family() async throws {
    let collector = Collector()
    try await exporting(to: collector) { tracer in
      let parent = tracer.startSpan("a", context: .topLevel)
      tracer.startSpan("b", context: parent.context).end()
      var header = ""
      tracer.inject(parent.context, into: &header, using: Headers())
      var context = ServiceContext.topLevel
      tracer.extract(header, into: &context, using: Headers())
      tracer.startSpan("c", context: context).end()
      parent.end()
    }
    let spans = Dictionary(uniqueKeysWithValues: collector.spans.map { ($0["name"]?.text ?? "", $0) })
    #expect(Set(collector.spans.map { $0["traceId"]?.text }).count == 1 && spans.count == 3)
    #expect(
      spans["b"]?["parentSpanId"] == spans["a"]?["spanId"] && spans["c"]?["parentSpanId"] == spans["a"]?["spanId"])
    #expect(spans["a"]?["parentSpanId"] == nil)
  }

  private struct Headers: Extractor, Injector {
    func extract(key: String, from carrier: String) -> String? { key == "traceparent" ? carrier : nil }
    func inject(_ value: String, forKey key: String, into carrier: inout String) {
      if key == "traceparent" { carrier = value }
    }
  }

  @Test("a share of new traces is kept, and of others what their senders keep")
  func sampling() async throws {
    let collector = Collector()
    try await exporting(to: collector, ratio: 0.25, { $0.maxQueuedSpans = 100_000 }) { tracer in
      for _ in 0..<2000 { tracer.startSpan("new", context: .topLevel).end() }
      for (flags, name) in [("00", "unsampled"), ("01", "sampled")] {
        let cause = TraceContext(traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-\(flags)")
        let span = tracer.startSpan(name, context: .tracing(cause))
        #expect(span.isRecording == (flags == "01") && span.context.traceContext?.isSampled == span.isRecording)
        span.end()
      }
    }
    let names = collector.spans.compactMap { $0["name"]?.text }
    // Eight standard deviations of the binomial distribution.
    #expect((345...655).contains(names.count { $0 == "new" }))
    #expect(names.contains("sampled") && !names.contains("unsampled"))
  }

  @Test("a collector that is busy is asked again; one that refuses is not", arguments: [429, 503, 400])
  func retries(status: Int) async throws {
    let collector = Collector([status, status])
    try await exporting(to: collector) { tracer in
      tracer.startSpan("a", context: .topLevel).end()
      try await until("sent as often as it takes") { collector.requestCount >= (status == 400 ? 1 : 3) }
    }
    #expect(collector.requestCount == (status == 400 ? 1 : 3))
  }

  @Test("what does not fit in the queue is dropped, without waiting")
  func bounded() async throws {
    let exporter = SpanExporter(
      {
        var configuration = SpanExporter.Configuration(url: "http://127.0.0.1:9/v1/traces")
        configuration.maxQueuedSpans = 10
        return configuration
      }(), logger: silent)
    let tracer = ExportingTracer(exporter, ratio: 1)
    for _ in 0..<1000 { tracer.startSpan("a", context: .topLevel).end() }
    #expect(exporter.queuedSpanCount == 10)
  }

  @Test("attributes, events and texts of a span are bounded")
  func spanBounds() {
    let record = Mutex<SpanRecord?>(nil)
    let span = ExportedSpan(
      "a", .internal, in: .topLevel, trace: .random(), at: TraceInstant.now
    ) { ended in record.withLock { $0 = ended } }
    for index in 0..<1000 {
      span.attributes["\(index)"] = index
      span.addEvent(SpanEvent(name: String(repeating: "é", count: 5000)))
    }
    span.end()
    let ended = record.withLock { $0 }
    #expect(ended?.attributes.count == 64 && ended?.droppedAttributes == 936)
    #expect(ended?.events.count == 256 && ended?.droppedEvents == 744)
    #expect((ended?.events[0].name.utf8.count ?? 0) <= 1026)
  }
}

@Suite("Settings of tracing")
struct TracingSettingsTests {
  @Test("without an endpoint there is no exporter, whatever else is set")
  func off() {
    #expect(TracingSettings().exporter(service: "gateway", environment: ["OTEL_SERVICE_NAME": "x"]) == nil)
    let disabled = ["OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"]
    #expect(TracingSettings().exporter(service: "gateway", environment: disabled) == nil)
    #expect(
      TracingSettings().exporter(service: "gateway", environment: ["OTEL_EXPORTER_OTLP_ENDPOINT": "grpc://c"]) == nil)
  }

  @Test("OpenTelemetry's variables count where settings say nothing")
  func environment() throws {
    let environment = [
      "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/", "OTEL_SERVICE_NAME": "images",
      "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test,service.instance.id=one",
      "OTEL_EXPORTER_OTLP_HEADERS": "X-Key=a%20b", "OTEL_TRACES_SAMPLER_ARG": "0.5",
    ]
    let configuration = try #require(TracingSettings().exporter(service: "gateway", environment: environment))
    #expect(configuration.url == "http://collector:4318/v1/traces")
    #expect(configuration.headers.map(\.name) == ["x-key"] && configuration.headers.map(\.value) == ["a b"])
    let resource = Dictionary(configuration.resource.map { ($0.key, $0.value) }) { $1 }
    #expect(resource["service.name"] == "images" && resource["service.instance.id"] == "one")
    #expect(resource["deployment.environment.name"] == "test" && resource["service.version"] != nil)
    #expect(TracingSettings().effectiveRatio(environment) == 0.5)
    var settings = TracingSettings()
    settings.endpoint = "https://other"
    settings.ratio = 0.125
    #expect(settings.exporter(service: "gateway", environment: environment)?.url == "https://other/v1/traces")
    #expect(settings.effectiveRatio(environment) == 0.125)
  }
}
