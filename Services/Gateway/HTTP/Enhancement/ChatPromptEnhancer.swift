import ClusterCore
import Foundation
import GatewayDispatch
import GatewayPipelines
import Hashing
import Logging
import Metrics

/// Has prompts rewritten by a chat endpoint of the operator's. Equal prompts are asked about once: at the same time,
/// and later as long as the answer is kept.
actor ChatPromptEnhancer: PromptEnhancer {
  /// How often an endpoint is asked that does answer, but with nothing that can be used.
  private static let attempts = 2
  /// Questions that wait, for each that may be asked at a time.
  private static let waitingPerConcurrent = 4

  private struct Kept {
    var prompt: String
    /// The higher, the later it was asked for.
    var lastUse: UInt64
  }

  /// What clients learn of a failure.
  private static let message =
    "the prompt could not be rewritten: the chat endpoint of this server gives no usable answer; send the request "
    + "again later, or without \(PromptEnhancement.field)"

  private let settings: EnhancementSettings
  private let endpoint: ChatEndpoint
  private let logger: Logger
  private var kept: [Data: Kept] = [:]
  private var useCount: UInt64 = 0
  private var pending: [Data: Task<Result<String, NoPrompt>, Never>] = [:]
  private var askingCount = 0
  private var waiting: [CheckedContinuation<Void, Never>] = []

  init(_ settings: EnhancementSettings, _ endpoint: ChatEndpoint, logger: Logger) {
    self.settings = settings
    self.endpoint = endpoint
    self.logger = logger
  }

  func enhanced(_ request: JobRequest, job: String) async throws(Status) -> JobRequest {
    guard let enhancement = request.enhancement else { return request }
    let maxBytes = request.images[0].card.limits.maxPromptBytes
    do throws(NoPrompt) {
      var prompts: [String] = []
      for part in enhancement.parts {
        prompts.append(
          try await prompt(for: part.prompt, EnhancementTemplate(part.purpose, for: part.prompt), maxBytes: maxBytes))
      }
      guard let enhanced = request.enhanced(with: prompts) else {
        throw NoPrompt("its answer is longer than the model allows")
      }
      return enhanced
    } catch {
      Self.count("failed")
      logger.warning(
        "a prompt could not be rewritten",
        metadata: ["job": "\(job)", "reason": "\(error)", "usedAsItIs": "\(settings.failsOpen)"])
      guard settings.failsOpen else {
        throw Status(.unavailable, Self.message, field: PromptEnhancement.field, retryAfterSeconds: 10)
      }
      return request.unenhanced
    }
  }

  private static func count(_ outcome: String) {
    Counter(label: "qwenimage_gateway_prompt_enhancements_total", dimensions: [("outcome", outcome)]).increment()
  }

  private func prompt(
    for text: String, _ template: EnhancementTemplate, maxBytes: Int
  ) async throws(NoPrompt) -> String {
    let key = Data(
      SHA256.hash("\(settings.model)\u{0}\(template.instructions)\u{0}\(maxBytes)\u{0}\(text)".utf8))
    if let prompt = kept[key]?.prompt {
      keep(prompt, key)
      Self.count("cached")
      return prompt
    }
    if let asked = pending[key] { return try await asked.value.get() }
    guard pending.count < settings.maxConcurrent * (1 + Self.waitingPerConcurrent) else {
      throw NoPrompt("\(pending.count) questions are being asked or wait already")
    }
    // Others may be waiting for it when its own client has left.
    let question = Task { await ask(text, template, maxBytes: maxBytes) }
    pending[key] = question
    let result = await question.value
    pending[key] = nil
    let prompt = try result.get()
    keep(prompt, key)
    Self.count("rewritten")
    return prompt
  }

  private func ask(_ text: String, _ template: EnhancementTemplate, maxBytes: Int) async -> Result<String, NoPrompt> {
    await begin()
    defer { end() }
    var problem = NoPrompt("it was not asked")
    for _ in 1...Self.attempts {
      let answer: String
      do {
        answer = try await endpoint.answer(to: text, instructions: template.instructions)
      } catch {
        return .failure(error as? NoPrompt ?? NoPrompt("\(error)"))
      }
      do throws(NoPrompt) {
        return .success(try PromptAnswer.prompt(of: answer, for: text, maxBytes: maxBytes))
      } catch { problem = error }
    }
    return .failure(problem)
  }

  // MARK: Questions at a time

  private func begin() async {
    if askingCount < settings.maxConcurrent {
      askingCount += 1
    } else {
      await withCheckedContinuation { waiting.append($0) }
    }
  }

  /// The one that has waited longest takes the place.
  private func end() {
    if waiting.isEmpty { askingCount -= 1 } else { waiting.removeFirst().resume() }
  }

  // MARK: What is kept

  private func keep(_ prompt: String, _ key: Data) {
    guard settings.maxCached > 0 else { return }
    useCount += 1
    kept[key] = Kept(prompt: prompt, lastUse: useCount)
    guard kept.count > settings.maxCached else { return }
    if let oldest = kept.min(by: { $0.value.lastUse < $1.value.lastUse })?.key { kept[oldest] = nil }
  }
}
