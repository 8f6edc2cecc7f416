import AsyncHTTPClient
import Foundation
import NIOCore
import NIOHTTP1

/// What can go wrong between this program and a gateway.
enum GatewayClientError: Error, CustomStringConvertible {
  case badAddress(String)
  case refused(status: UInt, message: String)
  case failed(message: String)
  case incomplete
  case tooLong(limitBytes: Int)

  var description: String {
    switch self {
    case .badAddress(let address): "--gateway: \(address) is not an http or https address"
    case .refused(let status, let message): "the gateway refused the request (\(status)): \(message)"
    case .failed(let message): "the cluster could not draw the picture: \(message)"
    case .incomplete: "the gateway closed the connection before the picture was complete"
    case .tooLong(let limit): "the gateway sent an event of more than \(limit) bytes"
    }
  }
}

/// A client of the gateway's `POST /v1/images/generations` with a stream of events.
struct GatewayClient {
  /// The request, as the gateway reads it.
  struct Body: Encodable {
    let prompt: String
    let negativePrompt: String?
    let trueCfgScale: Double?
    let numInferenceSteps: Int?
    let width: Int?
    let height: Int?
    let seed: UInt64?
    var stream: Bool? = true
    var n: Int?
    var priority: String?
  }

  /// Where a request has got to.
  struct Progress: Decodable {
    let stage: String
    let step: Int
    let steps: Int
    let secondsLeft: Double?
    let queuePosition: Int?
  }

  /// What the gateway tells.
  enum Event {
    case progress(Progress)
    case completed(png: Data, seed: UInt64?)
  }

  static let maxEventBytes = 256 << 20
  private static let connectTimeout = TimeAmount.seconds(10)

  let http: HTTPClient
  /// The address without a slash at its end.
  let address: String
  let apiKey: String?

  init(_ address: String, apiKey: String?) throws {
    guard let url = URL(string: address), let scheme = url.scheme, ["http", "https"].contains(scheme), url.host != nil else {
      throw GatewayClientError.badAddress(address)
    }
    self.address = address.hasSuffix("/") ? String(address.dropLast()) : address
    self.apiKey = apiKey
    var configuration = HTTPClient.Configuration()
    configuration.timeout = .init(connect: Self.connectTimeout)
    http = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
  }

  func shutdown() async throws { try await http.shutdown() }

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
    var request = HTTPClientRequest(url: "\(address)/v1/images/generations")
    request.method = .POST
    request.headers.add(name: "content-type", value: "application/json")
    request.headers.add(name: "accept", value: "text/event-stream")
    if let apiKey { request.headers.add(name: "authorization", value: "Bearer \(apiKey)") }
    request.body = .bytes(try encoder.encode(body))
    // The deadline bounds the connection and the wait between events; a picture may take hours.
    let response = try await http.execute(request, deadline: .distantFuture)
    guard response.status == .ok else {
      let bytes = try await response.body.collect(upTo: 1 << 20)
      throw GatewayClientError.refused(status: response.status.code, message: Self.message(in: Data(bytes.readableBytesView)))
    }
    var parser = ServerSentEvents(maxEventBytes: Self.maxEventBytes)
    for try await chunk in response.body {
      for event in try parser.append(chunk.readableBytesView) { try handle(event, report) }
    }
  }

  private func handle(_ event: ServerSentEvents.Event, _ report: (Event) -> Void) throws {
    struct Completed: Decodable {
      let b64Json: Data
      let seed: UInt64?
    }
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    let data = Data(event.data.utf8)
    switch event.name {
    case "image_generation.progress": report(.progress(try decoder.decode(Progress.self, from: data)))
    case "image_generation.completed":
      let completed = try decoder.decode(Completed.self, from: data)
      report(.completed(png: completed.b64Json, seed: completed.seed))
    case "error": throw GatewayClientError.failed(message: Self.message(in: data))
    default: break
    }
  }

  /// The message of an OpenAI-shaped error, or the text itself.
  static func message(in data: Data) -> String {
    struct Body: Decodable {
      struct Problem: Decodable { let message: String }
      let error: Problem
    }
    return (try? JSONDecoder().decode(Body.self, from: data))?.error.message ?? String(decoding: data.prefix(1000), as: UTF8.self)
  }
}
