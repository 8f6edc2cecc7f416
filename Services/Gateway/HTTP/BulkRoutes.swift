import ClusterCore
import GatewayAPI
import GatewayDispatch
import GatewayPipelines
import HTTPTypes
import Hummingbird
import Scheduling

/// `POST /v1/jobs/bulk`: many jobs in one request.
struct BulkRoutes: Sendable {
  /// Jobs of one request.
  static let maxCount = 100

  let dispatcher: Dispatcher
  let submission: Submission
  /// Counts every job as a request; nil: the server has no keys.
  let keyring: Keyring?

  func add(to router: Router<GatewayContext>) { router.serve("/v1/jobs/bulk", [(.post, submit)]) }

  @Sendable private func submit(_ request: Request, _ context: GatewayContext) async throws -> Response {
    try request.checkQuery(["atomic"])
    let isAtomic: Bool
    switch request.uri.queryParameters["atomic"] {
    case nil, "false": isAtomic = false
    case "true", "": isAtomic = true
    case .some(let text):
      throw APIError(.invalidValue, "atomic is \"\(text.prefix(40))\", but must be true or false", param: "atomic")
    }
    try Self.refuseHeaderKey(request, "give each job of the body an idempotency_key")
    var request = request
    return try await submission.withBulk(&request, context, maxCount: Self.maxCount) { items in
      // The request itself was counted when its key was checked.
      try keyring?.spend(items.count - 1, of: context.caller)
      guard isAtomic else { return try await submitEach(items, context) }
      return try .json(BulkResults(try await submitTogether(items, context) { "[\($0)]" }))
    }
  }

  /// - Parameter advice: what to do instead.
  static func refuseHeaderKey(_ request: Request, _ advice: String) throws(APIError) {
    guard request.headers[.idempotencyKey] == nil else {
      throw APIError(
        .unsupportedValue, "Idempotency-Key is for one job: \(advice)", param: "Idempotency-Key")
    }
  }

  /// Every job for itself.
  private func submitEach(_ items: [BulkItem], _ context: GatewayContext) async throws -> Response {
    var results: [BulkResult] = []
    for (index, item) in items.enumerated() {
      do {
        let job = try await submission.job(of: item, context)
        let ticket = try await APIError.wrap { () async throws(Status) in
          try await DispatcherMetrics.counting(images: job.images.count) { () async throws(Status) in
            try await dispatcher.submit(job)
          }
        }
        results.append(try await result(index, ticket, context))
      } catch let error as APIError {
        results.append(BulkResult(index: index, status: error.code.row.status.code, error: ErrorEnvelope(error).error))
      }
    }
    return try .json(BulkResults(results))
  }

  /// All jobs, or none.
  ///
  /// - Parameter title: what errors call the job of a place.
  func submitTogether(
    _ items: [BulkItem], _ context: GatewayContext, title: (Int) -> String
  ) async throws -> [BulkResult] {
    var jobs: [JobRequest] = [], keys: Set<String> = [], bytes = 0, digests: Set<String> = []
    let limit = dispatcher.maxRequestInputBytes
    for (index, item) in items.enumerated() {
      do {
        let job = try await submission.job(of: item, context)
        if let key = job.key?.text, !keys.insert(key).inserted {
          throw APIError(
            .invalidValue, "idempotency_key \"\(key.prefix(80))\" is that of an earlier job of the body",
            param: "idempotency_key")
        }
        // Images stay in memory until all jobs are submitted.
        for input in job.inputs where digests.insert(input.reference.digest).inserted {
          bytes += input.tensor.bytes.count
        }
        guard bytes <= limit else {
          throw APIError(
            .invalidValue, "the images of the jobs have more than \(limit) bytes when they are decoded", param: "image")
        }
        jobs.append(job)
      } catch let error as APIError {
        throw error.inside(title(index))
      }
    }
    let all = jobs
    let tickets = try await APIError.wrap { () async throws(Status) in
      try await DispatcherMetrics.counting(images: all.reduce(0) { $0 + $1.images.count }) { () async throws(Status) in
        try await dispatcher.submit(all)
      }
    }
    var results: [BulkResult] = []
    for (index, ticket) in tickets.enumerated() { results.append(try await result(index, ticket, context)) }
    return results
  }

  private func result(_ index: Int, _ ticket: JobTicket, _ context: GatewayContext) async throws -> BulkResult {
    let snapshot = try await APIError.wrap { () async throws(Status) in
      try await dispatcher.snapshot(of: ticket.id, tenant: context.caller.tenant)
    }
    context.logger.info(ticket.isNew ? "job accepted" : "job known already", metadata: ["job": "\(ticket.id)"])
    return BulkResult(
      index: index, status: HTTPResponse.Status.accepted.code, job: snapshot.map { JobBody($0, context.links) },
      replayed: ticket.isNew ? nil : true)
  }
}

/// What became of one job of several.
struct BulkResult: Encodable {
  /// Its place in the request, from 0.
  var index: Int
  /// HTTP status that a request of its own would have.
  var status: Int
  var job: JobBody?
  /// Whether an earlier request with the same key has made it.
  var replayed: Bool?
  var error: ErrorEnvelope.Body?
  // Of a template only:
  var row: Int?
  var size: String?
  var language: String?
  /// Where a client would put the file.
  var output: String?
}

/// What became of several jobs.
struct BulkResults: Encodable {
  var object = "list"
  var data: [BulkResult]
  var accepted: Int
  var failed: Int

  init(_ results: [BulkResult]) {
    data = results
    failed = results.count { $0.error != nil }
    accepted = results.count - failed
  }
}
