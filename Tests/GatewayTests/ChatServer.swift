import Foundation
import Gateway
import HTTPTesting
import HTTPTypes
import Hummingbird
import StrictJSON
import Synchronization

/// A chat endpoint that answers as a test wants, and keeps what it was asked.
final class ChatServer: Sendable {
  private let asked = Mutex<[JSON]>([])
  private let keys = Mutex<[String?]>([])
  private let answer: @Sendable (_ prompt: String) async -> Response

  init(_ answer: @escaping @Sendable (_ prompt: String) async -> Response) { self.answer = answer }

  /// The bodies of the requests that have come.
  var questions: [JSON] { asked.withLock { $0 } }
  /// Their `Authorization`.
  var authorizations: [String?] { keys.withLock { $0 } }
  /// The prompts in them.
  var prompts: [String] { questions.compactMap { $0["messages"]?[1]?["content"]?.text } }
  /// The instructions in them.
  var instructions: [String] { questions.compactMap { $0["messages"]?[0]?["content"]?.text } }

  /// An answer of OpenAI's API.
  static func says(_ text: String, finishReason: String = "stop") -> Response {
    let choice: JSON = [
      "index": 0, "finish_reason": .string(finishReason), "message": ["role": "assistant", "content": .string(text)],
    ]
    return raw(String(decoding: JSON.object(["object": "chat.completion", "choices": [choice]]).bytes, as: UTF8.self))
  }

  static func raw(_ text: String, status: HTTPResponse.Status = .ok) -> Response {
    Response(status: status, body: .init(byteBuffer: .init(string: text)))
  }

  private func application() -> some ApplicationProtocol {
    let router = Router()
    router.post("v1/chat/completions") { [self] request, _ in
      let body = try await request.body.collect(upTo: 1 << 20)
      let question = try JSON(Array(buffer: body))
      asked.withLock { $0.append(question) }
      keys.withLock { $0.append(request.headers[.authorization]) }
      return await answer(question["messages"]?[1]?["content"]?.text ?? "")
    }
    return Application(
      router: router, configuration: .init(address: .hostname("127.0.0.1", port: 0)), logger: Toy.logger)
  }

  /// Runs `body` with the settings of a gateway that asks it.
  func settings(
    _ change: @escaping @Sendable (inout EnhancementSettings) -> Void = { _ in },
    _ body: @escaping @Sendable (EnhancementSettings) async throws -> Void
  ) async throws {
    try await application().test(.live) { client in
      var settings = EnhancementSettings()
      settings.url = "http://127.0.0.1:\(client.port ?? 0)/v1"
      settings.model = "chat/model"
      settings.timeout = .seconds(20)
      change(&settings)
      try await body(settings)
    }
  }

  /// Runs `body` with a cluster that asks it.
  func enhancing(
    _ change: @escaping @Sendable (inout EnhancementSettings) -> Void = { _ in },
    _ body: @escaping @Sendable (ToyCluster) async throws -> Void
  ) async throws {
    try await settings(change) { settings in
      try await ToyCluster.run(enhancer: try settings.enhancer(logger: Toy.logger)) { cluster in
        _ = try await cluster.joinAll()
        try await body(cluster)
      }
    }
  }
}
