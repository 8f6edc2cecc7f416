import CoreMetrics
import Observability
import Testing
import Tracing

@Suite("Prometheus exposition")
struct PrometheusTests {
  @Test("the text is the format that Prometheus 0.0.4 defines")
  func golden() {
    let registry = PrometheusRegistry()
    registry.describe("jobs_total", "Jobs by outcome.\nTwo lines, a \\ and a \"quote\".")
    registry.describe("step_seconds", "Time of a step.", buckets: [1, 0.1, 10])
    Counter(label: "jobs_total", dimensions: [("outcome", "done")], factory: registry).increment(by: 3)
    Counter(label: "jobs_total", dimensions: [("tenant", "a\"b\\c\nd"), ("outcome", "failed")], factory: registry)
      .increment()
    FloatingPointCounter(label: "cpu.seconds-total", factory: registry).increment(by: 1.5)
    Meter(label: "queue", factory: registry).set(4)
    Gauge(label: "2nd", factory: registry).record(-0.25)
    let timer = Timer(label: "step_seconds", dimensions: [("stage", "denoiser")], factory: registry)
    for milliseconds in [50, 100, 101, 5000, 60_000] { timer.recordMilliseconds(Int64(milliseconds)) }
    #expect(
      registry.exposition() == """
        # TYPE _2nd gauge
        _2nd -0.25
        # TYPE cpu_seconds_total counter
        cpu_seconds_total 1.5
        # HELP jobs_total Jobs by outcome.\\nTwo lines, a \\\\ and a "quote".
        # TYPE jobs_total counter
        jobs_total{outcome="done"} 3
        jobs_total{outcome="failed",tenant="a\\"b\\\\c\\nd"} 1
        # TYPE queue gauge
        queue 4
        # HELP step_seconds Time of a step.
        # TYPE step_seconds histogram
        step_seconds_bucket{stage="denoiser",le="0.1"} 2
        step_seconds_bucket{stage="denoiser",le="1"} 3
        step_seconds_bucket{stage="denoiser",le="10"} 4
        step_seconds_bucket{stage="denoiser",le="+Inf"} 5
        step_seconds_sum{stage="denoiser"} 65.251
        step_seconds_count{stage="denoiser"} 5

        """)
  }

  @Test("the same name and labels are the same series, in whatever order the labels come")
  func identity() async {
    let registry = PrometheusRegistry()
    await withTaskGroup(of: Void.self) { group in
      for index in 0..<100 {
        group.addTask {
          let labels = index % 2 == 0 ? [("a", "1"), ("b", "2")] : [("b", "2"), ("a", "1")]
          for _ in 0..<100 { Counter(label: "n", dimensions: labels, factory: registry).increment() }
        }
      }
    }
    #expect(registry.exposition() == "# TYPE n counter\nn{a=\"1\",b=\"2\"} 10000\n")
  }

  @Test("series are bounded, and a name keeps its kind")
  func bounded() {
    let registry = PrometheusRegistry(maxSeries: 3)
    for index in 0..<10 { Counter(label: "n", dimensions: [("i", "\(index)")], factory: registry).increment() }
    Meter(label: "n", factory: registry).set(5)
    let text = registry.exposition()
    #expect(text.contains("n{i=\"2\"} 1\n") && !text.contains("n{i=\"3\"}"))
    #expect(text.hasSuffix("qwenimage_metrics_dropped_series_total 8\n"))
  }

  @Test("destroyed series are gone and free their places; NaN never enters a sum")
  func destroyed() {
    let registry = PrometheusRegistry(maxSeries: 1)
    let counter = Counter(label: "a", factory: registry)
    counter.destroy()
    let other = FloatingPointCounter(label: "b", factory: registry)
    other.increment(by: Double.nan)
    other.increment(by: 2.0)
    #expect(registry.exposition().hasSuffix("# TYPE b counter\nb 2\n"))
  }

  @Test("OpenMetrics names families without _total, bounds as floating-point numbers, and ends with EOF")
  func openMetrics() {
    let registry = PrometheusRegistry()
    registry.describe("jobs_total", "Jobs, \"all\".")
    registry.describe("step_seconds", "Time of a step.", buckets: [1, 0.5])
    Counter(label: "jobs_total", factory: registry).increment()
    Counter(label: "odd", factory: registry).increment()
    Timer(label: "step_seconds", factory: registry).recordSeconds(0.75)
    #expect(
      registry.exposition(.openMetrics) == """
        # HELP jobs Jobs, \\"all\\".
        # TYPE jobs counter
        jobs_total 1
        # TYPE odd unknown
        odd 1
        # HELP step_seconds Time of a step.
        # TYPE step_seconds histogram
        step_seconds_bucket{le="0.5"} 0
        step_seconds_bucket{le="1.0"} 1
        step_seconds_bucket{le="+Inf"} 1
        step_seconds_sum 0.75
        step_seconds_count 1
        # EOF

        """)
    #expect(registry.undescribedNames == ["odd"])
  }

  @Test("a bucket has the newest trace that was sampled as its exemplar, in OpenMetrics only")
  func exemplars() throws {
    let registry = PrometheusRegistry()
    registry.describe("s", "Time.", buckets: [1])
    let timer = Timer(label: "s", factory: registry)
    let counter = Counter(label: "c_total", factory: registry)
    let traces = try ["a", "b", "c", "d"].map { digit in
      try #require(TraceContext(traceparent: "00-\(String(repeating: digit, count: 32))-b7ad6b7169203331-01"))
    }
    for (trace, seconds) in zip(traces, [0.25, 0.5, 30]) {
      ServiceContext.tracing(trace).measuring {
        timer.recordSeconds(seconds)
        counter.increment()
      }
    }
    let unsampled = try #require(TraceContext(traceparent: "00-\(traces[3].traceIDText)-b7ad6b7169203331-00"))
    ServiceContext.tracing(unsampled).measuring { timer.recordSeconds(0.125) }
    timer.recordSeconds(40.0)
    let lines = registry.exposition(.openMetrics).split(separator: "\n")
    let first = try #require(lines.first { $0.hasPrefix("s_bucket{le=\"1.0\"}") })
    #expect(first.hasPrefix("s_bucket{le=\"1.0\"} 3 # {trace_id=\"\(traces[1].traceIDText)\"} 0.5 1"))
    let last = try #require(lines.first { $0.hasPrefix("s_bucket{le=\"+Inf\"}") })
    #expect(last.hasPrefix("s_bucket{le=\"+Inf\"} 5 # {trace_id=\"\(traces[2].traceIDText)\"} 30.0 1"))
    #expect(!registry.exposition().contains("trace_id"))
  }

  @Test(
    "scrapers that name OpenMetrics get it",
    arguments: [
      ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", true),
      ("text/plain, Application/OpenMetrics-Text; q=0.2", true), ("application/openmetrics-text;q=0,*/*", false),
      ("*/*", false), ("", false),
    ])
  func negotiation(accept: String, isOpenMetrics: Bool) {
    #expect(ExpositionFormat(accept: accept) == (isOpenMetrics ? .openMetrics : .text))
    #expect(ExpositionFormat(accept: nil) == .text)
  }

  @Test("the process is measured")
  func process() throws {
    let statistics = ProcessStatistics.current()
    #expect(statistics.residentBytes > 1 << 20 && statistics.peakResidentBytes >= statistics.residentBytes)
    #expect(statistics.cpuSeconds > 0)
    let registry = PrometheusRegistry()
    registry.collectProcessStatistics()
    let lines = registry.exposition().split(separator: "\n")
    let line = try #require(lines.first { $0.hasPrefix("process_resident_memory_bytes ") })
    let resident = try #require(Double(line.split(separator: " ")[1]))
    #expect(resident > 1_048_576)
    #expect(lines.contains("# TYPE process_cpu_seconds_total counter"))
  }
}
