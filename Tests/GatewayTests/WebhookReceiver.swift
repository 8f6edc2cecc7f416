import Foundation
import Gateway
import GatewayDispatch
import HTTPClient
import HTTPTesting
import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import StrictJSON
import Testing

/// A server that webhooks are notified at: answers with the statuses of a list, then with 204.
actor WebhookReceiver {
  struct Notification: Sendable {
    var headers: HTTPFields
    var body: [UInt8]

    subscript(_ name: String) -> String? { HTTPField.Name(name).flatMap { headers[$0] } }
    var json: JSON { get throws { try JSON(body) } }
  }

  private(set) var notifications: [Notification] = []
  private(set) var mostAtOnce = 0
  private var atOnce = 0
  private var statuses: [Int]
  private let answerTime: Duration
  /// Of redirections.
  private(set) var strays = 0

  init(_ statuses: [Int] = [], answerTime: Duration = .zero) {
    self.statuses = statuses
    self.answerTime = answerTime
  }

  private func take(_ notification: Notification) async -> Int {
    notifications.append(notification)
    atOnce += 1
    mostAtOnce = max(mostAtOnce, atOnce)
    try? await Task.sleep(for: answerTime)
    atOnce -= 1
    return statuses.isEmpty ? 204 : statuses.removeFirst()
  }

  private func stray() { strays += 1 }

  /// Calls `body` with the address to notify.
  nonisolated func serve<Value: Sendable>(
    _ body: @escaping @Sendable (String) async throws -> Value
  ) async throws -> Value {
    let router = Router()
    router.post("/hook") { request, _ -> Response in
      let bytes = try await request.body.collect(upTo: 1 << 20)
      let status = await self.take(Notification(headers: request.headers, body: Array(buffer: bytes)))
      var response = Response(status: .init(code: status), body: .init(byteBuffer: ByteBuffer(string: "ignored")))
      if (300..<400).contains(status) { response.headers[.location] = "/elsewhere" }
      return response
    }
    for method in [HTTPRequest.Method.get, .post] {
      router.on("/elsewhere", method: method) { _, _ -> HTTPResponse.Status in
        await self.stray()
        return .ok
      }
    }
    let application = Application(router: router, logger: Toy.logger)
    return try await application.test(.live) { client in
      try await body("http://127.0.0.1:\(#require(client.port))/hook")
    }
  }
}

extension ToyCluster {
  /// Loopback without TLS.
  static var openWebhooks: HTTPSettings {
    var settings = HTTPSettings()
    settings.webhooks.allowsHTTP = true
    settings.webhooks.addresses.networks = [IPNetwork("127.0.0.0/8")!]
    return settings
  }

  static var hastyWebhooks: WebhookConfiguration {
    var configuration = WebhookConfiguration()
    configuration.firstDelay = .milliseconds(20)
    configuration.maxDelay = .milliseconds(100)
    return configuration
  }

  /// Runs `body` while webhooks are notified.
  func notifying<Value: Sendable>(
    _ configuration: WebhookConfiguration = ToyCluster.hastyWebhooks, settings: HTTPSettings = ToyCluster.openWebhooks,
    _ body: @escaping @Sendable () async throws -> Value
  ) async throws -> Value {
    let sender = WebhookSender(
      dispatcher: dispatcher, configuration: configuration, settings: settings, logger: Toy.logger)
    return try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { await sender.run() }
      defer { group.cancelAll() }
      return try await body()
    }
  }
}
