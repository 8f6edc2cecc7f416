import Foundation
import HTTPClient
import ImageCodec

extension GatewayClient {
  /// A job as `/v1/jobs` shows it.
  struct Job: Decodable {
    struct Image: Decodable {
      struct Problem: Decodable { let message: String }
      let index: Int
      let seed: UInt64
      let status: String
      /// The stage at work.
      let stage: String?
      /// How many the result has; nil: it is one image.
      let layers: Int?
      /// Why there is no result.
      let error: Problem?
    }
    let id: String
    let status: String
    let createdAt: Int
    let prompt: String
    /// nil: the prompt is the one that was sent.
    let revisedPrompt: String?
    let size: String
    let step: Int
    let steps: Int
    let n: Int
    let queuePosition: Int?
    let secondsLeft: Double?
    let images: [Image]

    /// Steps of all its images; as many as an `Int` holds, whatever the gateway says.
    var totalSteps: Int {
      let (product, overflow) = steps.multipliedReportingOverflow(by: n)
      return overflow ? Int.max : product
    }

    /// Whether nothing more happens to it.
    var hasEnded: Bool { !["queued", "running"].contains(status) }
  }

  /// A page of jobs.
  struct JobPage: Decodable {
    let data: [Job]
    let hasMore: Bool
  }

  /// Hands a job in; with a key, a repetition gives the same job.
  func submit(_ body: Body, key: String?) async throws -> Job {
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    var request = request("POST", "/v1/jobs")
    request.headers.append(("content-type", "application/json"))
    if let key { request.headers.append(("idempotency-key", key)) }
    request.body = Array(try encoder.encode(body))
    return try decode(try await answer(to: request))
  }

  /// One of the jobs.
  func job(_ id: String) async throws -> Job { try decode(try await data(path(of: id))) }

  /// One of the jobs, as JSON for people.
  func jobText(_ id: String) async throws -> String { try await text(path(of: id)) }

  /// What is at `path`, as JSON for people.
  func text(_ path: String) async throws -> String {
    let answer = try await data(path)
    guard let value = try? JSONSerialization.jsonObject(with: answer) else {
      throw GatewayClientError.notGateway(address, reason: "its answer is not JSON")
    }
    let options: JSONSerialization.WritingOptions = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try JSONSerialization.data(withJSONObject: value, options: options), as: UTF8.self)
  }

  /// The newest jobs after `last`.
  func jobs(limit: Int, after last: String?) async throws -> JobPage {
    try decode(try await data(jobsPath(limit: limit, after: last)))
  }

  /// The newest jobs after `last`, as JSON for people.
  func jobsText(limit: Int, after last: String?) async throws -> String {
    try await text(jobsPath(limit: limit, after: last))
  }

  /// Ends a job.
  func cancel(_ id: String) async throws -> Job { try decode(try await answer(to: request("DELETE", path(of: id)))) }

  /// `body` with both sides if it has one: the other is the model's own, as it is without a gateway.
  func completed(_ body: Body) async throws -> Body {
    guard (body.width == nil) != (body.height == nil) else { return body }
    let models = try await models()
    // The first is the one that a request without a name is for. A name that the gateway does not have it refuses.
    guard let size = (models.first { $0.id == body.model } ?? models.first)?.defaults.size else {
      throw GatewayClientError.noSize(reason: "the gateway has no model yet, which would know the other side")
    }
    var body = body
    (body.width, body.height) = (body.width ?? size.width, body.height ?? size.height)
    return body
  }

  /// Calls `report` with the job, and with a preview of its first image if there is a new one, whenever something has
  /// happened, until it ends. Attaches again when the connection
  /// breaks, as long as the gateway comes back within a minute; a gateway that never was there is an error at once.
  func watch(
    _ id: String, withPreviews: Bool = false, _ report: (Job, RasterImage?) -> Void
  ) async throws -> Job {
    var lastEvent: String?
    var silentSince: ContinuousClock.Instant?
    while true {
      do {
        let job = try await job(id)
        silentSince = .now
        report(job, nil)
        if job.hasEnded { return job }
        // A stream that ends at once is not asked for again and again.
        if try await !follow(id, &lastEvent, withPreviews, report) { try await Task.sleep(for: .milliseconds(500)) }
      } catch let error as GatewayClientError {
        throw error
      } catch is CancellationError {
        throw CancellationError()
      } catch {
        guard let silentSince, ContinuousClock.now - silentSince < .seconds(60) else { throw error }
        try await Task.sleep(for: .milliseconds(500))
      }
    }
  }

  /// Reports as events come; returns whether there was any.
  private func follow(
    _ id: String, _ lastEvent: inout String?, _ withPreviews: Bool, _ report: (Job, RasterImage?) -> Void
  ) async throws -> Bool {
    struct Preview: Decodable {
      let index: Int
      let b64Json: Data
    }
    var request = request("GET", path(of: id) + (withPreviews ? "/events?previews=true" : "/events"))
    if let lastEvent { request.headers.append(("last-event-id", lastEvent)) }
    let response = try await http.execute(request)
    guard response.status == 200 else { return false }
    var hasEvents = false
    var parser = ServerSentEvents(maxEventBytes: Self.maxEventBytes)
    for try await chunk in response.body {
      for event in try parser.append(chunk) {
        (lastEvent, hasEvents) = (event.id, true)
        let preview: Preview? = event.name == "job.preview" ? try decode(Data(event.data.utf8)) : nil
        report(try await job(id), preview.flatMap { $0.index == 0 ? Self.preview($0.b64Json) : nil })
      }
    }
    return hasEvents
  }

  /// The path of a page of jobs.
  func jobsPath(limit: Int, after last: String?) -> String {
    "/v1/jobs?limit=\(limit)" + (last.map { "&after=\(Self.encoded($0))" } ?? "")
  }

  func path(of job: String) -> String { "/v1/jobs/\(Self.encoded(job))" }

  private static let unreserved = CharacterSet(
    charactersIn: "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")

  /// A name as one part of a path or a query, whatever it holds.
  private static func encoded(_ name: String) -> String {
    name.addingPercentEncoding(withAllowedCharacters: unreserved) ?? ""
  }

  func data(_ path: String) async throws -> Data { try await answer(to: request("GET", path)) }

  func answer(to request: HTTPClient.Request) async throws -> Data {
    // An image may take its time; the wait for the next bytes is bounded.
    let response = try await http.execute(request)
    guard (200..<300).contains(response.status) else { throw await refusal(response) }
    return Data(try await response.body.collect(upTo: Self.maxAnswerBytes))
  }

  func decode<Value: Decodable>(_ data: Data) throws -> Value {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(Value.self, from: data)
  }
}
