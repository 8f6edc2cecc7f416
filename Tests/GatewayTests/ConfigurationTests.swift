import Foundation
import Gateway
import Settings
import Testing

@Suite("Configuration")
struct ConfigurationTests {
  static func parse(_ arguments: [String], _ environment: [String: String] = [:]) async throws(SettingError)
    -> SettingCommand<
      GatewayConfiguration
    >
  {
    try await .parse(program: "gateway", summary: "", arguments: arguments, environment: environment)
  }

  static func configuration(_ arguments: [String], _ environment: [String: String] = [:]) async throws
    -> GatewayConfiguration
  {
    guard case .run(let configuration) = try await parse(arguments, environment) else {
      throw SettingError(problems: ["is no configuration"])
    }
    return configuration
  }

  static func problems(_ arguments: [String], _ environment: [String: String] = [:]) async -> [String] {
    do throws(SettingError) {
      _ = try await parse(arguments, environment)
      return []
    } catch {
      return error.problems
    }
  }

  static func file(_ text: String) throws -> String {
    let path = NSTemporaryDirectory() + "gateway-\(UInt64.random(in: 0 ... .max)).json"
    try text.write(toFile: path, atomically: true, encoding: .utf8)
    return path
  }

  @Test func flagsGoBeforeEnvironmentBeforeFile() async throws {
    let path = try Self.file(
      """
      {
        "http": {"port": 1001, "host": "h1", "maxConnections": 11, "bodyTimeoutSeconds": 3},
        "cluster": {"endpoints": ["ipc:///tmp/a", "tcp://127.0.0.1:1"], "allowPlaintext": true},
        "log": {"level": "debug"}
      }
      """)
    let environment = [
      "QWEN_IMAGE_HTTP_PORT": "1002", "QWEN_IMAGE_HTTP_HOST": "h2", "QWEN_IMAGE_CONFIG": path, "PATH": "/bin",
    ]
    let configuration = try await Self.configuration(["--http-port", "1003"], environment)
    #expect(configuration.port == 1003)
    #expect(configuration.host == "h2")
    #expect(configuration.http.maxConnections == 11)
    #expect(configuration.http.bodyTimeout == .seconds(3))
    #expect(configuration.endpoints == ["ipc:///tmp/a", "tcp://127.0.0.1:1"])
    #expect(configuration.allowsPlaintext)
    #expect(configuration.logLevel == .debug)
    #expect(configuration.http.maxBodyBytes == HTTPLimits().maxBodyBytes)
    #expect(try await Self.configuration(["--config=\(path)"]).port == 1001)
    #expect(try await Self.configuration([]).port == 8080)
  }

  /// ZeroMQ listens at addresses and interfaces: of the names, one is resolved and others are refused before it is
  /// asked.
  @Test func endpointsAreAddressesOrInterfaces() async throws {
    for (text, endpoints) in [
      ("tcp://localhost:5555", ["tcp://127.0.0.1:5555"]),
      ("tcp://LocalHost:*,ipc:///x", ["tcp://127.0.0.1:*", "ipc:///x"]),
      ("tcp://lo:5555", ["tcp://lo:5555"]), ("tcp://[::1]:5555,tcp://*:1", ["tcp://[::1]:5555", "tcp://*:1"]),
      ("tcp://0.0.0.0:5555", ["tcp://0.0.0.0:5555"]),
    ] {
      #expect(try await Self.configuration(["--cluster-endpoints", text]).endpoints == endpoints)
    }
    for name in ["gateway", "gateway.example.org", "localhost.example", "eth9999", "1.2.3", "[gateway]"] {
      let problems = await Self.problems(["--cluster-endpoints", "tcp://\(name):5555"])
      let problem = try #require(problems.first)
      #expect(
        problems.count == 1
          && problem.hasPrefix("cluster.endpoints has tcp://\(name):5555, but ZeroMQ listens at IP addresses"))
      #expect(problem.contains("lo"), "\(problem)")
    }
  }

  @Test func listsAreSeparatedByCommas() async throws {
    #expect(
      try await Self.configuration(["--cluster-endpoints", "tcp://*:1,ipc:///x"]).endpoints == [
        "tcp://*:1", "ipc:///x",
      ])
    #expect(
      try await Self.configuration([], ["QWEN_IMAGE_CLUSTER_ENDPOINTS": "tcp://*:1,ipc:///x"]).endpoints == [
        "tcp://*:1", "ipc:///x",
      ])
  }

  @Test(arguments: [
    (["--http-prot", "1"], "unknown flag --http-prot"), (["8080"], "unexpected argument \"8080\""),
    (["--http-port", "x"], "http.port must be an integer"),
    (["--http-port", "70000"], "http.port is 70000, but must be from 0 to 65535"),
    (["--http-port"], "http.port must be an integer"),
    (["--http-port=1", "2"], "unexpected argument \"2\""),
    (["--jobs-step-slowdown", "nan"], "jobs.stepSlowdown is nan"),
    (["--log-level", "loud"], "log.level is \"loud\", but must be one of trace"),
    (["--log-format", "xml"], "log.format is \"xml\""),
    (["--cluster-lease-seconds", "1"], "cluster.leaseSeconds must be at least twice"),
    (["--cluster-secret-key-file", "k"], "go together"),
    (["--http-allowed-hosts", "a.example,b.example:80"], "http.allowedHosts has \"b.example:80\""),
    (["--http-allowed-hosts", "http://a.example"], "http.allowedHosts has \"http://a.example\""),
    (["--http-allowed-origins", "http://a.example,a.example"], "http.allowedOrigins has \"a.example\""),
    (["--http-allowed-origins", "http://a.example/"], "http.allowedOrigins has \"http://a.example/\""),
    (["--http-base-path", "qi"], "http.basePath is \"qi\""),
    (["--http-base-path", "/v1/x"], "http.basePath is \"/v1/x\""),
    (["--http-public-url", "a.example"], "http.publicUrl is \"a.example\""),
    (["--http-trust-forwarded", "x"], "http.trustForwarded must be"),
    (["--config", "/nonexistent.json"], "/nonexistent.json"),
  ])
  func saysWhatIsWrong(arguments: [String], problem: String) async {
    let problems = await Self.problems(arguments)
    #expect(problems.count == 1 && problems.first?.contains(problem) == true, "\(problems)")
  }

  @Test func saysAllThatIsWrongAtOnce() async throws {
    let path = try Self.file(#"{"http":{"prot":1},"jobs":{"maxCount":0}}"#)
    let problems = await Self.problems(["--config", path, "--bogus"], ["QWEN_IMAGE_HTTP_PORT": "-1"])
    #expect(
      problems == [
        "unknown flag --bogus; see --help", "\(path): unknown key http.prot",
        "http.port is -1, but must be from 0 to 65535",
        "jobs.maxCount is 0, but must be from 1 to 100000",
      ])
    let broken = try Self.file("{")
    #expect(await Self.problems(["--config", broken]) == ["\(broken): is not JSON"])
  }

  @Test func everyKeyIsDocumented() async throws {
    guard case .help(let help) = try await Self.parse(["--help", "--bogus"]) else {
      throw SettingError(problems: ["no help"])
    }
    let settings = await GatewayConfiguration.settings()
    #expect(settings.count > 25)
    #expect(Set(settings.map(\.key)).count == settings.count)
    for setting in settings {
      #expect(help.contains(setting.flag) && help.contains(setting.variable) && help.contains(setting.key))
      #expect(!setting.help.isEmpty && !setting.defaultText.isEmpty)
    }
    #expect(Setting(key: "http.maxBodyBytes", defaultText: "", help: "").flag == "--http-max-body-bytes")
    #expect(Setting(key: "http.maxBodyBytes", defaultText: "", help: "").variable == "QWEN_IMAGE_HTTP_MAX_BODY_BYTES")
  }

  @Test func flagsAndVariablesReallyHaveTheNamesThatAreDocumented() async throws {
    for setting in await GatewayConfiguration.settings() {
      let value =
        ["cluster.allowPlaintext", "http.trustForwarded", "provenance.digitalSourceType"].contains(setting.key)
        ? "perhaps" : setting.key.hasPrefix("log.") ? "x" : "-1"
      // Texts and lists take anything.
      let texts = [
        "http.host", "http.apiKeysFile", "http.allowedHosts", "cluster.endpoints", "cluster.secretKeyFile",
        "cluster.allowedKeysDirectory",
        "journal.path", "journal.passwordFile", "webhooks.allowedHosts", "objects.directory", "objects.s3.endpoint",
        "objects.s3.region", "objects.s3.prefix", "objects.s3.credentialsFile",
      ]
      if texts.contains(setting.key) { continue }
      #expect(await Self.problems([setting.flag, value]).contains { $0.hasPrefix(setting.key) }, "\(setting.flag)")
      #expect(
        await Self.problems([], [setting.variable: value]).contains { $0.hasPrefix(setting.key) }, "\(setting.variable)"
      )
    }
  }

  @Test func actionsAreDistinguished() async throws {
    if case .checkConfiguration = try await Self.parse(["--check-config"]) {} else { Issue.record("no check") }
    if case .health = try await Self.parse(["--health", "--http-port", "1"]) {
    } else {
      Issue.record("no health check")
    }
  }

  @Test func withoutAGatewayThereIsNoHealth() async {
    var configuration = GatewayConfiguration()
    configuration.port = 1
    #expect(await GatewayProcess.isHealthy(configuration) == false)
  }
}
