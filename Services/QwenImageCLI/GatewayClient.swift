import Foundation
import HTTPClient
import ImageCodec
import Settings

/// A client of the gateway's `POST /v1/images/generations` with a stream of events.
struct GatewayClient {
  /// The request, as the gateway reads it.
  struct Body: Encodable {
    var prompt: String
    let negativePrompt: String?
    let trueCfgScale: Double?
    let numInferenceSteps: Int?
    var sigmas: [Double]?
    var sampler: String?
    var schedule: String?
    var cfgSteps: Int?
    var loras: [NamedAdapter]?
    var cache: StepCacheChoice.Field?
    var width: Int?
    var height: Int?
    var outputResolution: Int?
    var seed: UInt64?
    var model: String?
    var background: String?
    var outputFormat: String?
    var outputCompression: Int?
    var stream: Bool? = true
    var n: Int?
    var priority: String?
    var partialImages: Int?
    var enhancePrompt: Bool?
    var deadline: Int?
    var timeoutSeconds: Double?
    var tags: [String]?
    var metadata: [String: String]?
    var webhook: Webhook?

    struct Webhook: Encodable {
      let url: String
      var secret: String?
      var events: [String]?
    }
  }

  /// Where a request has got to.
  struct Progress: Decodable {
    let stage: String
    let step: Int
    let steps: Int
    let secondsLeft: Double?
    let queuePosition: Int?
  }

  /// An image, and what it was made of.
  struct Completed: Decodable {
    var b64Json: Data
    let seed: UInt64?
    let size: String?
    let jobId: String?
    /// nil: the prompt is the one that was sent.
    let revisedPrompt: String?
  }

  /// What the gateway tells.
  enum Event {
    case progress(Progress)
    case preview(RasterImage)
    case completed(Completed)
  }

  static let maxEventBytes = 256 << 20
  static let maxAnswerBytes = 256 << 20
  private static let maxConnectSeconds = 10.0

  let http: HTTPClient
  let address: GatewayAddress
  let apiKey: String?
  /// The longest silence of the gateway that is waited for. It sends a sign of life every 15 seconds, unless it is set
  /// otherwise.
  let timeoutSeconds: Double
  /// The longest wait for a connection.
  var connectTimeoutSeconds: Double { min(timeoutSeconds, Self.maxConnectSeconds) }

  init(_ address: GatewayAddress, apiKey: String?, timeoutSeconds: Double, maxConnections: Int = 8) {
    self.address = address
    self.apiKey = apiKey
    self.timeoutSeconds = timeoutSeconds
    // A redirected request would be another one: a GET, perhaps to another host.
    http = HTTPClient(
      userAgent: "qwen-image/\(SoftwareVersion.current)",
      connectTimeout: .seconds(min(timeoutSeconds, Self.maxConnectSeconds)), silenceTimeout: .seconds(timeoutSeconds),
      maxRedirections: 0, maxConnectionsPerHost: maxConnections)
  }

  func shutdown() { http.shutDown() }

  /// A request for `path` below the gateway's address.
  func request(_ method: String, _ path: String) -> HTTPClient.Request {
    var request = HTTPClient.Request(address.base + path, method: method)
    if let apiKey { request.headers.append(("authorization", "Bearer \(apiKey)")) }
    return request
  }

  /// Sends the request; ending the iteration, or cancelling its task, cancels the request.
  func generate(_ body: Body) -> AsyncThrowingStream<Event, any Error> {
    AsyncThrowingStream { continuation in
      let task = Task {
        do {
          try await run(body) { continuation.yield($0) }
          continuation.finish()
        } catch {
          continuation.finish(throwing: error)
        }
      }
      continuation.onTermination = { _ in task.cancel() }
    }
  }

  private func run(_ body: Body, _ report: (Event) -> Void) async throws {
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    var request = request("POST", "/v1/images/generations")
    request.headers += [("content-type", "application/json"), ("accept", "text/event-stream")]
    request.body = Array(try encoder.encode(body))
    // An image may take hours; the time between two signs of life is bounded.
    let response = try await http.execute(request)
    guard response.status == 200 else { throw await refusal(response) }
    guard response.header("content-type")?.hasPrefix("text/event-stream") ?? false else {
      throw GatewayClientError.notGateway(address, reason: "what answers there does not send a stream of events")
    }
    var parser = ServerSentEvents(maxEventBytes: Self.maxEventBytes)
    for try await chunk in response.body {
      for event in try parser.append(chunk) { try handle(event, report) }
    }
  }

  private func handle(_ event: ServerSentEvents.Event, _ report: (Event) -> Void) throws {
    struct Preview: Decodable { let b64Json: Data }
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    let data = Data(event.data.utf8)
    switch event.name {
    case "image_generation.progress": report(.progress(try decoder.decode(Progress.self, from: data)))
    case "image_generation.partial_image":
      if let image = Self.preview(try decoder.decode(Preview.self, from: data).b64Json) { report(.preview(image)) }
    case "image_generation.completed":
      var completed = try decoder.decode(Completed.self, from: data)
      completed.b64Json = try image(completed.b64Json)
      report(.completed(completed))
    case "error": throw GatewayClientError.failed(message: Self.message(in: data) ?? "the gateway does not say why")
    default: break
    }
  }

  /// A preview; nil for what is none, which is no reason to fail.
  static func preview(_ file: Data) -> RasterImage? {
    var limits = ImageFile.Limits()
    limits.maxPixels = 1 << 20
    return try? ImageFile.decode([UInt8](file), limits: limits)
  }

  /// `bytes`, if they may be an image file: what another server sends under the same path must not end in a file of
  /// that name.
  func image(_ bytes: Data) throws -> Data {
    guard ImageFileFormat(signatureOf: bytes) != nil else {
      throw GatewayClientError.notGateway(
        address, reason: "it sent \(bytes.count) bytes that are no PNG, WebP or JPEG file as the image")
    }
    return bytes
  }
}
