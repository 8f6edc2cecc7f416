import Foundation
import Gateway
import NIOCore
import Testing
import Wire

/// The program as it is installed.
struct GatewayProgram {
  let process: Process
  let log: String

  static let path = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().appendingPathComponent("gateway")

  init(_ arguments: [String]) throws {
    log = NSTemporaryDirectory() + "gateway-\(UInt32.random(in: 0 ... .max)).log"
    try Data().write(to: URL(fileURLWithPath: log))
    process = Process()
    process.executableURL = Self.path
    process.arguments = arguments
    let handle = try #require(FileHandle(forWritingAtPath: log))
    process.standardError = handle
    process.standardOutput = handle
    try process.run()
  }

  var output: String { (try? String(contentsOfFile: log, encoding: .utf8)) ?? "" }

  /// The port, once it serves.
  func port() async throws -> Int {
    try await wait("the gateway serves") {
      #expect(process.isRunning, "\(output)")
      return output.contains("\"serving\"")
    }
    let line = try #require(output.split(separator: "\n").first { $0.contains("\"serving\"") })
    let address = try #require(try StrictJSON.parse(Array(line.utf8))["http"]?.text)
    return try #require(Int(address.split(separator: ":").last ?? ""))
  }

  func status() async throws -> Int32 {
    try await wait("the gateway ends") { !process.isRunning }
    return process.terminationStatus
  }

  static func run(_ arguments: [String]) async throws -> (status: Int32, output: String) {
    let program = try GatewayProgram(arguments)
    return (try await program.status(), program.output)
  }
}

@Suite("The executable", .timeLimit(.minutes(2)))
struct ExecutableTests {
  @Test func servesUntilItIsTerminatedAndLetsRunningJobsEnd() async throws {
    let endpoint = "ipc://\(NSTemporaryDirectory())gateway-\(UInt32.random(in: 0 ... .max)).sock"
    let gateway = try GatewayProgram(["--http-port=0", "--cluster-endpoints", endpoint, "--shutdown-grace-seconds", "20"])
    defer { gateway.process.terminate() }
    let port = try await gateway.port()
    try await StageRuntimeClusterTests.withWorkers(endpoint, stepSeconds: 0.02) { _ in
      let get = { (path: String) in try await RawClient.exchange(port, "GET \(path) HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n") }
      try await wait("it is ready") { try await get("/readyz").hasPrefix("HTTP/1.1 200") }
      #expect(try await GatewayProgram.run(["--health", "--http-port=\(port)"]).status == 0)
      let picture = Data(Toy.expected(prompt: "p", seed: 1, steps: 30)).base64EncodedString()
      let request = RawClient.post(#"{"prompt":"p","seed":1,"steps":30}"#)
      #expect(try await RawClient.exchange(port, request).contains(picture))
      let metrics = try await get("/metrics")
      #expect(metrics.contains(#"qwenimage_gateway_jobs_total{outcome="finished"} 1"#), "\(metrics)")
      #expect(metrics.contains("process_resident_memory_bytes"))
      #expect(metrics.contains(#"qwenimage_http_requests_total{endpoint="/v1/images/generations",method="POST",status="200"} 1"#))

      async let last = RawClient.exchange(port, request)
      try await wait("the job runs") { try await get("/v1/workers").contains(#""started_jobs":1"#) }
      gateway.process.terminate()
      #expect(try await last.contains(picture))
      #expect(try await gateway.status() == 0)
      #expect(try await GatewayProgram.run(["--health", "--http-port=\(port)"]).status == 1)
    }
    // Every line of the log is a JSON object.
    for line in gateway.output.split(separator: "\n") {
      #expect(try StrictJSON.parse(Array(line.utf8))["message"]?.text != nil, "\(line)")
    }
  }

  @Test func saysWhatIsWrongWithItsConfiguration() async throws {
    let wrong = try await GatewayProgram.run(["--check-config", "--http-port", "x", "--bogus"])
    #expect(wrong.status == 78)
    #expect(wrong.output.contains("unknown flag --bogus") && wrong.output.contains("http.port must be an integer"))
    let right = try await GatewayProgram.run(["--check-config"])
    #expect(right.status == 0)
    #expect(try await GatewayProgram.run(["--help"]).output.contains("--http-port, QWEN_IMAGE_HTTP_PORT, http.port"))
  }

  @Test func refusesToListenWithoutEncryptionBeyondThisMachine() async throws {
    let result = try await GatewayProgram.run(["--http-port=0", "--cluster-endpoints", "tcp://0.0.0.0:0"])
    #expect(result.status == 1)
    let plain = try await GatewayProgram.run(["--http-port=0", "--cluster-endpoints", "tcp://0.0.0.0:45455"])
    #expect(plain.status == 1)
    #expect(plain.output.contains("needs CURVE keys"), "\(plain.output)")
  }

  @Test func aPortInUseIsAnError() async throws {
    let endpoint = "ipc://\(NSTemporaryDirectory())gateway-\(UInt32.random(in: 0 ... .max)).sock"
    let first = try GatewayProgram(["--http-port=0", "--cluster-endpoints", endpoint])
    defer { first.process.terminate() }
    let port = try await first.port()
    let second = try await GatewayProgram.run(["--http-port=\(port)", "--cluster-endpoints", endpoint + "2"])
    #expect(second.status == 1)
    #expect(second.output.lowercased().contains("in use"), "\(second.output)")
  }
}
