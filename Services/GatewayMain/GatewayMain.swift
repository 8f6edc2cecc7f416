import Foundation
import Gateway
import Journal
import Logging
import Metrics
import Observability
import Settings

@main
struct GatewayMain {
  static func main() async {
    do {
      let command = try await SettingCommand<GatewayConfiguration>.parse(
        program: "gateway",
        summary: "Serves the HTTP API of a Qwen-Image cluster and hands the work to the stages that connect to it.",
        arguments: Array(CommandLine.arguments.dropFirst()), environment: ProcessInfo.processInfo.environment)
      switch command {
      case .help(let text): print(text)
      case .checkConfiguration(let configuration):
        _ = try configuration.provenance.checked()
        try configuration.enhancement.check()
        print("the configuration is right")
      case .health(let configuration): exit(await GatewayProcess.isHealthy(configuration) ? 0 : 1)
      case .run(let configuration): try await run(configuration)
      }
    } catch let error as SettingError {
      fail("gateway: the configuration is wrong:\n\(error)", status: 78)
    } catch let error as JournalError {
      // EX_TEMPFAIL: another gateway has taken over; who supervises this one is to start it again.
      if case .fenced = error { fail("gateway: \(error)", status: 75) }
      fail("gateway: \(error)", status: 1)
    } catch {
      fail("gateway: \(error)", status: 1)
    }
  }

  private static func run(_ configuration: GatewayConfiguration) async throws {
    bootstrapLogging(configuration.logFormat, level: configuration.logLevel)
    let metrics = PrometheusRegistry()
    metrics.collectProcessStatistics()
    MetricsSystem.bootstrap(metrics)
    try await GatewayProcess.run(configuration, metrics: metrics, logger: Logger(label: "gateway"))
  }

  private static func fail(_ message: String, status: Int32) -> Never {
    FileHandle.standardError.write(Data((message + "\n").utf8))
    exit(status)
  }
}
