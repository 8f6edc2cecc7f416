import ClusterCore
import Foundation
import GatewayAPI
import GatewayDispatch
import GatewayPipelines
import HTTPTypes
import Hashing
import Hummingbird
import Journal
import Observability
import Scheduling
import StrictJSON
import Tracing
import Wire

/// Makes a job of an HTTP request, for both `/v1/images/generations` and `/v1/jobs`.
struct Submission: Sendable {
  let dispatcher: Dispatcher
  let limits: HTTPLimits
  let aliases: ModelAliases
  let webhooks: WebhookRules
  /// Shared by all requests.
  let bodies: BodyMemory

  init(dispatcher: Dispatcher, limits: HTTPLimits, aliases: ModelAliases, webhooks: WebhookRules) {
    self.dispatcher = dispatcher
    self.limits = limits
    self.aliases = aliases
    self.webhooks = webhooks
    bodies = BodyMemory(limit: max(limits.maxBodiesBytes, limits.maxBodyBytes))
  }

  /// A request that has become a job, or has found its job.
  struct Accepted: Sendable {
    var ticket: JobTicket
    /// Whether the client wants events.
    var isStreamed: Bool
    var resultFormat: GenerationRequest.ResultFormat
    /// Previews that a stream shows of each image, at most.
    var partialImageCount: Int
  }

  /// Reads the request, and submits it.
  ///
  /// - Parameters:
  ///   - request: its body is taken.
  ///   - kind: what the route is for.
  ///   - isDetached: whether the job keeps running when no client waits for it, unless the request says.
  ///   - mayStream: whether the answer may be a stream of events.
  func accept(
    _ request: inout Request, _ kind: GenerationRequest.Kind, _ context: GatewayContext, isDetached: Bool,
    mayStream: Bool
  ) async throws -> Accepted {
    try await accept(&request, context, isDetached: isDetached, mayStream: mayStream) { body in
      try body.request(kind, pipelines: dispatcher.pipelines, intake: limits.images)
    }
  }

  /// The same for a body that `read` makes a request of.
  func accept(
    _ request: inout Request, _ context: GatewayContext, isDetached: Bool, mayStream: Bool,
    reading read: (RequestContent) async throws -> GenerationRequest
  ) async throws -> Accepted {
    guard await dispatcher.isOpen else {
      throw APIError(.shuttingDown, "the gateway is shutting down", retryAfterSeconds: 10)
    }
    let text = try request.idempotencyKey()
    let detachment = try request.detachment()
    let memory = bodies.share()
    defer { memory.release() }
    let body = try await request.takeBody(limits, memory, context)
    let imageRequest = try await read(body)
    guard mayStream || !imageRequest.isStreamed else { throw Self.noStream }
    var job = try await job(of: imageRequest, context)
    job.traceparent = request.traceparent
    job.key = try text.map { IdempotencyKey(text: $0, digest: try body.digest()) }
    // Who sends a key may come back with it.
    job.isDetached = detachment ?? (isDetached || text != nil)
    let ticket: JobTicket
    do throws(Status) {
      ticket = try await DispatcherMetrics.counting(images: job.images.count) { [job] () async throws(Status) in
        try await dispatcher.submit(job)
      }
    } catch { throw APIError(error) }
    context.logger.info(ticket.isNew ? "job accepted" : "job known already", metadata: ["job": "\(ticket.id)"])
    return Accepted(
      ticket: ticket, isStreamed: imageRequest.isStreamed, resultFormat: imageRequest.resultFormat,
      partialImageCount: imageRequest.partialImageCount)
  }

  private static let noStream = APIError(
    .unsupportedValue, "stream is true, but jobs have their events at /v1/jobs/{id}/events", param: "stream")

  /// What is submitted for a request, but for its key.
  private func job(of imageRequest: GenerationRequest, _ context: GatewayContext) async throws -> JobRequest {
    let card = try await card(named: imageRequest.model)
    let imageRequest = try await dispatcher.resolvingAdapters(of: imageRequest, for: card.model)
    let pending = await dispatcher.pendingPipelines(of: card)
    // Below 2^53, so that every client can read it back exactly.
    let randomSeed = UInt64.random(in: 0..<1 << 52)
    let makeImages = { @Sendable [dispatcher, limits] () throws(APIError) in
      try ImageSpec.images(
        of: imageRequest, card: card, pending: pending, pipelines: dispatcher.pipelines, intake: limits.images,
        randomSeed: randomSeed)
    }
    let (images, inputs) =
      imageRequest.uploads.isEmpty ? try makeImages() : try await Self.decoding(makeImages)
    try context.caller.check(images)
    var job = JobRequest(images)
    job.enhancement = try enhancement(of: imageRequest, images[0])
    var known: Set<String> = []
    job.inputs = inputs.filter { known.insert($0.reference.digest).inserted }
    job.tenant = context.caller.tenant
    job.priority = imageRequest.priority
    job.options = imageRequest.jobOptions
    job.webhooks = try webhooks(of: imageRequest.jobOptions, context)
    return job
  }

  private func enhancement(
    of request: GenerationRequest, _ image: ImageSpec
  ) throws(APIError) -> PromptEnhancement? {
    guard let enhancement = try PromptEnhancement(request, image) else { return nil }
    guard dispatcher.enhancesPrompts else {
      throw APIError(
        .unsupportedValue,
        "\(PromptEnhancement.field) is true, but this server has no chat endpoint that rewrites prompts; an operator "
          + "can name one: --enhancement-url", param: PromptEnhancement.field)
    }
    return enhancement
  }

  // MARK: Several jobs

  /// Reads a body of several jobs and calls `body` with them, while the memory of the body is counted.
  ///
  /// - Parameter request: its body is taken.
  func withBulk(
    _ request: inout Request, _ context: GatewayContext, maxCount: Int,
    _ body: ([BulkItem]) async throws -> Response
  ) async throws -> Response {
    let isLines = try request.holdsLines()
    return try await withItems(&request, context) { bytes, makeItem in
      let items =
        isLines
        ? try JSONItems.lines(of: bytes, maxCount: maxCount) : try JSONItems.elements(of: bytes, maxCount: maxCount)
      guard !items.isEmpty else { throw APIError(.invalidValue, "the body has no jobs") }
      return try await body(items.map(makeItem))
    }
  }

  /// Reads a body of JSON that jobs are made of, and calls `body` with it and what makes a job's bytes an item, while
  /// the memory of the body is counted.
  func withTemplate(
    _ request: inout Request, _ context: GatewayContext,
    _ body: ([UInt8], ([UInt8]) -> BulkItem) async throws -> Response
  ) async throws -> Response {
    try request.checkJSONType()
    return try await withItems(&request, context, body)
  }

  private func withItems(
    _ request: inout Request, _ context: GatewayContext,
    _ body: ([UInt8], ([UInt8]) -> BulkItem) async throws -> Response
  ) async throws -> Response {
    guard await dispatcher.isOpen else {
      throw APIError(.shuttingDown, "the gateway is shutting down", retryAfterSeconds: 10)
    }
    let isDetached = try request.detachment() ?? true
    let memory = bodies.share()
    defer { memory.release() }
    try request.checkLength(limits.maxBodyBytes)
    let bytes = try Request.utf8(try await request.takeBytes(limits, limits.maxBodyBytes, memory, context))
    let traceparent = request.traceparent
    return try await body(bytes) { BulkItem(bytes: $0, isDetached: isDetached, traceparent: traceparent) }
  }

  /// Reads one of several jobs, as far as no model is needed for that.
  func check(_ item: BulkItem) throws(APIError) {
    _ = try RequestContent.value(item.read().value)
      .request(.generation, pipelines: dispatcher.pipelines, intake: limits.images)
  }

  /// What is submitted for one of several jobs.
  func job(of item: BulkItem, _ context: GatewayContext) async throws -> JobRequest {
    let (value, key) = try item.read()
    let body = RequestContent.value(value)
    let imageRequest = try body.request(.generation, pipelines: dispatcher.pipelines, intake: limits.images)
    guard !imageRequest.isStreamed else { throw Self.noStream }
    var job = try await job(of: imageRequest, context)
    job.traceparent = item.traceparent
    job.key = try key.map { IdempotencyKey(text: $0, digest: try body.digest()) }
    job.isDetached = item.isDetached
    return job
  }

  /// The request's own webhook, and the one of its tenant.
  private func webhooks(of options: JobOptions, _ context: GatewayContext) throws(APIError) -> [StoredWebhook] {
    let limits = context.caller.limits
    var stored: [StoredWebhook] = []
    if let webhook = options.webhook {
      stored.append(try webhooks.stored(webhook, tenantSecret: limits.webhookSecret))
    }
    guard webhooks.isEnabled, let url = limits.webhook else { return stored }
    do throws(APIError) {
      stored.append(try webhooks.stored(WebhookRequest(url: url, secret: limits.webhookSecret)))
    } catch {
      // The operator's mistake is no reason to refuse jobs.
      context.logger.error(
        "the webhook of a tenant is not notified",
        metadata: ["tenant": "\(context.caller.tenant)", "reason": "\(error.message)"])
    }
    return stored
  }

  /// The card of the model that a request asks for by one of its names; nil: for the first model.
  func card(named name: String?) async throws(APIError) -> ModelCard {
    let known = await dispatcher.catalog.modelIDs
    let model = name.map { aliases.model(named: $0, known: known) }
    do throws(APIError) {
      return try await dispatcher.card(named: model)
    } catch {
      guard let name, error.code == .modelNotFound else { throw error }
      var error = error
      error.message +=
        model == name
        ? "; an operator can let a model have this name as well: --models-aliases"
        : " (the request says \"\(name.prefix(80))\", which stands for it)"
      throw error
    }
  }

  /// Decoding images takes up to a second: not on a thread that serves connections. Two at a time, since each takes
  /// memory for an image.
  static func decoding<Result: Sendable>(
    _ body: @escaping @Sendable () throws(APIError) -> Result
  ) async throws -> Result {
    try await withCheckedThrowingContinuation { continuation in
      decoders.addOperation { continuation.resume(with: Swift.Result { try body() }) }
    }
  }

  private static let decoders = {
    let queue = OperationQueue()
    queue.name = "image-decoder"
    queue.maxConcurrentOperationCount = 2
    return queue
  }()
}

/// One of several jobs, as it stands in the body.
struct BulkItem: Sendable {
  let bytes: [UInt8]
  let isDetached: Bool
  let traceparent: String

  /// The request, and its idempotency key, which is no part of it.
  func read() throws(APIError) -> (value: JSON, key: String?) {
    let value = try GenerationRequest.value(bytes)
    guard case .object(var members) = value, let member = members.removeValue(forKey: "idempotency_key"),
      member != .null
    else { return (value, nil) }
    guard let key = member.text else {
      throw APIError(.invalidType, "idempotency_key must be a string, not \(member.kind)", param: "idempotency_key")
    }
    return (.object(members), try Request.checkedKey(key, "idempotency_key"))
  }
}

extension Response {
  /// Says where the job is, and whether an earlier request with the same key has made it.
  mutating func describe(_ ticket: JobTicket, _ links: Links) {
    headers[.location] = links.path(Links.job(ticket.id))
    if !ticket.isNew { headers[.idempotentReplayed] = "true" }
  }
}

extension Request {
  /// The header that makes a repeated request the same request.
  fileprivate func idempotencyKey() throws(APIError) -> String? {
    guard let key = headers[.idempotencyKey] else { return nil }
    return try Self.checkedKey(key, "Idempotency-Key")
  }

  fileprivate static func checkedKey(_ key: String, _ name: String) throws(APIError) -> String {
    guard (1...255).contains(key.utf8.count), key.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
      throw APIError(
        .invalidValue, "\(name) has \(key.utf8.count) bytes, but must be 1 to 255 visible ASCII characters",
        param: name)
    }
    return key
  }

  /// Whether the body has a job in each line; otherwise it is a JSON array.
  fileprivate func holdsLines() throws(APIError) -> Bool {
    let contentType = headers[.contentType] ?? ""
    let name = contentType.lowercased().prefix { $0 != ";" && $0 != " " }
    switch name {
    case "application/json": return false
    case "application/x-ndjson", "application/jsonl", "application/jsonlines", "application/x-jsonlines": return true
    default:
      throw APIError(
        .unsupportedMediaType,
        "the content type is \"\(contentType.prefix(80))\", but must be application/json for an array of jobs, or "
          + "application/x-ndjson for a job in each line")
    }
  }

  /// Whether the job keeps running when no client waits for it; nil: the request does not say.
  fileprivate func detachment() throws(APIError) -> Bool? {
    switch headers[.detach] {
    case nil: return nil
    case "true": return true
    case "false": return false
    case .some(let text):
      throw APIError(.invalidValue, "X-Detach is \"\(text.prefix(40))\", but must be true or false", param: "X-Detach")
    }
  }

  /// The trace that the job belongs to: the client's, or a new one.
  fileprivate var traceparent: String {
    if let span = ServiceContext.current?.traceContext { return span.traceparent }
    let client = headers[.traceparent].flatMap { TraceContext(traceparent: $0) }
    return (client?.child() ?? .random()).traceparent
  }
}

extension HTTPField.Name {
  static let idempotencyKey = Self("idempotency-key")!
  static let detach = Self("x-detach")!
  static let idempotentReplayed = Self("idempotent-replayed")!
}
