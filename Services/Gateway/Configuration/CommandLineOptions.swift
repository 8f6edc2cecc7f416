import Configuration
import Foundation
import SystemPackage

/// What the command line asks the gateway to do.
public enum GatewayCommand: Sendable {
  /// Serve.
  case run(GatewayConfiguration)
  /// Print this text and end.
  case help(String)
  /// Say that the configuration is right, and end.
  case checkConfiguration(GatewayConfiguration)
  /// Ask the running gateway whether it is alive, and end.
  case health(GatewayConfiguration)
}

/// Why there is no configuration; every line names a key, its value and what it may be.
public struct ConfigurationError: Error, Hashable, Sendable, CustomStringConvertible {
  /// What is wrong.
  public let problems: [String]

  /// Names what is wrong.
  package init(problems: [String]) {
    self.problems = problems
  }

  /// One problem per line.
  public var description: String { problems.joined(separator: "\n") }
}

extension GatewayCommand {
  /// Reads flags, environment and file, in this order of precedence.
  ///
  /// - Parameters:
  ///   - arguments: the command line without the program's name.
  ///   - environment: of the process.
  public static func parse(arguments: [String], environment: [String: String]) async throws(ConfigurationError) -> GatewayCommand {
    let settings = await GatewayConfiguration.settings()
    if arguments.contains("--help") || arguments.contains("-h") { return .help(help(settings)) }
    let actions = ["--check-config", "--health"]
    let flags = arguments.filter { !actions.contains($0) }
    var problems = unknown(flags, settings)
    let file = value(of: "--config", flags) ?? environment["QWEN_IMAGE_CONFIG"]
    var providers: [any ConfigProvider] = [
      CommandLineArgumentsProvider(arguments: ["gateway"] + flags),
      EnvironmentVariablesProvider(environmentVariables: environment).prefixKeys(with: "qwenImage"),
    ]
    if let file {
      do {
        problems += try unknownKeys(inFile: file, settings)
        providers.append(try await FileProvider<JSONSnapshot>(filePath: FilePath(file)))
      } catch {
        throw ConfigurationError(problems: problems + ["\(file): \(error)"])
      }
    }
    var reader = SettingReader(ConfigReader(providers: providers))
    var configuration = GatewayConfiguration()
    await configuration.read(&reader)
    problems += reader.problems
    guard problems.isEmpty else { throw ConfigurationError(problems: problems) }
    if arguments.contains("--health") { return .health(configuration) }
    return arguments.contains("--check-config") ? .checkConfiguration(configuration) : .run(configuration)
  }

  /// A misspelt flag must not be ignored.
  private static func unknown(_ arguments: [String], _ settings: [Setting]) -> [String] {
    let known = Set(settings.map(\.flag) + ["--config"])
    var problems: [String] = []
    var mayBeValue = false
    for argument in arguments {
      guard argument.hasPrefix("--") else {
        if !mayBeValue { problems.append("unexpected argument \"\(argument)\"; see --help") }
        mayBeValue = false
        continue
      }
      let flag = argument.prefix { $0 != "=" }
      if !known.contains(String(flag)) { problems.append("unknown flag \(flag); see --help") }
      mayBeValue = flag.count == argument.count
    }
    return problems
  }

  private static func value(of flag: String, _ arguments: [String]) -> String? {
    for (index, argument) in arguments.enumerated() {
      if argument.hasPrefix(flag + "=") { return String(argument.dropFirst(flag.count + 1)) }
      if argument == flag, index + 1 < arguments.count { return arguments[index + 1] }
    }
    return nil
  }

  private static func unknownKeys(inFile path: String, _ settings: [Setting]) throws -> [String] {
    let bytes = try Data(contentsOf: URL(fileURLWithPath: path))
    let known = Set(settings.map(\.key))
    return keys(of: try StrictJSON.parse(Array(bytes)), under: "").filter { !known.contains($0) }.map { "\(path): unknown key \($0)" }
  }

  private static func keys(of value: JSONValue, under prefix: String) -> [String] {
    guard case .object(let members) = value else { return [prefix] }
    return members.flatMap { keys(of: $0.value, under: prefix.isEmpty ? $0.key : "\(prefix).\($0.key)") }
  }

  private static func help(_ settings: [Setting]) -> String {
    let keys = settings.map { "  \($0.flag), \($0.variable), \($0.key)\n      \($0.help). Default: \($0.defaultText)" }
    return """
      Usage: gateway [--config FILE] [--check-config | --health | --help] [FLAG VALUE]...

      Serves the HTTP API of a Qwen-Image cluster and hands the work to the stages that connect to it.

      --config FILE (or QWEN_IMAGE_CONFIG) names a JSON file. --check-config reads the configuration, says what is wrong with it, and
      ends. --health asks the gateway that runs with this configuration whether it is alive.

      Each setting has a flag, an environment variable and a key in the file; the first that is given counts:

      \(keys.joined(separator: "\n"))
      """
  }
}
