import GatewayAPI
import GatewayDispatch
import GatewayPipelines
import HTTPTypes
import Hummingbird
import StrictJSON
import Templates
import Wire

/// `POST /v1/templates/jobs`: a template and rows, which become jobs, all or none.
struct TemplatesRoutes: Sendable {
  /// Jobs of one request.
  static let maxCount = 1000

  let bulk: BulkRoutes

  func add(to router: Router<GatewayContext>) { router.serve("/v1/templates/jobs", [(.post, submit)]) }

  @Sendable private func submit(_ request: Request, _ context: GatewayContext) async throws -> Response {
    try request.checkQuery([])
    try BulkRoutes.refuseHeaderKey(request, "give the body an idempotency_key, which is part of the key of every job")
    var request = request
    return try await bulk.submission.withTemplate(&request, context) { bytes, makeItem in
      let body = try await Submission.decoding { () throws(APIError) in try TemplateBody(bytes) }
      guard !body.isDryRun else { return try dryRun(body, makeItem) }
      guard body.requests.count <= Self.maxCount else {
        throw APIError(
          .invalidValue,
          "rows, sizes and languages make \(body.requests.count) jobs, the limit of a request is \(Self.maxCount)",
          param: "rows")
      }
      try bulk.keyring?.spend(body.requests.count - 1, of: context.caller)
      let items = body.requests.map { makeItem(body.item($0)) }
      var results = try await bulk.submitTogether(items, context) { Self.place(body.requests[$0]) }
      for (index, request) in body.requests.enumerated() {
        (results[index].row, results[index].size) = (request.row, request.size)
        (results[index].language, results[index].output) = (request.language, request.output)
      }
      return try .json(BulkResults(results))
    }
  }

  /// Where the row of a request is in the body.
  private static func place(_ request: TemplateRequest) -> String { "rows[\(request.row - 1)]" }

  /// Answers with the requests, each of which was read as one of a job is.
  private func dryRun(_ body: TemplateBody, _ makeItem: ([UInt8]) -> BulkItem) throws -> Response {
    var data: [JSON] = []
    for request in body.requests {
      do throws(APIError) {
        try bulk.submission.check(makeItem(body.item(request)))
      } catch { throw error.inside(Self.place(request)) }
      var members: JSONObject = ["row": JSON(request.row)]
      if let size = request.size { members["size"] = .string(size) }
      if let language = request.language { members["language"] = .string(language) }
      members["output"] = .string(request.output)
      members["request"] = request.json(withOutput: false)
      data.append(.object(members))
    }
    let answer: JSON = ["object": "list", "template": .string(body.template.name), "data": .array(data)]
    return Response(
      status: .ok, headers: [.contentType: "application/json"],
      body: ResponseBody(byteBuffer: ByteBuffer(bytes: answer.bytes)))
  }
}

/// The body of a request with a template.
struct TemplateBody: Sendable {
  /// Values of the body: rows times columns, and the template.
  private static let maxValues = 500_000
  private static let maxKeyLength = 100

  let template: Template
  let requests: [TemplateRequest]
  /// Whether the client wants to see the requests only.
  let isDryRun: Bool
  /// With which the keys of the jobs begin.
  private let key: String?

  /// Reads the body and makes the requests.
  init(_ bytes: [UInt8]) throws(APIError) {
    let json: JSON
    do { json = try JSON(bytes, maxDepth: 16, maxValues: Self.maxValues) } catch {
      throw APIError(.invalidJSON, "the body is not JSON: \(error)")
    }
    guard case .object(let members) = json else {
      throw APIError(.invalidType, "the body must be a JSON object, not \(json.kind)")
    }
    let known = ["template", "rows", "dry_run", "idempotency_key"]
    for name in members.keys where !known.contains(name) {
      throw APIError(
        .unknownField, "unknown field \"\(name.prefix(80))\"; known fields: \(known.joined(separator: ", "))",
        param: String(name.prefix(80)))
    }
    template = try Self.template(members["template"])
    requests = try Self.requests(members["rows"], template)
    switch members["dry_run"] ?? .null {
    case .null: isDryRun = false
    case .bool(let flag): isDryRun = flag
    case let value:
      throw APIError(.invalidType, "dry_run must be true or false, not \(value.kind)", param: "dry_run")
    }
    key = try Self.key(members["idempotency_key"])
  }

  private static func template(_ value: JSON?) throws(APIError) -> Template {
    do throws(TemplateError) {
      switch value ?? .null {
      case .string(let text): return try Template(yaml: text)
      case .object(let members): return try Template(.object(members))
      case .null: break
      case let other:
        throw TemplateError(line: nil, "it must be an object, or YAML as a string, not \(other.kind)")
      }
    } catch {
      let param = "template" + (error.path.isEmpty ? "" : ".\(error.path)")
      throw APIError(.invalidValue, "template: \(error)", param: param)
    }
    throw APIError(.missingField, "template is missing", param: "template")
  }

  private static func requests(_ value: JSON?, _ template: Template) throws(APIError) -> [TemplateRequest] {
    do throws(RowProblems) {
      switch value ?? .null {
      case .string(let text): return try template.expanded(TemplateRow.rows(csv: text, for: template))
      case .array(let elements): return try template.expanded(TemplateRow.rows(json: elements, for: template))
      case .null: break
      case let other:
        throw RowProblems("rows must be an array of objects, or CSV as a string, not \(other.kind)")
      }
    } catch {
      let first = error.problems[0], shown = error.problems.prefix(20)
      let more = error.hasMore || shown.count < error.problems.count ? "; and more" : ""
      let place = first.row > 0 ? "rows[\(first.row - 1)]" : "rows"
      throw APIError(
        .invalidValue, shown.map(\.description).joined(separator: "; ") + more,
        param: place + (first.column.map { ".\($0)" } ?? ""))
    }
    throw APIError(.missingField, "rows is missing", param: "rows")
  }

  private static func key(_ value: JSON?) throws(APIError) -> String? {
    guard let value, value != .null else { return nil }
    guard let key = value.text else {
      throw APIError(.invalidType, "idempotency_key must be a string, not \(value.kind)", param: "idempotency_key")
    }
    guard (1...maxKeyLength).contains(key.utf8.count), key.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
      throw APIError(
        .invalidValue,
        "idempotency_key has \(key.utf8.count) bytes, but must be 1 to \(maxKeyLength) visible ASCII characters",
        param: "idempotency_key")
    }
    return key
  }

  /// A request as a job of several has it, with a key of its own if the body has one.
  func item(_ request: TemplateRequest) -> [UInt8] {
    guard let key, case .object(var members) = request.json(withOutput: false) else {
      return request.json(withOutput: false).bytes
    }
    let parts = [key, "\(request.row)", request.size, request.language].compactMap { $0 }
    members["idempotency_key"] = .string(parts.joined(separator: "."))
    return JSON.object(members).bytes
  }
}
