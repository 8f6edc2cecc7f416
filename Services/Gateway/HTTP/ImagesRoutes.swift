import HTTPTypes
import Hummingbird
import NIOCore
import Scheduling

/// `POST /v1/images/generations`.
struct ImagesRoutes: Sendable {
  let submission: Submission

  func add(to router: Router<GatewayContext>) {
    router.serve("/v1/images/generations", [(.post, generate)])
  }

  @Sendable private func generate(_ request: Request, _ context: GatewayContext) async throws -> Response {
    var request = request
    let (ticket, isStreamed) = try await submission.accept(&request, context, isDetached: false, mayStream: true)
    var response = isStreamed ? stream(ticket, request) : try await collect(ticket, request)
    response.headers[.location] = context.links.path(Links.job(ticket.id))
    return response
  }

  private func collect(_ ticket: JobTicket, _ request: Request) async throws -> Response {
    var response: Response
    do {
      response = try .json(ImagesResponse(ticket.images, try await pictures(ticket, request)))
    } catch let error as APIError {
      response = try .error(error)
    }
    // Noticing that the client leaves uses up the connection.
    response.headers[.connection] = "close"
    return response
  }

  /// Waits for all pictures. A client that leaves, or a picture that fails, ends the others, unless the job is to live on.
  private func pictures(_ ticket: JobTicket, _ request: Request) async throws -> [Picture] {
    try await request.body.consumeWithCancellationOnInboundClose { _ in
      do throws(Failure) { return try await ticket.pictures() } catch { throw APIError(error) }
    }
  }

  private func stream(_ ticket: JobTicket, _ request: Request) -> Response {
    let body = request.body
    let keepAlive = submission.limits.keepAliveInterval
    return Response(
      status: .ok, headers: ServerSentEvent.headers,
      body: ResponseBody { writer in
        try await body.consumeWithCancellationOnInboundClose { _ in
          try await ImageEvents(ticket: ticket).write(to: &writer, keepAliveInterval: keepAlive)
        }
        try await writer.finish(nil)
      })
  }
}

/// Tells what happens to the pictures of one request, until all have ended or one has failed.
private struct ImageEvents {
  let ticket: JobTicket

  func write(to writer: inout any ResponseBodyWriter, keepAliveInterval: Duration) async throws {
    var states = ticket.images.map { PictureState(steps: $0.steps) }
    var open = states.count
    let isOver = try await ServerSentEvent.write(ticket.events, to: &writer, keepAliveInterval: keepAliveInterval) { record in
      states[record.index].apply(record.update)
      switch record.update {
      case .finished(let picture):
        open -= 1
        let event = CompletedEvent(ticket, index: record.index, picture: picture)
        return (try ServerSentEvent.event(event.type, event), isLast: open == 0)
      case .failed(let failure): return (try ServerSentEvent.error(APIError(failure)), isLast: true)
      case .queued, .started, .progressed, .retrying:
        let event = ProgressEvent("image_generation.progress", job: ticket.id, index: record.index, states[record.index])
        return (try ServerSentEvent.event(event.type, event), isLast: false)
      }
    }
    guard !isOver, open > 0 else { return }
    let error = APIError(.shuttingDown, "the gateway is shutting down; job \(ticket.id) goes on when it is back", retryAfterSeconds: 10)
    try await writer.write(ServerSentEvent.error(error))
  }
}
