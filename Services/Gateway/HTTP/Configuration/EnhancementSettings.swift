import Foundation
import GatewayDispatch
import Logging
import Settings

/// Where prompts are rewritten, if anywhere.
public struct EnhancementSettings: SettingGroup {
  /// The address of the chat endpoint; empty: no prompt is rewritten.
  public var url = ""
  /// The model that the endpoint is asked for.
  public var model = ""
  /// The file with the key that the endpoint asks for; empty: none.
  public var apiKeyFile = ""
  /// How long one answer may take.
  public var timeout = Duration.seconds(30)
  /// Questions at a time.
  public var maxConcurrent = 4
  /// Rewritten prompts that are kept.
  public var maxCached = 1000
  /// Tokens that an answer may have; 0: the endpoint's own limit.
  public var maxTokens = 1024
  /// Whether a prompt that could not be rewritten is used as it was sent.
  public var failsOpen = false

  /// A larger file holds no key.
  private static let maxKeyBytes = 4096

  /// The defaults.
  public init() {}

  /// Reads every setting; the file is read by ``check()``.
  public mutating func read(_ reader: inout SettingReader) async {
    url = await reader.text(
      "enhancement.url", url,
      "OpenAI-compatible chat endpoint that rewrites the prompts of requests with enhance_prompt, such as "
        + "http://127.0.0.1:11434/v1, to which /chat/completions is added unless it ends with that; without one, such "
        + "requests are refused")
    model = await reader.text("enhancement.model", model, "the model that enhancement.url is asked for")
    apiKeyFile = await reader.text(
      "enhancement.apiKeyFile", apiKeyFile, "file with the API key that enhancement.url asks for, if it does")
    timeout = await reader.seconds(
      "enhancement.timeoutSeconds", timeout, in: 0.1...600, "how long one answer of enhancement.url may take")
    maxConcurrent = await reader.integer(
      "enhancement.maxConcurrent", maxConcurrent, in: 1...256,
      "questions to enhancement.url at a time; four times as many wait, and more are refused with 503")
    maxCached = await reader.integer(
      "enhancement.maxCached", maxCached, in: 0...10_000, "rewritten prompts that are kept for equal ones")
    maxTokens = await reader.integer(
      "enhancement.maxTokens", maxTokens, in: 0...100_000,
      "tokens that an answer may have, with what the model thinks before; 0: as enhancement.url sets it")
    failsOpen = await reader.flag(
      "enhancement.failOpen", failsOpen,
      "use a prompt as it was sent when enhancement.url gives no usable answer, instead of refusing the request")
    checkAddress(&reader)
  }

  private func checkAddress(_ reader: inout SettingReader) {
    guard !url.isEmpty else {
      for (name, value) in [("model", model), ("apiKeyFile", apiKeyFile)] where !value.isEmpty {
        reader.complain("enhancement.\(name) is \"\(value)\", but without enhancement.url no prompt is rewritten")
      }
      return
    }
    let parts = URLComponents(string: url)
    let isAddress = ["http", "https"].contains(parts?.scheme?.lowercased()) && parts?.host?.isEmpty == false
    if !isAddress || parts?.user != nil || parts?.fragment != nil {
      reader.complain(
        "enhancement.url is \"\(url)\", but must be http:// or https:// with a host, without a user and a fragment")
    }
    if model.isEmpty { reader.complain("enhancement.url needs enhancement.model, the model that it is asked for") }
  }

  /// The address that is asked: that of the chat endpoint itself.
  package var endpoint: String {
    let path = "/chat/completions"
    guard var parts = URLComponents(string: url), !parts.path.hasSuffix(path) else { return url }
    parts.path += parts.path.hasSuffix("/") ? String(path.dropFirst()) : path
    return parts.string ?? url
  }

  /// Reads and checks the file.
  ///
  /// - Throws: when it cannot be read, or holds no key.
  public func check() throws(SettingError) { _ = try apiKey() }

  /// The key; nil: none is sent.
  private func apiKey() throws(SettingError) -> String? {
    guard !apiKeyFile.isEmpty else { return nil }
    let data: Data
    do {
      let file = try FileHandle(forReadingFrom: URL(filePath: apiKeyFile))
      data = try file.read(upToCount: Self.maxKeyBytes + 1) ?? Data()
    } catch {
      throw SettingError(problems: ["enhancement.apiKeyFile is \(apiKeyFile), which cannot be read"])
    }
    let key = String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
    guard data.count <= Self.maxKeyBytes, !key.isEmpty, key.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
      throw SettingError(problems: [
        "enhancement.apiKeyFile is \(apiKeyFile), which must hold one line of visible ASCII characters, "
          + "\(Self.maxKeyBytes) bytes at most"
      ])
    }
    return key
  }

  /// What rewrites prompts; nil: nothing does.
  ///
  /// - Throws: as ``check()`` does.
  package func enhancer(logger: Logger) throws(SettingError) -> (any PromptEnhancer)? {
    let key = try apiKey()
    return url.isEmpty ? nil : ChatPromptEnhancer(self, ChatEndpoint(self, apiKey: key), logger: logger)
  }
}
