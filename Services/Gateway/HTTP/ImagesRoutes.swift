import HTTPTypes
import Hummingbird
import NIOCore
import Observability
import Scheduling
import Wire

/// `POST /v1/images/generations`.
struct ImagesRoutes: Sendable {
  let dispatcher: Dispatcher
  let limits: HTTPLimits

  func add(to router: Router<GatewayContext>) {
    router.serve("/v1/images/generations", [(.post, generate)])
  }

  @Sendable private func generate(_ request: Request, _ context: GatewayContext) async throws -> Response {
    guard await dispatcher.isOpen else { throw APIError(.shuttingDown, "the gateway is shutting down", retryAfterSeconds: 10) }
    var request = request
    let imageRequest = try ImageRequest(body: try await request.takeJSONBody(limits), maxPromptBytes: WireLimits().maxTextBytes)
    let card = try await dispatcher.card(named: imageRequest.model)
    // Below 2^53, so that every client can read it back exactly.
    let jobs = try ImageJob.jobs(for: imageRequest, card: card, randomSeed: UInt64.random(in: 0..<1 << 52))
    let handles: [JobHandle]
    do throws(Failure) {
      handles = try await dispatcher.submit(jobs, traceparent: request.traceparent)
    } catch {
      throw APIError(error)
    }
    context.logger.info("jobs admitted", metadata: ["jobs": "\(handles.map(\.id.text).joined(separator: " "))"])
    return imageRequest.isStreamed ? stream(handles, request) : try await collect(handles, request)
  }

  private func collect(_ handles: [JobHandle], _ request: Request) async throws -> Response {
    var response: Response
    do {
      response = try .json(ImagesResponse(try await pictures(handles, request)))
    } catch let error as APIError {
      response = try .error(error)
    }
    // Noticing that the client leaves uses up the connection.
    response.headers[.connection] = "close"
    return response
  }

  /// Waits for all pictures. A client that leaves, or a picture that fails, ends the others: nobody listens to them any more.
  private func pictures(_ handles: [JobHandle], _ request: Request) async throws -> [(job: ImageJob, picture: Picture)] {
    let pictures = try await request.body.consumeWithCancellationOnInboundClose { _ in
      try await withThrowingTaskGroup(of: (Int, Picture).self) { group in
        for (index, handle) in handles.enumerated() {
          group.addTask {
            do throws(Failure) { return (index, try await handle.picture()) } catch { throw APIError(error) }
          }
        }
        var pictures: [Int: Picture] = [:]
        for try await (index, picture) in group { pictures[index] = picture }
        return pictures
      }
    }
    return handles.indices.compactMap { index in pictures[index].map { (handles[index].job, $0) } }
  }

  private func stream(_ handles: [JobHandle], _ request: Request) -> Response {
    let body = request.body
    let keepAlive = limits.keepAliveInterval
    return Response(
      status: .ok, headers: ServerSentEvent.headers,
      body: ResponseBody { writer in
        try await body.consumeWithCancellationOnInboundClose { _ in
          try await EventStream(handles: handles, keepAliveInterval: keepAlive).write(to: &writer)
        }
        try await writer.finish(nil)
      })
  }
}

/// Writes what happens to the jobs of one request, until all have ended or one has failed.
private struct EventStream {
  enum Item {
    case update(Int, JobUpdate)
    case silence
  }

  let handles: [JobHandle]
  let keepAliveInterval: Duration

  func write(to writer: inout any ResponseBodyWriter) async throws {
    let (items, continuation) = AsyncStream<Item>.makeStream()
    try await withThrowingTaskGroup(of: Void.self) { group in
      for (index, handle) in handles.enumerated() {
        group.addTask { for await update in handle.updates { continuation.yield(.update(index, update)) } }
      }
      group.addTask {
        while true {
          try await Task.sleep(for: keepAliveInterval)
          continuation.yield(.silence)
        }
      }
      defer { group.cancelAll() }
      try await write(items, to: &writer)
    }
  }

  private func write(_ items: AsyncStream<Item>, to writer: inout any ResponseBodyWriter) async throws {
    var states = handles.enumerated().map { ProgressEvent($1, index: $0, stage: "queued") }
    var open = handles.count
    for await item in items {
      switch item {
      case .silence: try await writer.write(ServerSentEvent.keepAlive)
      case .update(let index, .finished(let picture)):
        let event = CompletedEvent(handles[index], index: index, picture: picture)
        try await writer.write(ServerSentEvent.event(event.type, event))
        open -= 1
      case .update(_, .failed(let failure)):
        try await writer.write(ServerSentEvent.error(APIError(failure)))
        return
      case .update(let index, let update):
        guard states[index].apply(update) else { continue }
        try await writer.write(ServerSentEvent.event(states[index].type, states[index]))
      }
      if open == 0 { return }
    }
  }
}

extension Request {
  /// The trace that the jobs belong to: the client's, or a new one.
  fileprivate var traceparent: String {
    let client = headers[.traceparent].flatMap { TraceContext(traceparent: $0) }
    return (client?.child() ?? .random()).traceparent
  }
}
