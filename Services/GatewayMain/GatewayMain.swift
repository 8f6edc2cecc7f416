import Foundation
import Gateway
import Logging

@main
struct GatewayMain {
  static func main() async {
    do {
      switch try await GatewayCommand.parse(
        arguments: Array(CommandLine.arguments.dropFirst()), environment: ProcessInfo.processInfo.environment)
      {
      case .help(let text): print(text)
      case .checkConfiguration: print("the configuration is right")
      case .health(let configuration): exit(await GatewayProcess.isHealthy(configuration) ? 0 : 1)
      case .run(let configuration): try await GatewayProcess.run(configuration, logger: bootstrapLogging(configuration))
      }
    } catch let error as ConfigurationError {
      fail("gateway: the configuration is wrong:\n\(error)", status: 78)
    } catch {
      fail("gateway: \(error)", status: 1)
    }
  }

  private static func bootstrapLogging(_ configuration: GatewayConfiguration) -> Logger {
    LoggingSystem.bootstrap(StreamLogHandler.standardError)
    var logger = Logger(label: "gateway")
    logger.logLevel = configuration.logLevel
    return logger
  }

  private static func fail(_ message: String, status: Int32) -> Never {
    FileHandle.standardError.write(Data((message + "\n").utf8))
    exit(status)
  }
}
