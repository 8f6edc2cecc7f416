import ClusterCore
import GatewayAPI
import GatewayDispatch
import GatewayPipelines
import HTTPTypes
import Hummingbird
import NIOCore
import Scheduling

/// `POST /v1/images/generations`, `/edits` and `/variations`.
struct ImagesRoutes: Sendable {
  let submission: Submission

  func add(to router: Router<GatewayContext>) {
    router.serve("/v1/images/generations", [(.post, { try await serve(.generation, $0, $1) })])
    router.serve("/v1/images/edits", [(.post, { try await serve(.edit, $0, $1) })])
    router.serve("/v1/images/variations", [(.post, { try await serve(.variation, $0, $1) })])
  }

  private func serve(
    _ kind: GenerationRequest.Kind, _ request: Request, _ context: GatewayContext
  ) async throws -> Response {
    var request = request
    let accepted = try await submission.accept(&request, kind, context, isDetached: false, mayStream: true)
    let ticket = accepted.ticket
    // Clients fetch them later, and by way of others: whole addresses, signed if need be.
    let urls = ticket.images.indices.map { index in
      context.links.url(ResultAddress(job: ticket.id, index: "\(index)").path(signedBy: context.caller))
    }
    let resultURLs = accepted.resultFormat == .url ? urls : nil
    let events = ImageEvents(
      ticket: ticket, urls: resultURLs, prefix: kind.eventPrefix, partialImageCount: accepted.partialImageCount)
    var response = accepted.isStreamed ? stream(events, request) : try await collect(ticket, resultURLs, request)
    response.describe(ticket, context.links)
    return response
  }

  private func collect(_ ticket: JobTicket, _ urls: [String]?, _ request: Request) async throws -> Response {
    var response: Response
    do {
      let results = try await results(ticket, request)
      response = try .json(ImagesResponse(ticket.images, results, urls: urls))
    } catch let error as APIError {
      response = try .error(error)
    }
    // Noticing that the client leaves uses up the connection.
    response.headers[.connection] = "close"
    return response
  }

  /// Waits for all images. A client that leaves, or an image that fails, ends the others, unless the job is detached.
  private func results(_ ticket: JobTicket, _ request: Request) async throws -> [EncodedImage] {
    try await request.body.consumeWithCancellationOnInboundClose { _ in
      do throws(Status) { return try await ticket.results() } catch { throw APIError(error) }
    }
  }

  private func stream(_ events: ImageEvents, _ request: Request) -> Response {
    let body = request.body
    let keepAlive = submission.limits.keepAliveInterval
    return Response(
      status: .ok, headers: ServerSentEvent.headers,
      body: ResponseBody { writer in
        try await body.consumeWithCancellationOnInboundClose { _ in
          try await events.write(to: &writer, keepAliveInterval: keepAlive)
        }
        try await writer.finish(nil)
      })
  }
}

/// Streams what happens to the images of one request, until all have ended or one has failed.
private struct ImageEvents {
  let ticket: JobTicket
  /// Where the images are, if that is what the client asks for instead of the images.
  let urls: [String]?
  /// What the names of the events begin with.
  let prefix: String
  /// Previews to show of each image, at most.
  let partialImageCount: Int

  func write(to writer: inout any ResponseBodyWriter, keepAliveInterval: Duration) async throws {
    var states = ticket.images.map { ImageProgress(steps: $0.stepCount) }
    var open = states.count
    var partial = states.map { _ in (count: 0, lastStep: 0) }
    let isOver = try await ServerSentEvent.write(ticket.events, to: &writer, keepAliveInterval: keepAliveInterval) {
      record in
      states[record.index].apply(record.update)
      switch record.update {
      case .finished(let result):
        open -= 1
        let events = try ticket.images[record.index].files(at: urls?[record.index]).map { layer, url in
          let event = try CompletedEvent(
            "\(prefix).completed", ticket, index: record.index, layer: layer, result: result, url: url)
          return try ServerSentEvent.event(event.type, event)
        }
        return (ServerSentEvent.joined(events), isLast: open == 0)
      case .failed(let failure): return (try ServerSentEvent.error(APIError(failure)), isLast: true)
      case .previewed(let newest):
        let (number, lastStep) = partial[record.index]
        // A slow client finds one preview in place of several.
        guard let preview = newest.preview, preview.step > lastStep,
          isDue(number, preview, of: states[record.index].steps)
        else { return (nil, isLast: false) }
        partial[record.index] = (number + 1, preview.step)
        let event = try await PartialImageEvent(
          "\(prefix).partial_image", ticket, index: record.index, number: number, preview)
        return (try ServerSentEvent.event(event.type, event), isLast: false)
      case .queued, .started, .progressed, .retrying:
        let event = ProgressEvent("\(prefix).progress", job: ticket.id, index: record.index, states[record.index])
        return (try ServerSentEvent.event(event.type, event), isLast: false)
      }
    }
    guard !isOver, open > 0 else { return }
    let error = APIError(
      .shuttingDown, "the gateway is shutting down; job \(ticket.id) resumes after its restart", retryAfterSeconds: 10)
    try await writer.write(ServerSentEvent.error(error))
  }

  /// Whether preview number `number` of an image, from 0, is shown now: they are spread evenly over the steps.
  private func isDue(_ number: Int, _ preview: Preview, of steps: Int) -> Bool {
    number < partialImageCount && preview.step * (partialImageCount + 1) >= (number + 1) * steps
  }
}
