import Foundation
import Logging
import Observability
import Settings
import Tracing

/// Where spans go, and how many.
public struct TracingSettings: Hashable, Sendable {
  /// The collector's base address, to which `/v1/traces` is added; empty: what OpenTelemetry's variables say, or
  /// nowhere.
  public var endpoint = ""
  /// The share of traces that begin here which is kept.
  public var ratio = 1.0

  /// The defaults: off.
  public init() {}

  /// Reads the settings.
  public mutating func read(_ reader: inout SettingReader) async {
    endpoint = await reader.text(
      "tracing.endpoint", endpoint,
      "base address of an OpenTelemetry collector (OTLP over HTTP), such as http://127.0.0.1:4318; "
        + "empty: OTEL_EXPORTER_OTLP_ENDPOINT if it is set, else no spans")
    ratio = await reader.number(
      "tracing.ratio", ratio, in: 0...1, "share of the traces that begin here which is kept; 1: all")
    if !endpoint.isEmpty, Self.tracesURL(base: endpoint) == nil {
      reader.complain("tracing.endpoint is \"\(endpoint.prefix(80))\", but must be an http or https address")
    }
  }

  /// The exporter and its tracer, which the process uses from now on; nil: there is nowhere to send spans to.
  ///
  /// - Parameters:
  ///   - service: the process's role, unless `OTEL_SERVICE_NAME` says something else.
  ///   - environment: of the process, with OpenTelemetry's variables: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`,
  ///     `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
  ///     `OTEL_TRACES_SAMPLER_ARG`, `OTEL_SDK_DISABLED`.
  public func bootstrap(
    service: String, environment: [String: String] = ProcessInfo.processInfo.environment, logger: Logger
  ) -> SpanExporter? {
    guard let configuration = exporter(service: service, environment: environment) else { return nil }
    let exporter = SpanExporter(configuration, logger: logger)
    InstrumentationSystem.bootstrap(ExportingTracer(exporter, ratio: effectiveRatio(environment)))
    logger.info("spans are exported", metadata: ["url": "\(configuration.url)"])
    return exporter
  }

  /// How spans are sent; nil: not at all.
  package func exporter(service: String, environment: [String: String]) -> SpanExporter.Configuration? {
    let value = { (name: String) in environment[name].flatMap { $0.isEmpty ? nil : $0 } }
    guard value("OTEL_SDK_DISABLED")?.lowercased() != "true" else { return nil }
    let base = endpoint.isEmpty ? value("OTEL_EXPORTER_OTLP_ENDPOINT") : endpoint
    let whole = endpoint.isEmpty ? value("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") : nil
    guard let url = whole ?? base.flatMap(Self.tracesURL), Self.isHTTP(url) else { return nil }
    var configuration = SpanExporter.Configuration(url: url)
    configuration.version = SoftwareVersion.current
    configuration.headers = Self.pairs(value("OTEL_EXPORTER_OTLP_HEADERS")).map { ($0.lowercased(), $1) }
    var resource = Dictionary(Self.pairs(value("OTEL_RESOURCE_ATTRIBUTES"))) { $1 }
    resource["service.name"] = value("OTEL_SERVICE_NAME") ?? resource["service.name"] ?? "qwen-image-\(service)"
    resource["service.version"] = SoftwareVersion.current
    if resource["service.instance.id"] == nil { resource["service.instance.id"] = UUID().uuidString.lowercased() }
    resource["host.name"] = ProcessInfo.processInfo.hostName
    resource["process.pid"] = "\(ProcessInfo.processInfo.processIdentifier)"
    configuration.resource = resource.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    return configuration
  }

  /// The share of new traces: the setting, or OpenTelemetry's variable where that was left alone.
  package func effectiveRatio(_ environment: [String: String]) -> Double {
    guard ratio == 1, let text = environment["OTEL_TRACES_SAMPLER_ARG"], let other = Double(text),
      (0...1).contains(other)
    else { return ratio }
    return other
  }

  private static func isHTTP(_ url: String) -> Bool {
    guard let parts = URL(string: url), let scheme = parts.scheme?.lowercased() else { return false }
    return ["http", "https"].contains(scheme) && parts.host?.isEmpty == false
  }

  private static func tracesURL(base: String) -> String? {
    isHTTP(base) ? (base.hasSuffix("/") ? String(base.dropLast()) : base) + "/v1/traces" : nil
  }

  /// `key=value,key=value`, values with percent signs decoded; what is something else is left out.
  private static func pairs(_ text: String?) -> [(String, String)] {
    (text ?? "").split(separator: ",").compactMap { item in
      let parts = item.split(separator: "=", maxSplits: 1).map { $0.trimmingCharacters(in: .whitespaces) }
      guard parts.count == 2, !parts[0].isEmpty else { return nil }
      return (parts[0], parts[1].removingPercentEncoding ?? parts[1])
    }
  }
}
