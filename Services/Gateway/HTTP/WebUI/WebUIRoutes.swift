import ClusterCore
import GatewayAPI
import GatewayDispatch
import GatewayPipelines
import HTTPTypes
import Hummingbird
import ImageCodec
import NIOCore
import Scheduling
import StrictJSON
import Wire

/// A1111's API, `/sdapi/v1`, for programs that speak no other: bodies become requests of this server's own, and jobs as
/// all others are.
struct WebUIRoutes: Sendable {
  /// Bytes of a body without images.
  private static let maxSettingsBytes = 256 << 10

  let dispatcher: Dispatcher
  let submission: Submission
  let origins: OriginPolicy
  let state = WebUIState()

  func add(to router: Router<GatewayContext>) {
    router.serve("/sdapi/v1/txt2img", [(.post, { try await make(.textToImage, $0, $1) })])
    router.serve("/sdapi/v1/img2img", [(.post, { try await make(.imageToImage, $0, $1) })])
    router.serve("/sdapi/v1/progress", [(.get, showProgress)])
    router.serve("/sdapi/v1/interrupt", [(.post, interrupt)])
    router.serve("/sdapi/v1/skip", [(.post, skip)])
    router.serve("/sdapi/v1/options", [(.get, options), (.post, setOptions)])
    router.serve("/sdapi/v1/sd-models", [(.get, { _, _ in .document(.array(await models().map(\.item))) })])
    router.serve("/sdapi/v1/loras", [(.get, { _, _ in .document(.array(await loras())) })])
    router.serve("/sdapi/v1/png-info", [(.post, imageInfo)])
    for (path, body) in WebUILists.all {
      let response = Response.document(body)
      router.serve(RouterPath(path), [(.get, { _, _ in response })])
    }
    // Workers bring models of themselves, and nothing is held in this process.
    for name in ["refresh-checkpoints", "refresh-vae", "refresh-loras", "reload-checkpoint", "unload-checkpoint"] {
      router.serve(RouterPath("/sdapi/v1/\(name)"), [(.post, { _, _ in .document([:]) })])
    }
    router.serve("/internal/ping", [(.get, { _, _ in .document([:]) })])
  }

  // MARK: Images

  private func make(
    _ route: WebUIRequest.Route, _ request: Request, _ context: GatewayContext
  ) async throws -> Response {
    var request = request
    var made: WebUIRequest?
    let ticket: JobTicket
    do {
      ticket = try await submission.accept(&request, context, isDetached: false, mayStream: false) { body in
        let (own, generation) = try await translated(body, route, context.caller.tenant)
        made = own
        return generation
      }.ticket
    } catch let error as APIError { throw WebUIRequest.renamed(error) }
    guard let made else { throw APIError(.internalError, "the request was not read") }
    let tenant = context.caller.tenant
    state.begin(ticket.id, route, of: tenant)
    defer { state.end(ticket.id, of: tenant) }
    var response: Response
    do {
      response = .document(
        try WebUIAnswer(request: made, ticket: ticket, results: await results(ticket, request)).body())
    } catch let error as APIError {
      response = try .webUIError(WebUIRequest.renamed(error))
    }
    // Noticing that the client leaves uses up the connection.
    response.headers[.connection] = "close"
    response.describe(ticket, context.links)
    return response
  }

  /// A body in the terms of A1111, and as a request of this server's own.
  private func translated(
    _ body: RequestContent, _ route: WebUIRequest.Route, _ tenant: TenantID
  ) async throws -> (WebUIRequest, GenerationRequest) {
    guard case .json(let bytes) = body else {
      throw APIError(.unsupportedMediaType, "the body is a form, but must be application/json")
    }
    var own = try WebUIRequest(body: bytes, route)
    let title = own.overrides.model ?? state.options(of: tenant)["sd_model_checkpoint"]?.text
    let model = title.map { WebUIModelName.name(inTitle: $0) }
    let card = try await submission.card(named: model)
    let intake = submission.limits.images
    let images = own.images
    let mask = try await Submission.decoding { () throws(APIError) in try images?.preparedMask(intake) }
    let request = try GenerationRequest(
      value: own.fields(for: card, model: model, mask: mask), route == .textToImage ? .generation : .edit,
      pipelines: dispatcher.pipelines, intake: intake, maxPromptBytes: WireLimits().maxTextBytes)
    return (own, request)
  }

  /// Waits for all images. Those that are interrupted or skipped are left out; a client that leaves, or an image that
  /// fails, ends the others, unless the job is detached.
  private func results(_ ticket: JobTicket, _ request: Request) async throws -> [Int: EncodedImage] {
    let results = try await request.body.consumeWithCancellationOnInboundClose { _ in
      var results: [Int: EncodedImage] = [:], endedCount = 0
      for await event in ticket.events {
        switch event.update {
        case .finished(let image):
          results[event.index] = image
          endedCount += 1
        case .failed(let status) where status.code == .cancelled: endedCount += 1
        case .failed(let status): throw APIError(status)
        case .queued, .started, .progressed, .previewed, .retrying: continue
        }
        if endedCount == ticket.images.count { return results }
      }
      throw APIError(
        .shuttingDown, "the gateway is shutting down; job \(ticket.id) resumes after its restart",
        retryAfterSeconds: 10)
    }
    guard !results.isEmpty else {
      throw APIError(.cancelled, "job \(ticket.id) was interrupted before it had an image")
    }
    return results
  }

  // MARK: Progress

  @Sendable private func showProgress(_ request: Request, _ context: GatewayContext) async throws -> Response {
    let tenant = context.caller.tenant
    let skipsImage = try request.skipsCurrentImage()
    var progress = try await progress(tenant)
    if !skipsImage, let job = progress.job?.snapshot, let index = progress.index,
      let preview = await dispatcher.preview(of: job.id, index: index, tenant: tenant)
    {
      progress.preview = try await preview.file(as: .preview, of: job.request.images[index].size)
    }
    return .document(progress.body)
  }

  private func progress(_ tenant: TenantID) async throws -> WebUIProgress {
    var jobs: [(snapshot: JobSnapshot, route: WebUIRequest.Route)] = []
    for (id, route) in state.jobs(of: tenant) {
      let snapshot = try await APIError.wrap { () async throws(Status) in
        try await dispatcher.snapshot(of: id, tenant: tenant)
      }
      if let snapshot { jobs.append((snapshot, route)) }
    }
    return WebUIProgress(jobs)
  }

  /// Ends the current job: its request is answered with the images that are there.
  @Sendable private func interrupt(_ request: Request, _ context: GatewayContext) async throws -> Response {
    try checkOrigin(of: request, context)
    let tenant = context.caller.tenant
    if let id = try await progress(tenant).job?.snapshot.id {
      try await APIError.wrap { () async throws(Status) in
        try await dispatcher.cancel(
          id, tenant: tenant, reason: Status(.cancelled, "the job was interrupted by its owner"))
      }
    }
    return .document([:])
  }

  /// Ends the image that is being made; the job's others are made.
  @Sendable private func skip(_ request: Request, _ context: GatewayContext) async throws -> Response {
    try checkOrigin(of: request, context)
    let tenant = context.caller.tenant
    let progress = try await progress(tenant)
    if let id = progress.job?.snapshot.id, let index = progress.index {
      try await APIError.wrap { () async throws(Status) in
        try await dispatcher.cancel(
          id, image: index, tenant: tenant, reason: Status(.cancelled, "the image was skipped by its owner"))
      }
    }
    return .document(.null)
  }

  /// Refuses requests of other sites' pages: browsers send those that have no body without asking first.
  private func checkOrigin(of request: Request, _ context: GatewayContext) throws(APIError) {
    guard let origin = request.headers[.origin], origin != context.links.origin, origins.answer(to: origin) == nil
    else { return }
    throw APIError(.originNotAllowed, "web pages of \(origin.prefix(200)) may not end jobs")
  }

  // MARK: Models and options

  /// A model that a request may ask for.
  private struct Model {
    let id: String
    let hash: String?

    var item: JSON {
      [
        "title": .string(id), "model_name": .string(id), "hash": JSON(hash), "sha256": .null, "filename": .string(id),
        "config": .null,
      ]
    }
  }

  /// The models that were complete once, the first one first, then their further names.
  private func models() async -> [Model] {
    let catalog = await dispatcher.catalog, status = await dispatcher.status
    let models = catalog.modelIDs.map { id in
      Model(id: id, hash: (try? catalog.card(named: id, status: status)).map { WebUIModelName.hash(of: $0.model) })
    }
    let further = submission.aliases.names.compactMap { name -> Model? in
      let id = submission.aliases.model(named: name, known: catalog.modelIDs)
      guard id != name, let model = models.first(where: { $0.id == id }) else { return nil }
      return Model(id: name, hash: model.hash)
    }
    return models + further
  }

  /// The adapters of all models' workers, by name, as prompts have them in `<lora:NAME:SCALE>`.
  private func loras() async -> [JSON] {
    let catalog = await dispatcher.catalog, status = await dispatcher.status
    var names: Set<String> = []
    for id in catalog.modelIDs {
      guard let model = (try? catalog.card(named: id, status: status))?.model else { continue }
      names.formUnion(await dispatcher.adapters(of: model).entries.map(\.name))
    }
    return names.sorted().map { ["name": .string($0), "alias": .string($0), "path": .string($0), "metadata": [:]] }
  }

  @Sendable private func options(_ request: Request, _ context: GatewayContext) async throws -> Response {
    var options = WebUILists.options.merging(state.options(of: context.caller.tenant)) { $1 }
    let models = await models()
    let chosen = options["sd_model_checkpoint"]?.text ?? models.first?.id
    options["sd_model_checkpoint"] = JSON(chosen)
    options["sd_checkpoint_hash"] = JSON(models.first { $0.id == chosen }?.hash)
    return .document(.object(options))
  }

  /// Takes the model for the tenant's later requests. Other options are kept and shown, without effect.
  @Sendable private func setOptions(_ request: Request, _ context: GatewayContext) async throws -> Response {
    var options = try WebUIFields(try await settings(of: request, context)).members
    options["sd_checkpoint_hash"] = nil
    switch options["sd_model_checkpoint"] {
    case nil: break
    case .null, "": options["sd_model_checkpoint"] = nil
    case .string(let title)?:
      let name = WebUIModelName.name(inTitle: title)
      do { _ = try await submission.card(named: name) } catch { throw WebUIRequest.renamed(error) }
      options["sd_model_checkpoint"] = .string(name)
    case let other?:
      throw APIError(
        .invalidType, "sd_model_checkpoint must be a string, not \(other.kind)", param: "sd_model_checkpoint")
    }
    try state.set(options, of: context.caller.tenant)
    return .document(.null)
  }

  private func settings(
    of request: Request, _ context: GatewayContext, maxBytes: Int = maxSettingsBytes
  ) async throws -> JSON {
    var request = request, limits = submission.limits
    limits.maxBodyBytes = min(limits.maxBodyBytes, maxBytes)
    let memory = submission.bodies.share()
    defer { memory.release() }
    guard case .json(let bytes) = try await request.takeBody(limits, memory, context) else {
      throw APIError(.unsupportedMediaType, "the body is a form, but must be application/json")
    }
    do { return try JSON(bytes, maxDepth: 16, maxValues: 4096) } catch {
      throw APIError(.invalidJSON, "the body is not JSON: \(error)")
    }
  }

  // MARK: Images that are there

  /// What an image file says about its making.
  @Sendable private func imageInfo(_ request: Request, _ context: GatewayContext) async throws -> Response {
    let body = try WebUIFields(
      try await settings(of: request, context, maxBytes: submission.limits.maxBodyBytes))
    guard let text = try body.text("image"), !text.isEmpty else {
      throw APIError(.missingField, "image is missing", param: "image")
    }
    let intake = submission.limits.images
    let texts = try await Submission.decoding { () throws(APIError) in
      let bytes = try DataURL.bytes(of: text, field: "image", maxBytes: intake.maxFileBytes)
      do throws(ImageFileError) {
        let limits = ImageFile.Limits(maxBytes: intake.maxFileBytes, maxPixels: intake.maxPixels)
        return try ImageFile.texts(of: bytes, limits: limits).texts
      } catch { throw APIError(.invalidValue, "image: \(error)", param: "image") }
    }
    var items: JSONObject = [:]
    for text in texts { items[text.keyword] = .string(text.text) }
    let infotext = items[ImageMetadata.parametersKeyword]?.text ?? ""
    return .document([
      "info": .string(infotext), "items": .object(items), "parameters": .object(WebUIInfotext.parameters(of: infotext)),
    ])
  }
}

extension Request {
  /// Whether the progress is asked for without its image, in the words that FastAPI takes for a boolean.
  fileprivate func skipsCurrentImage() throws(APIError) -> Bool {
    let name = "skip_current_image"
    switch uri.queryParameters[name[...]].map({ $0.lowercased() }) {
    case nil, "false", "0", "no", "off", "f", "n": return false
    case "true", "1", "yes", "on", "t", "y": return true
    case .some(let text):
      throw APIError(.invalidValue, "\(name) is \"\(text.prefix(40))\", but must be true or false", param: name)
    }
  }
}
