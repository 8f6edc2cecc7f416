import Foundation
import HTTPClient
import Objects

/// `Tests/Objects/s3_server.py`: moto's server behind a proxy that checks signatures and makes faults. It ends with the
/// process that has started it.
final class S3Server: Sendable {
  private struct Hello: Decodable {
    var url: String
    var region: String
    var access_key_id: String
    var secret_access_key: String
    var session_token: String
  }

  /// One request that the proxy has seen.
  struct Request: Decodable, Hashable {
    var method: String
    var path: String
    var status: Int
    var fault: String?
    /// By the proxy's clock, in seconds.
    var at: Double
  }

  private static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

  /// A Python that has moto: what QWEN_IMAGE_TEST_S3_PYTHON names, or what Tests/Support/python.sh has made.
  static let python: String? = {
    let made = root.appending(path: ".build/python/Tests-Objects/bin/python").path
    let named = ProcessInfo.processInfo.environment["QWEN_IMAGE_TEST_S3_PYTHON"]
    return named ?? (FileManager.default.isExecutableFile(atPath: made) ? made : nil)
  }()

  /// One for all tests, which take turns.
  private static let shared = Result { try S3Server() }

  /// The server, without faults and with an empty log.
  static func ready() async throws -> S3Server {
    let server = try shared.get()
    try await server.fault([])
    _ = try await server.log()
    return server
  }

  private let input = Pipe()
  private let http = HTTPClient(userAgent: "test", environment: [:])
  private let hello: Hello

  private init() throws {
    let process = Process()
    let output = Pipe()
    process.executableURL = URL(filePath: Self.python ?? "")
    process.arguments = [Self.root.appending(path: "Tests/Objects/s3_server.py").path, "images"]
    process.standardInput = input
    process.standardOutput = output
    try process.run()
    var line = Data()
    while line.last != UInt8(ascii: "\n") {
      let bytes = output.fileHandleForReading.availableData
      if bytes.isEmpty { break }
      line += bytes
    }
    hello = try JSONDecoder().decode(Hello.self, from: line)
  }

  var url: String { hello.url }
  var secrets: [String] { [hello.secret_access_key, hello.session_token] }
  var environment: [String: String] {
    [
      "AWS_ACCESS_KEY_ID": hello.access_key_id, "AWS_SECRET_ACCESS_KEY": hello.secret_access_key,
      "AWS_SESSION_TOKEN": hello.session_token,
    ]
  }

  func store(
    _ prefix: String = "tests", environment: [String: String]? = nil,
    _ change: (inout S3Settings) -> Void = { _ in }
  ) throws -> S3ObjectStore {
    var settings = S3Settings()
    (settings.endpoint, settings.region, settings.bucket) = (hello.url, hello.region, "images")
    (settings.prefix, settings.isPathStyle) = (prefix, true)
    change(&settings)
    return try S3ObjectStore(
      settings, credentials: S3CredentialSource(file: nil, environment: environment ?? self.environment))
  }

  /// Replaces the faults; each is an object as the script describes.
  func fault(_ faults: [[String: Any]]) async throws {
    var request = HTTPClient.Request(hello.url + "/_faults", method: "PUT", timeout: .seconds(10))
    request.body = Array(try JSONSerialization.data(withJSONObject: faults))
    _ = try await http.execute(request).body.collect(upTo: 1000)
  }

  /// The requests since the last call.
  func log() async throws -> [Request] { try JSONDecoder().decode([Request].self, from: try await read("/_log")) }

  /// The digests of all objects below a prefix, by their keys.
  func objects(_ prefix: String) async throws -> [String: String] {
    try JSONDecoder().decode([String: String].self, from: try await read("/_objects?images/\(prefix)/"))
  }

  private func read(_ path: String) async throws -> Data {
    let response = try await http.execute(.init(hello.url + path, timeout: .seconds(30)))
    return Data(try await response.body.collect(upTo: 64 << 20))
  }
}

/// Runs what blocks on a thread of its own, and not on one of the tasks'.
func onThread<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
  try await withCheckedThrowingContinuation { continuation in
    Thread { continuation.resume(with: Swift.Result { try body() }) }.start()
  }
}
