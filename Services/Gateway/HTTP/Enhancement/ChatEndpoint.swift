import HTTPClient
import Settings
import StrictJSON

/// A chat endpoint that speaks OpenAI's API.
struct ChatEndpoint: Sendable {
  /// Longest answer in bytes, with what surrounds its text.
  static let maxAnswerBytes = 1 << 20
  private static let maxDepth = 32, maxValues = 20_000

  private let url: String
  private let model: String
  private let apiKey: String?
  private let timeout: Duration
  private let maxTokens: Int
  private let client: HTTPClient

  init(_ settings: EnhancementSettings, apiKey: String?) {
    url = settings.endpoint
    model = settings.model
    self.apiKey = apiKey
    timeout = settings.timeout
    maxTokens = settings.maxTokens
    client = HTTPClient(
      userAgent: "qwen-image-gateway/\(SoftwareVersion.current)", connectTimeout: settings.timeout, maxRedirections: 0,
      maxConnectionsPerHost: settings.maxConcurrent)
  }

  /// What the model says to `text`.
  ///
  /// - Throws: ``NoPrompt`` for an answer that has no text, or not all of it; else what the client throws.
  func answer(to text: String, instructions: String) async throws -> String {
    var question: JSONObject = ["model": .string(model), "stream": false]
    question["messages"] = [
      ["role": "system", "content": .string(instructions)], ["role": "user", "content": .string(text)],
    ]
    if maxTokens > 0 { question["max_tokens"] = JSON(maxTokens) }
    var request = HTTPClient.Request(url, method: "POST", timeout: timeout)
    request.headers = [("content-type", "application/json"), ("accept", "application/json")]
    if let apiKey { request.headers.append(("authorization", "Bearer \(apiKey)")) }
    request.body = JSON.object(question).bytes
    let response = try await client.execute(request)
    guard response.status == 200 else { throw NoPrompt("it answers with status \(response.status)") }
    let body = try await response.body.collect(upTo: Self.maxAnswerBytes)
    guard let answer = try? JSON(body, maxDepth: Self.maxDepth, maxValues: Self.maxValues),
      let choice = answer["choices"]?[0], let content = choice["message"]?["content"]?.text
    else { throw NoPrompt("its answer is no JSON object with a text at choices[0].message.content") }
    guard choice["finish_reason"]?.text != "length" else { throw NoPrompt("its answer was cut off at its length") }
    return content
  }
}

/// Why there is no rewritten prompt.
package struct NoPrompt: Error, Hashable, CustomStringConvertible {
  package let description: String

  init(_ description: String) { self.description = description }
}
