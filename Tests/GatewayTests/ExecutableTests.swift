import Foundation
import Gateway
import NIOCore
import StrictJSON
import Subprocess
import SystemPackage
import Testing
import Wire

/// The program as it is installed.
struct GatewayProgram: Sendable {
  private static let executable = Executable.path(
    FilePath(
      URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().appendingPathComponent("gateway").path)
  )

  let log: String
  let signal: @Sendable (Int32) -> Void

  func terminate() { signal(SIGTERM) }

  /// What it has written so far.
  var output: String { (try? String(contentsOfFile: log, encoding: .utf8)) ?? "" }

  /// Runs it to its end.
  static func run(_ arguments: [String]) async throws -> (status: TerminationStatus, output: String) {
    let result = try await Subprocess.run(
      executable, arguments: Arguments(["--journal-path=off"] + arguments), output: .string(limit: 1 << 20),
      error: .combinedWithOutput)
    return (result.terminationStatus, result.standardOutput)
  }

  /// Runs it, calls `body` with its port once it serves, terminates it unless `body` has, and returns how it ended.
  static func serving(
    _ arguments: [String], _ body: @Sendable (GatewayProgram, Int) async throws -> Void
  ) async throws -> (status: TerminationStatus, output: String) {
    let log = NSTemporaryDirectory() + "gateway-\(UInt32.random(in: 0 ... .max)).log"
    let file = try FileDescriptor.open(
      FilePath(log), .writeOnly, options: [.create, .append], permissions: .ownerReadWrite)
    let result = try await Subprocess.run(
      executable, arguments: Arguments(["--journal-path=off"] + arguments), input: .none,
      output: .fileDescriptor(file, closeAfterSpawningProcess: true),
      error: .combinedWithOutput
    ) { execution in
      let pid = execution.processIdentifier.value
      let program = GatewayProgram(log: log) { kill(pid, $0) }
      defer { program.terminate() }
      try await body(program, try await program.port())
    }
    return (result.terminationStatus, GatewayProgram(log: log, signal: { _ in }).output)
  }

  private func port() async throws -> Int {
    try await wait("the gateway serves") { output.contains("\"serving\"") }
    let line = try #require(output.split(separator: "\n").first { $0.contains("\"serving\"") })
    let address = try #require(try JSON(Array(line.utf8))["http"]?.text)
    return try #require(Int(address.split(separator: ":").last ?? ""))
  }
}

@Suite("The executable", .timeLimit(.minutes(2)))
struct ExecutableTests {
  @Test func servesUntilItIsTerminatedAndLetsRunningJobsEnd() async throws {
    let endpoint = ToyCluster.freshEndpoint
    let arguments = ["--http-port=0", "--cluster-endpoints", endpoint, "--shutdown-grace-seconds", "20"]
    let ended = try await GatewayProgram.serving(arguments) { gateway, port in
      try await StageRuntimeClusterTests.withWorkers(endpoint, stepSeconds: 0.02) { _ in
        let get = { (path: String) in
          try await RawClient.exchange(port, "GET \(path) HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        }
        try await wait("it is ready") { try await get("/readyz").hasPrefix("HTTP/1.1 200") }
        #expect(try await GatewayProgram.run(["--health", "--http-port=\(port)"]).status == .exited(0))
        let expected = try Data(Toy.marked(Toy.expected(prompt: "p", seed: 1, steps: 30))).base64EncodedString()
        let request = RawClient.post(#"{"prompt":"p","seed":1,"steps":30}"#)
        #expect(try await RawClient.exchange(port, request).contains(expected))
        let metrics = try await get("/metrics")
        #expect(metrics.contains(#"qwenimage_gateway_jobs_total{outcome="finished"} 1"#), "\(metrics)")
        #expect(metrics.contains("process_resident_memory_bytes"))
        #expect(
          metrics.contains(
            #"qwenimage_http_requests_total{endpoint="/v1/images/generations",method="POST",status="200"} 1"#))

        async let last = RawClient.exchange(port, request)
        try await wait("the job runs") { try await get("/v1/workers").contains(#""started_jobs":1"#) }
        gateway.terminate()
        #expect(try await last.contains(expected))
        try await wait("it is gone") {
          try await GatewayProgram.run(["--health", "--http-port=\(port)"]).status == .exited(1)
        }
      }
    }
    #expect(ended.status == .exited(0))
    // Every line of the log is a JSON object.
    for line in ended.output.split(separator: "\n") {
      #expect(try JSON(Array(line.utf8))["message"]?.text != nil, "\(line)")
    }
  }

  /// Also when the file does not look changed. A gateway without keys is not ended by it.
  @Test func aHangupReadsTheKeysAgain() async throws {
    let keys = AccessTests.Keys()
    _ = try keys.add("acme")
    for more in [["--http-api-keys-file", keys.path], []] {
      let arguments = ["--http-port=0", "--cluster-endpoints", ToyCluster.freshEndpoint] + more
      let ended = try await GatewayProgram.serving(arguments) { gateway, port in
        for round in 1...2 {
          gateway.signal(SIGHUP)
          let health = try await RawClient.exchange(
            port, "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
          #expect(health.hasPrefix("HTTP/1.1 200"))
          if more.isEmpty { continue }
          try await wait("the keys are read") {
            gateway.output.components(separatedBy: "the API keys were read").count == round + 1
          }
        }
      }
      #expect(ended.status == .exited(0))
    }
  }

  @Test func saysWhatIsWrongWithItsConfiguration() async throws {
    let wrong = try await GatewayProgram.run(["--check-config", "--http-port", "x", "--bogus"])
    #expect(wrong.status == .exited(78))
    #expect(wrong.output.contains("unknown flag --bogus") && wrong.output.contains("http.port must be an integer"))
    let right = try await GatewayProgram.run(["--check-config"])
    #expect(right.status == .exited(0))
    #expect(try await GatewayProgram.run(["--help"]).output.contains("--http-port, QWEN_IMAGE_HTTP_PORT, http.port"))
  }

  @Test func refusesToListenWithoutEncryptionBeyondThisMachine() async throws {
    let result = try await GatewayProgram.run(["--http-port=0", "--cluster-endpoints", "tcp://0.0.0.0:0"])
    #expect(result.status == .exited(1))
    let plain = try await GatewayProgram.run(["--http-port=0", "--cluster-endpoints", "tcp://0.0.0.0:45455"])
    #expect(plain.status == .exited(1))
    #expect(plain.output.contains("needs CURVE keys"), "\(plain.output)")
  }

  @Test(arguments: [
    ("192.0.2.1", "192.0.2.1:45457", "does not have"), ("nowhere.invalid", "nowhere.invalid:45457", "has no address"),
  ])
  func anAddressThatCannotBeServedIsNamed(host: String, address: String, reason: String) async throws {
    let result = try await GatewayProgram.run([
      "--http-host", host, "--http-port=45457", "--cluster-endpoints", ToyCluster.freshEndpoint,
    ])
    #expect(result.status == .exited(1))
    let last = try #require(result.output.split(separator: "\n").last)
    #expect(last.contains(address) && last.contains(reason), "\(result.output)")
  }

  @Test func aPortInUseIsAnError() async throws {
    let endpoint = ToyCluster.freshEndpoint
    _ = try await GatewayProgram.serving(["--http-port=0", "--cluster-endpoints", endpoint]) { _, port in
      let second = try await GatewayProgram.run(["--http-port=\(port)", "--cluster-endpoints", endpoint + "2"])
      #expect(second.status == .exited(1))
      let last = try #require(second.output.split(separator: "\n").last)
      #expect(
        last.contains("127.0.0.1:\(port)") && last.contains("in use") && !last.contains("bind("), "\(second.output)")
    }
  }
}
