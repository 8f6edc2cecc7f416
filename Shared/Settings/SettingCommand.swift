import Configuration
import Foundation
import SystemPackage

/// The settings of one program.
public protocol SettingGroup: Sendable {
  /// The defaults.
  init()
  /// Reads every setting; what is wrong is collected in `reader`.
  mutating func read(_ reader: inout SettingReader) async
}

extension SettingGroup {
  /// What is documented by `--help`: every key, in order.
  public static func settings() async -> [Setting] {
    var reader = SettingReader(ConfigReader(provider: InMemoryProvider(values: [:])))
    var group = Self()
    await group.read(&reader)
    return reader.settings
  }
}

/// Why there is no configuration; every line names a key, its value and what it may be.
public struct SettingError: Error, Hashable, Sendable, CustomStringConvertible {
  /// What is wrong.
  public let problems: [String]

  /// An error that lists `problems`, one line each.
  public init(problems: [String]) { self.problems = problems }

  /// One problem per line.
  public var description: String { problems.joined(separator: "\n") }
}

/// What a command line asks a program of the cluster to do.
public enum SettingCommand<Settings: SettingGroup>: Sendable {
  /// Serve.
  case run(Settings)
  /// Print this text and end.
  case help(String)
  /// Say that the configuration is right, and end.
  case checkConfiguration(Settings)
  /// Ask the running process with this configuration whether it is well, and end.
  case health(Settings)

  /// Reads flags, environment and file, in this order of precedence.
  ///
  /// - Parameters:
  ///   - program: the executable's name, for `--help`.
  ///   - summary: what it does, for `--help`.
  ///   - arguments: the command line without the program's name.
  ///   - environment: of the process.
  public static func parse(
    program: String, summary: String, arguments: [String], environment: [String: String]
  ) async throws(SettingError) -> SettingCommand {
    let settings = await Settings.settings()
    if arguments.contains("--help") || arguments.contains("-h") { return .help(help(program, summary, settings)) }
    if arguments.contains("--version") { return .help("\(program) \(SoftwareVersion.current)") }
    let actions = ["--check-config", "--health"]
    let flags = arguments.filter { !actions.contains($0) }
    var problems = unknown(flags, settings)
    let file = value(of: "--config", flags) ?? environment["QWEN_IMAGE_CONFIG"]
    var providers: [any ConfigProvider] = [
      EnvironmentVariablesProvider(environmentVariables: variables(for: flags, settings)).prefixKeys(with: "qwenImage"),
      EnvironmentVariablesProvider(environmentVariables: environment).prefixKeys(with: "qwenImage"),
    ]
    if let file {
      do {
        problems += try unknownKeys(inFile: file, settings)
        providers.append(try await FileProvider<JSONSnapshot>(filePath: FilePath(file)))
      } catch {
        throw SettingError(problems: problems + ["\(file): \(error)"])
      }
    }
    var reader = SettingReader(ConfigReader(providers: providers))
    var group = Settings()
    await group.read(&reader)
    problems += reader.problems
    guard problems.isEmpty else { throw SettingError(problems: problems) }
    if arguments.contains("--health") { return .health(group) }
    return arguments.contains("--check-config") ? .checkConfiguration(group) : .run(group)
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

  /// The flags as the environment variables that mean the same. `--list a --list b` is `--list a,b`; a flag without a
  /// value is true. (swift-configuration has a provider for flags, but as a second trait of the package, and SwiftPM
  /// passes the traits of a package to the compiler in an order that changes from run to run, whereupon it builds
  /// everything above the package again.)
  private static func variables(for arguments: [String], _ settings: [Setting]) -> [String: String] {
    let names = Dictionary(settings.map { ($0.flag, $0.variable) }, uniquingKeysWith: { first, _ in first })
    var variables: [String: String] = [:]
    for (index, argument) in arguments.enumerated() where argument.hasPrefix("--") {
      let flag = argument.prefix { $0 != "=" }
      guard let name = names[String(flag)] else { continue }
      let next = index + 1 < arguments.count && !arguments[index + 1].hasPrefix("--") ? arguments[index + 1] : "true"
      let value = flag.count < argument.count ? String(argument.dropFirst(flag.count + 1)) : next
      variables[name] = variables[name].map { "\($0),\(value)" } ?? value
    }
    return variables
  }

  private static func value(of flag: String, _ arguments: [String]) -> String? {
    for (index, argument) in arguments.enumerated() {
      if argument.hasPrefix(flag + "=") { return String(argument.dropFirst(flag.count + 1)) }
      if argument == flag, index + 1 < arguments.count { return arguments[index + 1] }
    }
    return nil
  }

  private static func unknownKeys(inFile path: String, _ settings: [Setting]) throws -> [String] {
    let known = Set(settings.map(\.key))
    let data: Data
    do { data = try Data(contentsOf: URL(filePath: path)) } catch { throw SettingError(problems: ["cannot be read"]) }
    guard let document = try? JSONSerialization.jsonObject(with: data) else {
      throw SettingError(problems: ["is not JSON"])
    }
    return keys(of: document, under: "").filter { !known.contains($0) }.sorted().map { "\(path): unknown key \($0)" }
  }

  private static func keys(of value: Any, under prefix: String) -> [String] {
    guard let members = value as? [String: Any] else { return [prefix] }
    return members.flatMap { keys(of: $0.value, under: prefix.isEmpty ? $0.key : "\(prefix).\($0.key)") }
  }

  private static func help(_ program: String, _ summary: String, _ settings: [Setting]) -> String {
    let keys = settings.map { "  \($0.flag), \($0.variable), \($0.key)\n      \($0.help). Default: \($0.defaultText)" }
    return """
      Usage: \(program) [--config FILE] [--check-config | --health | --version | --help] [FLAG VALUE]...

      \(summary)

      --config FILE (or QWEN_IMAGE_CONFIG) names a JSON file. --check-config reads the configuration, says what is wrong
      with it, and ends. --health asks the process that runs with this configuration whether it is well.

      Each setting has a flag, an environment variable and a key in the file; the first that is given counts:

      \(keys.joined(separator: "\n"))
      """
  }
}
