import CoreMetrics
import Foundation
import Synchronization

/// Keeps the metrics of a process and writes them in Prometheus' text format (version 0.0.4) or as OpenMetrics (1.0.0).
///
/// Use it through swift-metrics: `MetricsSystem.bootstrap(registry)`, then `Counter`, `Gauge`, `Meter`, `Timer` and
/// `Recorder` anywhere. Timers and aggregating recorders become histograms (timers in seconds). Labels are the
/// dimensions. What a histogram observes within a sampled trace (`ServiceContext.traceContext`)
/// is kept as its bucket's exemplar, which only OpenMetrics can show.
public final class PrometheusRegistry: MetricsFactory {
  /// Bucket bounds of histograms, in seconds for timers, that have no bounds of their own.
  public static let defaultBuckets: [Double] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800,
  ]

  enum Kind: String {
    case counter
    case gauge
    case histogram
  }

  private struct Family {
    let kind: Kind
    var series: [String: Series] = [:]
  }

  /// A series as its user calls it.
  private struct Handle: Hashable {
    let label: String
    let dimensions: [String]
    let kind: Kind

    init(_ label: String, _ dimensions: [(String, String)], _ kind: Kind) {
      (self.label, self.kind) = (label, kind)
      self.dimensions = dimensions.flatMap { [$0.0, $0.1] }
    }
  }

  private struct State {
    var families: [String: Family] = [:]
    /// The series that were asked for by these names: to make a name that Prometheus allows takes longer than to count.
    var handles: [Handle: Series] = [:]
    var help: [String: String] = [:]
    var buckets: [String: [Double]] = [:]
    var seriesCount = 0
    var droppedSeries = 0
  }

  private let state = Mutex(State())
  /// Counts what was dropped.
  static let droppedSeriesName = "qwenimage_metrics_dropped_series_total"

  private let collectors = Mutex<[@Sendable () -> Void]>([])
  private let maxSeries: Int

  /// An empty registry. Series beyond `maxSeries` are dropped and counted, so that no label can fill the memory.
  public init(maxSeries: Int = 10_000) { self.maxSeries = maxSeries }

  /// Says what a metric means; `buckets` are the bounds of its histogram.
  public func describe(_ name: String, _ help: String, buckets: [Double]? = nil) {
    state.withLock { state in
      state.help[Self.name(name)] = help
      if let buckets { state.buckets[Self.name(name)] = buckets.sorted() }
    }
  }

  /// Calls `collect` before every exposition, to set gauges that are read rather than counted.
  public func onCollect(_ collect: @escaping @Sendable () -> Void) { collectors.withLock { $0.append(collect) } }

  /// Adds the `process_*` metrics that Prometheus' own clients have.
  public func collectProcessStatistics() {
    let started = Date().timeIntervalSince1970
    describe("process_resident_memory_bytes", "Resident memory size in bytes.")
    describe("process_resident_memory_peak_bytes", "Peak resident memory size in bytes.")
    describe("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.")
    describe("process_open_fds", "Number of open file descriptors.")
    describe("process_start_time_seconds", "Start time of the process since unix epoch in seconds.")
    onCollect { [unowned self] in
      let statistics = ProcessStatistics.current()
      series("process_resident_memory_bytes", [], .gauge).set(Double(statistics.residentBytes))
      series("process_resident_memory_peak_bytes", [], .gauge).set(Double(statistics.peakResidentBytes))
      series("process_cpu_seconds_total", [], .counter).set(statistics.cpuSeconds)
      if let count = statistics.openDescriptors { series("process_open_fds", [], .gauge).set(Double(count)) }
      series("process_start_time_seconds", [], .gauge).set(started)
    }
  }

  /// The exposition, sorted by name and labels. ``ExpositionFormat/mediaType`` is its media type.
  public func exposition(_ format: ExpositionFormat = .text) -> String {
    for collect in collectors.withLock({ $0 }) { collect() }
    return state.withLock { state in
      var text = ""
      for (name, family) in state.families.sorted(by: { $0.key < $1.key }) {
        text += format.head(name, family.kind, help: state.help[name])
        for (labels, series) in family.series.sorted(by: { $0.key < $1.key }) {
          series.write(name, labels, format, to: &text)
        }
      }
      if state.droppedSeries > 0 {
        let help = "Series that were not kept because there were too many, or because their name had another kind."
        text += format.head(Self.droppedSeriesName, .counter, help: help)
        text += "\(Self.droppedSeriesName) \(state.droppedSeries)\n"
      }
      return text + format.end
    }
  }

  /// Names of the metrics that are shown now and were never described.
  public var undescribedNames: [String] {
    state.withLock { state in state.families.keys.filter { state.help[$0] == nil }.sorted() }
  }

  /// The series of a metric with the given labels, made when it is new.
  ///
  /// Where the name is in use for another kind of metric, or there are too many series, the one returned is not
  /// exposed.
  func series(_ label: String, _ dimensions: [(String, String)], _ kind: Kind) -> Series {
    let handle = Handle(label, dimensions, kind)
    if let known = state.withLock({ $0.handles[handle] }) { return known }
    let name = Self.name(label)
    let labels = Self.labels(dimensions)
    return state.withLock { state in
      let bounds = kind == .histogram ? state.buckets[name] ?? Self.defaultBuckets : []
      if let family = state.families[name] {
        if family.kind == kind, let series = family.series[labels] {
          if state.handles.count < 2 * maxSeries { state.handles[handle] = series }
          return series
        }
        guard family.kind == kind, state.seriesCount < maxSeries else {
          state.droppedSeries += 1
          return Series(bounds: bounds)
        }
      } else {
        guard state.seriesCount < maxSeries else {
          state.droppedSeries += 1
          return Series(bounds: bounds)
        }
        state.families[name] = Family(kind: kind)
      }
      let series = Series(bounds: bounds)
      state.families[name]?.series[labels] = series
      state.handles[handle] = series
      state.seriesCount += 1
      return series
    }
  }

  private func remove(_ series: Series) {
    state.withLock { state in
      state.handles = state.handles.filter { $0.value !== series }
      for (name, family) in state.families {
        guard let labels = family.series.first(where: { $0.value === series })?.key else { continue }
        state.families[name]?.series[labels] = nil
        state.seriesCount -= 1
        return
      }
    }
  }
}

// MARK: - swift-metrics

extension PrometheusRegistry {
  /// See `MetricsFactory`.
  public func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
    series(label, dimensions, .counter)
  }
  /// See `MetricsFactory`.
  public func makeFloatingPointCounter(label: String, dimensions: [(String, String)]) -> any FloatingPointCounterHandler
  {
    series(label, dimensions, .counter)
  }
  /// See `MetricsFactory`.
  public func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler {
    series(label, dimensions, .gauge)
  }
  /// See `MetricsFactory`.
  public func makeRecorder(label: String, dimensions: [(String, String)], aggregate: Bool) -> any RecorderHandler {
    series(label, dimensions, aggregate ? .histogram : .gauge)
  }
  /// See `MetricsFactory`.
  public func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
    series(label, dimensions, .histogram)
  }
  /// See `MetricsFactory`.
  public func destroyCounter(_ handler: any CounterHandler) { (handler as? Series).map(remove) }
  /// See `MetricsFactory`.
  public func destroyFloatingPointCounter(_ handler: any FloatingPointCounterHandler) {
    (handler as? Series).map(remove)
  }
  /// See `MetricsFactory`.
  public func destroyMeter(_ handler: any MeterHandler) { (handler as? Series).map(remove) }
  /// See `MetricsFactory`.
  public func destroyRecorder(_ handler: any RecorderHandler) { (handler as? Series).map(remove) }
  /// See `MetricsFactory`.
  public func destroyTimer(_ handler: any TimerHandler) { (handler as? Series).map(remove) }
}

// MARK: - Names and labels

extension PrometheusRegistry {
  /// `[a-zA-Z_:][a-zA-Z0-9_:]*`: anything else becomes `_`.
  static func name(_ text: String) -> String { sanitized(text, allowing: ":") }

  /// The inside of the braces, sorted by label.
  static func labels(_ dimensions: [(String, String)]) -> String {
    dimensions.map { (sanitized($0.0, allowing: ""), $0.1) }.sorted { $0.0 < $1.0 }
      .map { "\($0.0)=\"\(escaped(String($0.1.prefix(256)), quotes: true))\"" }.joined(separator: ",")
  }

  private static func sanitized(_ text: String, allowing extra: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      let isLetter =
        scalar.isASCII && (scalar.properties.isAlphabetic || scalar == "_" || extra.unicodeScalars.contains(scalar))
      let isDigit = ("0"..."9").contains(scalar)
      if result.isEmpty && isDigit { result = "_" }
      result.unicodeScalars.append(isLetter || isDigit ? scalar : "_")
    }
    return result.isEmpty ? "_" : result
  }

  static func escaped(_ text: String, quotes: Bool) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\"" where quotes: result += "\\\""
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }
}
