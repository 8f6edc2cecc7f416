import Foundation
import Gateway
import Hummingbird
import StrictJSON

/// A chat endpoint that answers as a test wants, and keeps what it was asked.
final class ChatServer: Sendable {
  private let endpoint: JSONEndpoint

  init(_ answer: @escaping @Sendable (_ prompt: String) async -> Response) {
    endpoint = JSONEndpoint("v1/chat/completions") { await answer($0["messages"]?[1]?["content"]?.text ?? "") }
  }

  /// The bodies of the requests that have come.
  var questions: [JSON] { endpoint.questions }
  /// Their `Authorization`.
  var authorizations: [String?] { endpoint.authorizations }
  /// The prompts in them.
  var prompts: [String] { questions.compactMap { $0["messages"]?[1]?["content"]?.text } }
  /// The instructions in them.
  var instructions: [String] { questions.compactMap { $0["messages"]?[0]?["content"]?.text } }

  /// An answer of OpenAI's API.
  static func says(_ text: String, finishReason: String = "stop") -> Response {
    let choice: JSON = [
      "index": 0, "finish_reason": .string(finishReason), "message": ["role": "assistant", "content": .string(text)],
    ]
    return JSONEndpoint.answer(
      String(decoding: JSON.object(["object": "chat.completion", "choices": [choice]]).bytes, as: UTF8.self))
  }

  /// Runs `body` with the settings of a gateway that asks it.
  func settings(
    _ change: @escaping @Sendable (inout EnhancementSettings) -> Void = { _ in },
    _ body: @escaping @Sendable (EnhancementSettings) async throws -> Void
  ) async throws {
    try await endpoint.serving { address in
      var settings = EnhancementSettings()
      settings.url = "\(address)/v1"
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
