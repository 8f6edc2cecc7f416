import Foundation
import Tracing

/// How metrics are written.
public enum ExpositionFormat: Sendable {
  /// Prometheus' text format, version 0.0.4.
  case text
  /// OpenMetrics 1.0.0, which has exemplars.
  case openMetrics

  /// The format for a scraper with this `Accept` header: OpenMetrics for those that name it, text for all others.
  public init(accept: String?) {
    let isNamed = (accept ?? "").lowercased().split(separator: ",").contains { range in
      let parts = range.split(separator: ";").map { $0.filter { $0 != " " } }
      return parts.first == "application/openmetrics-text"
        && !parts.contains { $0.hasPrefix("q=0") && Double($0.dropFirst(2)) == 0 }
    }
    self = isNamed ? .openMetrics : .text
  }

  /// The content type of the exposition.
  public var mediaType: String {
    switch self {
    case .text: "text/plain; version=0.0.4; charset=utf-8"
    case .openMetrics: "application/openmetrics-text; version=1.0.0; charset=utf-8"
    }
  }

  /// What stands before the series of a metric. OpenMetrics names a counter's family without the suffix that all of its
  /// series must have, and knows no counters without it.
  func head(_ name: String, _ kind: PrometheusRegistry.Kind, help: String?) -> String {
    var family = name, kindText = kind.rawValue
    if self == .openMetrics, kind == .counter {
      if name.hasSuffix("_total") { family = String(name.dropLast("_total".count)) } else { kindText = "unknown" }
    }
    let help = help.map { "# HELP \(family) \(PrometheusRegistry.escaped($0, quotes: self == .openMetrics))\n" } ?? ""
    return help + "# TYPE \(family) \(kindText)\n"
  }

  /// What stands behind the last metric.
  var end: String { self == .openMetrics ? "# EOF\n" : "" }

  /// A bucket's bound. OpenMetrics wants floating-point numbers.
  func bound(_ value: Double) -> String {
    self == .openMetrics && value.isFinite ? "\(value)" : Series.number(value)
  }
}

/// A measurement with the trace that it was made in.
struct Exemplar {
  let value: Double
  let traceID: String
  /// Since 1970.
  let seconds: Double

  /// `value` in the trace of the current task; nil: there is none, or no process keeps it.
  init?(_ value: Double) {
    guard let trace = ServiceContext.current?.traceContext, trace.isSampled else { return nil }
    let time = LogRecord.now()
    self.value = value
    traceID = trace.traceIDText
    seconds = Double(time.tv_sec) + Double(time.tv_nsec / 1_000_000) / 1000
  }

  /// What OpenMetrics has behind a sample.
  var text: String { " # {trace_id=\"\(traceID)\"} \(value) \(seconds)" }
}
