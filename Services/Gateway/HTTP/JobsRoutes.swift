import ClusterCore
import Foundation
import GatewayAPI
import GatewayDispatch
import HTTPTypes
import Hummingbird
import ImageCodec
import NIOCore
import Scheduling

/// `/v1/jobs`: images that are submitted now and fetched later, with the same API key, also after a restart.
struct JobsRoutes: Sendable {
  let dispatcher: Dispatcher
  let submission: Submission

  func add(to router: Router<GatewayContext>) {
    router.serve("/v1/jobs", [(.post, submit), (.get, list)])
    router.serve("/v1/jobs/:id", [(.get, show), (.delete, cancel)])
    router.serve("/v1/jobs/:id/events", [(.get, events)])
    router.serve("/v1/jobs/:id/preview", [(.get, preview)])
    router.serve(RouterPath(ResultAddress.route), [(.get, result)])
  }

  // MARK: Jobs

  @Sendable private func submit(_ request: Request, _ context: GatewayContext) async throws -> Response {
    try request.checkQuery(["wait"])
    let poll = try LongPoll(request)
    var request = request
    let ticket = try await submission.accept(&request, .generation, context, isDetached: true, mayStream: false).ticket
    await poll(for: ticket.id, dispatcher, context)
    let job = try await body(ticket.id, context)
    var response = try Response.json(job, status: job.status.isTerminal && poll.seconds > 0 ? .ok : .accepted)
    poll.describe(&response)
    // Until here the ticket is one that waits: a job that is not detached ends with it.
    response.describe(ticket, context.links)
    return response
  }

  @Sendable private func show(_ request: Request, _ context: GatewayContext) async throws -> Response {
    try request.checkQuery(["wait"])
    let poll = try LongPoll(request)
    await poll(for: context.jobID, dispatcher, context)
    var response = try Response.json(try await body(context.jobID, context))
    poll.describe(&response)
    return response
  }

  @Sendable private func list(_ request: Request, _ context: GatewayContext) async throws -> Response {
    let known = await dispatcher.catalog.modelIDs
    let filter = try JobFilter(request) { submission.aliases.model(named: $0, known: known) }
    let page = try await APIError.wrap { () async throws(Status) in
      try await dispatcher.jobs(of: context.caller.tenant, filter.query) {
        filter.statuses.contains(JobStatus($0.images))
      }
    }
    guard let page else {
      throw APIError(.notFound, "there is no job \"\(filter.query.after?.job.prefix(80) ?? "")\"", param: "after")
    }
    let next = page.next.map { JobFilter.text(of: $0) }
    return try .json(JobList(data: page.jobs.map { JobBody($0, context.links) }, hasMore: next != nil, next: next))
  }

  @Sendable private func cancel(_ request: Request, _ context: GatewayContext) async throws -> Response {
    try request.checkQuery([])
    let id = try await snapshot(context.jobID, context).id
    try await APIError.wrap { () async throws(Status) in
      try await dispatcher.cancel(
        id, tenant: context.caller.tenant, reason: Status(.cancelled, "the job was cancelled by its owner"))
    }
    return try .json(try await body(id, context))
  }

  /// A job with its webhooks.
  private func body(_ id: String, _ context: GatewayContext) async throws -> JobBody {
    var body = JobBody(try await snapshot(id, context), context.links)
    let webhooks = try await APIError.wrap { () async throws(Status) in try await dispatcher.webhooks(of: id) }
    if !webhooks.isEmpty { body.webhooks = webhooks.map { JobBody.Webhook($0.webhook, $0.deliveries) } }
    return body
  }

  private func snapshot(_ id: String, _ context: GatewayContext) async throws -> JobSnapshot {
    let snapshot = try await APIError.wrap { () async throws(Status) in
      try await dispatcher.snapshot(of: id, tenant: context.caller.tenant)
    }
    guard let snapshot else { throw APIError(.notFound, "there is no job \"\(id.prefix(80))\"") }
    return snapshot
  }

  // MARK: Events

  @Sendable private func events(_ request: Request, _ context: GatewayContext) async throws -> Response {
    try request.checkQuery(["previews"])
    let showsPreviews = try request.queryBool("previews") ?? false
    let id = context.jobID
    let snapshot = try await snapshot(id, context)
    let last = request.headers[.lastEventID]
    // By the standard of event streams: do not come again.
    if last == JobEvents.lastID { return Response(status: .noContent) }
    let records = try await APIError.wrap { () async throws(Status) in
      try await dispatcher.events(of: id, tenant: context.caller.tenant, after: last)
    }
    guard let records else { throw APIError(.notFound, "there is no job \"\(id.prefix(80))\"") }
    let body = request.body
    let keepAlive = submission.limits.keepAliveInterval
    return Response(
      status: .ok, headers: ServerSentEvent.headers,
      body: ResponseBody { writer in
        try await body.consumeWithCancellationOnInboundClose { _ in
          try await JobEvents(
            job: snapshot, records: records, links: context.links, showsPreviews: showsPreviews
          ).write(to: &writer, keepAliveInterval: keepAlive)
        }
        try await writer.finish(nil)
      })
  }

  // MARK: Previews

  @Sendable private func preview(_ request: Request, _ context: GatewayContext) async throws -> Response {
    try request.checkQuery(["index"])
    let job = try await snapshot(context.jobID, context)
    let index = try request.queryInteger("index", in: 0...job.images.count - 1) ?? 0
    guard let preview = await dispatcher.preview(of: job.id, index: index, tenant: context.caller.tenant) else {
      throw APIError(.notFound, "there is no preview of image \(index) of job \(job.id): it is not being denoised")
    }
    let file = try await preview.file(as: .preview, of: job.request.images[index].size)
    return Response(
      status: .ok, headers: [.contentType: ImageEncoding.preview.format.mediaType, .cacheControl: "no-store"],
      body: ResponseBody(byteBuffer: ByteBuffer(bytes: file)))
  }

  // MARK: Results

  @Sendable private func result(_ request: Request, _ context: GatewayContext) async throws -> Response {
    try request.checkQuery(ResultAddress.parameters)
    let job = try await snapshot(context.jobID, context)
    let index = try request.queryInteger("index", in: 0...job.images.count - 1) ?? 0
    let fileCount = job.request.images[index].fileCount
    let mediaType = job.request.images[index].encoding.format.mediaType
    let layer = try request.queryInteger("layer", in: 0...fileCount - 1) ?? 0
    // Many clients list JSON first in what they accept of everything. The image is what the address is for: JSON is for
    // those who accept no image.
    let accepted = AcceptedMedia(request.headers[.accept])
    // A signed address is that of one image.
    let isSigned = request.uri.queryParameters["signature"] != nil
    var response: Response
    if !isSigned, accepted.quality(of: mediaType) == 0, accepted.quality(of: "application/json") > 0 {
      response = try await allResults(of: job)
    } else {
      let file = try await result(of: job, index: index).file(layer, of: fileCount)
      response = Self.response(file, mediaType)
    }
    response.headers[.vary] = "accept"
    return response
  }

  private static func response(_ image: EncodedImage, _ mediaType: String) -> Response {
    Response(
      status: .ok, headers: [.contentType: mediaType, .cacheControl: "private, max-age=3600, immutable"],
      body: ResponseBody(byteBuffer: image.bytes.withUnsafeBytes { ByteBuffer(bytes: $0) }))
  }

  /// All images in the shape of `/v1/images/generations`.
  private func allResults(of job: JobSnapshot) async throws -> Response {
    var results: [EncodedImage] = []
    for index in job.images.indices { results.append(try await result(of: job, index: index)) }
    return try .json(ImagesResponse(job.request.images, results, createdMs: job.endedAtMs))
  }

  private func result(of job: JobSnapshot, index: Int) async throws -> EncodedImage {
    switch job.images[index].outcome {
    case .failed(let failure): throw APIError(failure)
    case .open:
      let seconds = Int((job.images[index].secondsLeft ?? 5).rounded(.up))
      throw APIError(
        .notFinished, "image \(index) of job \(job.id) is not done", retryAfterSeconds: min(max(seconds, 1), 60))
    case .finished(let promptTokens):
      let stored = try await APIError.wrap { () async throws(Status) in
        try await dispatcher.result(of: job.id, index: index)
      }
      guard var result = stored else { throw APIError(.notFound, "the result of job \(job.id) is not kept any more") }
      result.promptTokens = promptTokens
      return result
    }
  }
}

/// Tells what happens to a job.
private struct JobEvents {
  /// The id of the event after which nothing follows.
  static let lastID = "end"

  let job: JobSnapshot
  let records: AsyncStream<JobEventRecord>
  let links: Links
  let showsPreviews: Bool

  func write(to writer: inout any ResponseBodyWriter, keepAliveInterval: Duration) async throws {
    var states = job.images
    var ended: [Int: JobStatus] = [:]
    var shownSteps = job.images.map { _ in 0 }
    let id = job.id
    try await ServerSentEvent.write(records, to: &writer, keepAliveInterval: keepAliveInterval) { record in
      states[record.index].apply(record.update, atMs: record.atMs)
      if case .previewed(let newest) = record.update {
        // A slow client finds one preview in place of several.
        guard showsPreviews, let preview = newest.preview, preview.step > shownSteps[record.index] else {
          return (nil, isLast: false)
        }
        shownSteps[record.index] = preview.step
        let event = try await JobPreviewEvent(job: id, index: record.index, preview, job.request.images[record.index])
        return (try ServerSentEvent.event(event.type, id: record.id, event), isLast: false)
      }
      if record.update.isTerminal { ended[record.index] = JobStatus(states[record.index]) }
      let event = JobProgressEvent(
        job: id, index: record.index, job.request.images[record.index], states[record.index], links)
      return (try ServerSentEvent.event(event.type, id: record.id, event), isLast: ended.count == states.count)
    }
    // Images that had ended before the first event are not reported again; without an end for each, the gateway is
    // shutting down.
    guard states.allSatisfy({ JobStatus($0).isTerminal }) else { return }
    let end = JobEndedEvent(jobId: id, status: JobStatus(states))
    try await writer.write(ServerSentEvent.event(end.type, id: Self.lastID, end))
  }
}

extension GatewayContext {
  /// The `:id` of the path.
  fileprivate var jobID: String { parameters.get("id") ?? "" }
}

extension Request {
  /// Refuses parameters that mean nothing here, likely misspelt ones.
  func checkQuery(_ known: Set<String>) throws(APIError) {
    for (name, _) in uri.queryParameters where !known.contains(String(name)) {
      let list = known.isEmpty ? "there are none" : "known are \(known.sorted().joined(separator: ", "))"
      throw APIError(
        .unknownField, "unknown query parameter \"\(name.prefix(80))\"; \(list)", param: String(name.prefix(80)))
    }
  }

  func queryBool(_ name: String) throws(APIError) -> Bool? {
    guard let text = uri.queryParameters[name[...]] else { return nil }
    guard let value = Bool(String(text)) else {
      throw APIError(.invalidValue, "\(name) is \"\(text.prefix(40))\", but must be true or false", param: name)
    }
    return value
  }

  func queryInteger(_ name: String, in range: ClosedRange<Int>) throws(APIError) -> Int? {
    guard let text = uri.queryParameters[name[...]] else { return nil }
    guard text.utf8.count < 20, let value = Int(text), range.contains(value) else {
      throw APIError(
        .invalidValue, "\(name) is \"\(text.prefix(40))\", but must be from \(range.lowerBound) to \(range.upperBound)",
        param: name)
    }
    return value
  }
}

extension HTTPField.Name {
  static let lastEventID = Self("last-event-id")!
}
