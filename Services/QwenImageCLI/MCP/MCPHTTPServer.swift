import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdCore
import Logging
import MCP
import NIOCore
import ServiceLifecycle
import StrictJSON

/// The protocol over Streamable HTTP, at `/mcp`: sessions for revisions that begin with a handshake, and single
/// requests of those that do not.
struct MCPHTTPServer: Sendable {
  private static let maxConnections = 128
  private static let maxBodyBytes = 64 << 20
  /// A silent stream says this often that it is alive.
  private static let pingInterval = Duration.seconds(15)

  let server: MCPServer
  let address: MCPAddress
  private let sessions: MCPSessions

  init(server: MCPServer, address: MCPAddress) {
    self.server = server
    self.address = address
    sessions = MCPSessions(server)
  }

  /// Serves until a signal comes.
  func run() async throws {
    let router = Router()
    router.post("/mcp") { request, _ in try await post(request) }
    router.delete("/mcp") { request, _ in try await delete(request) }
    for method in [HTTPRequest.Method.get, .put, .patch, .head, .options] {
      router.on("/mcp", method: method) { request, _ -> Response in
        if let refusal = refusal(of: request) { return refusal }
        return Response(status: .methodNotAllowed, headers: [.allow: "POST, DELETE"])
      }
    }
    var logger = Logger(label: "mcp")
    logger.logLevel = .notice
    let (address, sessions) = (address, sessions)
    let application = Application(
      router: router, server: .http1(configuration: .init(idleTimeout: .seconds(120))),
      configuration: ApplicationConfiguration(
        address: .hostname(address.host, port: address.port), serverName: "qwen-image-mcp",
        availableConnectionsDelegate: MaximumAvailableConnections(Self.maxConnections, logger: logger)),
      onServerRunning: { channel in
        let port = channel.localAddress?.port ?? address.port
        let host = address.host.contains(":") ? "[\(address.host)]" : address.host
        Terminal.note("serving the Model Context Protocol at http://\(host):\(port)/mcp")
      }, logger: logger)
    // The last one is ended first: calls that run would keep the server.
    let services = ServiceGroup(
      configuration: .init(
        services: [.init(service: application), .init(service: MCPSessionsEnd(sessions: sessions))],
        gracefulShutdownSignals: [.sigterm, .sigint], logger: logger))
    try await services.run()
  }

  // MARK: Requests

  /// What a request is answered that may not be served; nil: it may.
  private func refusal(of request: Request) -> Response? {
    if let authority = request.head.authority, !address.admits(authority: authority) {
      return Self.error(.misdirectedRequest, "the request is for a host that is not this machine")
    }
    if let origin = request.headers[.origin], !MCPAddress.admits(origin: origin) {
      return Self.error(.forbidden, "web pages of \(origin.prefix(200)) may not use this server")
    }
    guard address.admits(authorization: request.headers[.authorization]) else {
      var response = Self.error(.unauthorized, "send the server's token: \"Authorization: Bearer TOKEN\"")
      response.headers[.wwwAuthenticate] = "Bearer"
      return response
    }
    return nil
  }

  private func post(_ request: Request) async throws -> Response {
    if let refusal = refusal(of: request) { return refusal }
    guard request.headers[.contentType]?.lowercased().hasPrefix("application/json") == true else {
      return Self.error(.unsupportedMediaType, "the content type must be application/json")
    }
    let accept = request.headers[.accept]?.lowercased() ?? "*/*"
    let acceptsEvents = accept.contains("text/event-stream") || accept.contains("*/*")
    guard acceptsEvents || accept.contains("application/json") else {
      return Self.error(.notAcceptable, "accept application/json and text/event-stream")
    }
    var request = request
    let body: ByteBuffer
    do { body = try await request.body.collect(upTo: Self.maxBodyBytes) } catch is NIOTooManyBytesError {
      var response = Self.error(.contentTooLarge, "the message has more than \(Self.maxBodyBytes) bytes")
      response.headers[.connection] = "close"
      return response
    }
    // What comes on the connection afterwards can still be watched.
    request.body = RequestBody(buffer: ByteBuffer())
    let value: JSON
    do { value = try JSON(Array(body.readableBytesView), maxDepth: 32, maxValues: 10_000) } catch {
      return Self.answer(RPCError(.parse, "the message is not JSON: \(error)").message(), status: .badRequest)
    }
    let exchange = MCPExchange(value: value, request: request, acceptsEvents: acceptsEvents)
    return exchange.isStateless ? await stateless(exchange) : await inSession(exchange)
  }

  private func delete(_ request: Request) async throws -> Response {
    if let refusal = refusal(of: request) { return refusal }
    guard let id = request.headers[.mcpSessionID], await sessions.end(id) else {
      return Self.error(.notFound, "there is no such session")
    }
    return Response(status: .noContent)
  }

  /// A request that needs no session: it has ended with its answer, or when its client goes.
  private func stateless(_ exchange: MCPExchange) async -> Response {
    if let mismatch = exchange.mismatch {
      return Self.answer(mismatch.message(for: exchange.id), status: .badRequest)
    }
    guard exchange.expectsAnswer else { return Response(status: .accepted) }
    guard let lease = await sessions.lease() else { return Self.busy() }
    return await respond(exchange, lease.session, endsWithConnection: true, lease)
  }

  private func inSession(_ exchange: MCPExchange) async -> Response {
    if exchange.isInitialize {
      guard let (id, session) = await sessions.begin() else { return Self.busy() }
      var response = await respond(exchange, session, endsWithConnection: false, nil)
      response.headers[.mcpSessionID] = id
      return response
    }
    guard let id = exchange.request.headers[.mcpSessionID] else {
      return Self.error(.badRequest, "the field Mcp-Session-Id is missing; initialize gives one")
    }
    guard let session = await sessions.session(id) else {
      return Self.error(.notFound, "the session is over; initialize begins another")
    }
    if let version = exchange.request.headers[.mcpProtocolVersion], !MCPServer.handshakeVersions.contains(version) {
      return Self.error(.badRequest, "the protocol revision \"\(version.prefix(40))\" is not spoken")
    }
    guard exchange.expectsAnswer else {
      await session.receive(exchange.value) { _ in }
      return Response(status: .accepted)
    }
    return await respond(exchange, session, endsWithConnection: false, nil)
  }

  // MARK: Answers

  private enum Frame {
    case message(JSON)
    case ping
  }

  /// Answers at once with JSON, and calls of tools with events where the client takes them.
  ///
  /// - Parameters:
  ///   - endsWithConnection: whether a call is cancelled when the client goes.
  ///   - lease: held until the call has ended.
  private func respond(
    _ exchange: MCPExchange, _ session: MCPSession, endsWithConnection: Bool, _ lease: MCPSessions.Lease?
  ) async -> Response {
    let (frames, continuation) = AsyncStream<Frame>.makeStream()
    let call = await session.receive(exchange.value) { continuation.yield(.message($0)) }
    guard let call, exchange.acceptsEvents else {
      await call?.value
      await sessions.end(lease)
      continuation.finish()
      var answer: JSON?
      for await case .message(let message) in frames where message["method"] == nil { answer = message }
      guard let answer else { return Response(status: .accepted) }
      return Self.answer(answer, status: Self.status(of: answer, isStateless: exchange.isStateless))
    }
    let pings = Task {
      while (try? await Task.sleep(for: Self.pingInterval)) != nil { continuation.yield(.ping) }
    }
    Task {
      await call.value
      await sessions.end(lease)
      pings.cancel()
      continuation.finish()
    }
    return Self.events(frames, exchange.request, cancelling: endsWithConnection ? call : nil)
  }

  /// A stream of events. What it is of has to be cancelled when the client goes, if it is given.
  private static func events(_ frames: AsyncStream<Frame>, _ request: Request, cancelling call: Task<Void, Never>?)
    -> Response
  {
    var headers: HTTPFields = [
      .contentType: "text/event-stream", .cacheControl: "no-cache, no-transform", .mcpBuffering: "no",
    ]
    let body = request.body
    let write: @Sendable (inout any ResponseBodyWriter) async throws -> Void = { writer in
      for await frame in frames {
        switch frame {
        case .ping: try await writer.write(ByteBuffer(string: ": ping\n\n"))
        case .message(let message):
          var buffer = ByteBuffer(string: "event: message\ndata: ")
          buffer.writeBytes(message.bytes)
          buffer.writeString("\n\n")
          try await writer.write(buffer)
        }
      }
    }
    guard let call else {
      return Response(
        status: .ok, headers: headers,
        body: ResponseBody { writer in
          try await write(&writer)
          try await writer.finish(nil)
        })
    }
    // Noticing that the client leaves uses up the connection.
    headers[.connection] = "close"
    return Response(
      status: .ok, headers: headers,
      body: ResponseBody { writer in
        try await body.consumeWithCancellationOnInboundClose { _ in
          try await withTaskCancellationHandler {
            try await write(&writer)
          } onCancel: {
            call.cancel()
          }
        }
        try await writer.finish(nil)
      })
  }

  private static func status(of message: JSON, isStateless: Bool) -> HTTPResponse.Status {
    guard isStateless, let code = message["error"]?["code"]?.integer.flatMap({ RPCError.Code(rawValue: $0) }) else {
      return .ok
    }
    switch code {
    case .methodNotFound: return .notFound
    case .parse, .invalidRequest, .invalidParams, .headerMismatch, .unsupportedVersion: return .badRequest
    case .internal, .busy: return .ok
    }
  }

  private static func answer(_ message: JSON, status: HTTPResponse.Status) -> Response {
    Response(
      status: status, headers: [.contentType: "application/json"],
      body: ResponseBody(byteBuffer: ByteBuffer(bytes: message.bytes)))
  }

  private static func error(_ status: HTTPResponse.Status, _ text: String) -> Response {
    answer(RPCError(.invalidRequest, text).message(), status: status)
  }

  private static func busy() -> Response {
    answer(RPCError(.busy, "the server has as many clients as it takes").message(), status: .serviceUnavailable)
  }
}

/// Ends what runs as soon as the server is to end.
private struct MCPSessionsEnd: Service {
  let sessions: MCPSessions

  func run() async throws {
    try await gracefulShutdown()
    await sessions.endAll()
  }
}

extension HTTPField.Name {
  static let mcpSessionID = Self("mcp-session-id")!
  static let mcpProtocolVersion = Self("mcp-protocol-version")!
  static let mcpMethod = Self("mcp-method")!
  static let mcpName = Self("mcp-name")!
  static let mcpBuffering = Self("x-accel-buffering")!
}
