import HTTPClient
import HTTPTypes
import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import ServiceLifecycle

/// A whole response.
public struct TestResponse: Sendable {
  /// 200 OK, …
  public let status: HTTPResponse.Status
  /// Its header fields.
  public let headers: HTTPFields
  /// All of its body.
  public let body: ByteBuffer
}

/// How an application is run for a test.
public enum TestingSetup: Sendable {
  /// Listening on a free port, with a client that talks to it; requests may run at the same time.
  case live
}

/// A client of an application that is being tested.
public protocol TestClientProtocol: Sendable {
  /// Where the application listens.
  var port: Int? { get }

  /// Sends a request and waits for the whole response.
  @discardableResult
  func execute(uri: String, method: HTTPRequest.Method, headers: HTTPFields, body: ByteBuffer?) async throws
    -> TestResponse
}

extension TestClientProtocol {
  /// Sends a request and waits for the whole response.
  @discardableResult
  public func execute(
    uri: String, method: HTTPRequest.Method, headers: HTTPFields = [:], body: ByteBuffer? = nil
  ) async throws -> TestResponse {
    try await execute(uri: uri, method: method, headers: headers, body: body)
  }
}

extension ApplicationProtocol {
  /// Runs the application, calls `body` with a client of it, and ends it.
  public func test<Value: Sendable>(
    _ setup: TestingSetup, _ body: @Sendable (any TestClientProtocol) async throws -> Value
  ) async throws -> Value {
    let (ports, continuation) = AsyncStream<Int>.makeStream()
    let application = RunningApplication(base: self, hasStarted: continuation)
    let services = ServiceGroup(configuration: .init(services: [application], logger: logger))
    return try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask {
        defer { continuation.finish() }
        try await services.run()
      }
      var iterator = ports.makeAsyncIterator()
      guard let port = await iterator.next() else {
        try await group.waitForAll()
        throw CancellationError()
      }
      let http = HTTPClient(userAgent: "test")
      let result: Result<Value, any Error>
      do { result = .success(try await body(LiveClient(http: http, listeningPort: port))) } catch {
        result = .failure(error)
      }
      http.shutDown()
      await services.triggerGracefulShutdown()
      try await group.waitForAll()
      return try result.get()
    }
  }
}

/// An application that says on which port it listens.
private struct RunningApplication<Base: ApplicationProtocol>: ApplicationProtocol, Service {
  let base: Base
  let hasStarted: AsyncStream<Int>.Continuation

  var responder: Base.Responder { get async throws { try await base.responder } }
  var server: HTTPServerBuilder { base.server }
  var eventLoopGroup: any EventLoopGroup { base.eventLoopGroup }
  var configuration: ApplicationConfiguration { base.configuration.with(address: .hostname("127.0.0.1", port: 0)) }
  var logger: Logger { base.logger }
  var services: [any Service] { base.services }
  var processesRunBeforeServerStart: [@Sendable () async throws -> Void] { base.processesRunBeforeServerStart }

  @Sendable func onServerRunning(_ channel: any Channel) async {
    await base.onServerRunning(channel)
    if let port = channel.localAddress?.port { hasStarted.yield(port) }
  }
}

private struct LiveClient: TestClientProtocol {
  private static let maxBodyBytes = 256 << 20
  private static let timeout = Duration.seconds(120)

  let http: HTTPClient
  let listeningPort: Int

  var port: Int? { listeningPort }

  func execute(uri: String, method: HTTPRequest.Method, headers: HTTPFields, body: ByteBuffer?) async throws
    -> TestResponse
  {
    var request = HTTPClient.Request(
      "http://127.0.0.1:\(listeningPort)\(uri)", method: method.rawValue, timeout: Self.timeout)
    request.headers = headers.map { ($0.name.rawName, $0.value) }
    request.body = body.map { Array($0.readableBytesView) }
    let response = try await http.execute(request)
    var fields = HTTPFields()
    for (name, value) in response.headers {
      if let name = HTTPField.Name(name) { fields.append(HTTPField(name: name, value: value)) }
    }
    return TestResponse(
      status: .init(code: response.status), headers: fields,
      body: ByteBuffer(bytes: try await response.body.collect(upTo: Self.maxBodyBytes)))
  }
}
