import ClusterCore
import Foundation
import GatewayAPI
import GatewayDispatch
import GatewayPipelines
import HTTPClient
import ImageCodec
import Logging
import Settings
import StrictJSON
import Wire

/// Where prompts and images are judged, if anywhere.
public struct ContentFilterSettings: SettingGroup {
  /// The address that judges; empty: nothing is judged.
  public var url = ""
  /// How long a judgement may take.
  public var timeout = Duration.seconds(10)
  /// Whether what was not judged is let through.
  public var failsOpen = false
  /// Whether finished images are judged as well.
  public var judgesResults = true

  /// The defaults.
  public init() {}

  /// Reads every setting.
  public mutating func read(_ reader: inout SettingReader) async {
    url = await reader.text(
      "filter.url", url,
      "address that is asked with POST whether a request may be carried out, and whether its images may be delivered; "
        + "without one, neither is judged")
    timeout = await reader.seconds(
      "filter.timeoutSeconds", timeout, in: 0.1...600, "how long one answer of filter.url may take")
    failsOpen = await reader.flag(
      "filter.failOpen", failsOpen, "let through what filter.url gives no answer about, instead of refusing it")
    judgesResults = await reader.flag("filter.results", judgesResults, "ask filter.url about finished images as well")
    let parts = URLComponents(string: url)
    let isAddress = ["http", "https"].contains(parts?.scheme?.lowercased()) && parts?.host?.isEmpty == false
    if !url.isEmpty, !isAddress || parts?.user != nil || parts?.fragment != nil {
      reader.complain(
        "filter.url is \"\(url)\", but must be http:// or https:// with a host, without a user and a fragment")
    }
  }

  /// The filter; nil: nothing is judged.
  package func filter(logger: Logger) -> (any ContentReviewer)? {
    url.isEmpty ? nil : ContentFilter(self, logger: logger)
  }
}

/// Asks an HTTP endpoint of the operator's.
final class ContentFilter: ContentReviewer {
  /// Longest answer in bytes.
  static let maxAnswerBytes = 64 << 10
  /// Longest reason in an answer, in characters; the rest is cut.
  static let maxReasonCharacters = 500
  /// How often a finished image is asked about, when there is no answer: it has cost more than a prompt.
  static let resultAttempts = 3
  private static let resultPause = Duration.seconds(1)

  var judgesResults: Bool { settings.judgesResults }

  private let settings: ContentFilterSettings
  private let client: HTTPClient
  private let time: any TimeSource
  private let logger: Logger

  init(_ settings: ContentFilterSettings, time: any TimeSource = SystemTime(), logger: Logger) {
    self.settings = settings
    self.time = time
    self.logger = logger
    client = HTTPClient(
      userAgent: "qwen-image-gateway/\(SoftwareVersion.current)", connectTimeout: settings.timeout, maxRedirections: 0,
      maxBufferedBytes: Self.maxAnswerBytes)
  }

  deinit { client.shutDown() }

  func review(_ request: JobRequest, job: String) async throws(Status) {
    let question = Question(request.images[0], phase: "request", job: job)
    let answer: Answer
    do { answer = try await ask(question) } catch {
      return try pass(because: error, job: job, else: .unavailable)
    }
    try check(answer, "request", field: APIError.promptField, job: job)
  }

  func review(_ result: WireTensor, of image: ImageSpec, job: String, index: Int) async throws(Status) {
    guard settings.judgesResults else { return }
    var question = Question(image, phase: "result", job: job)
    question.index = index
    question.images = result.bytes.withUnsafeBytes { bytes in
      let files = image.fileCount > 1 ? PNG.files(in: bytes) : [0..<bytes.count]
      return files.map {
        Question.Image(
          mediaType: image.encoding.format.mediaType, b64Json: Data(bytes[$0]).base64EncodedString())
      }
    }
    var attempt = 1
    while true {
      let answer: Answer
      do { answer = try await ask(question) } catch {
        guard attempt < Self.resultAttempts, !Task.isCancelled else {
          // Nothing would be gained by having the image made again.
          return try pass(because: error, job: job, else: .deadlineExceeded)
        }
        attempt += 1
        try? await time.sleep(for: Self.resultPause)
        continue
      }
      return try check(answer, "image", field: APIError.resultField, job: job)
    }
  }

  // MARK: Question and answer

  private struct Question: Encodable {
    struct Image: Encodable {
      var mediaType: String
      var b64Json: String
    }
    var phase: String
    var job: String
    var model: String
    var pipeline: String
    var prompt: String
    /// What the client has sent, where `prompt` is what was made of it.
    var originalPrompt: String?
    var negativePrompt: String?
    var index: Int?
    var images: [Image]?

    init(_ image: ImageSpec, phase: String, job: String) {
      self.phase = phase
      self.job = job
      model = image.card.model.id
      pipeline = image.pipeline.text
      prompt = image.prompt
      originalPrompt = image.originalPrompt
      negativePrompt = image.negativePrompt
    }
  }

  private struct Answer {
    var isAllowed: Bool
    var reason: String
  }

  /// Why there is no judgement.
  private struct NoAnswer: Error, CustomStringConvertible {
    let description: String
  }

  private func ask(_ question: Question) async throws -> Answer {
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    var request = HTTPClient.Request(settings.url, method: "POST", timeout: settings.timeout)
    request.headers = [("content-type", "application/json"), ("accept", "application/json")]
    request.body = Array(try encoder.encode(question))
    let response = try await client.execute(request)
    guard response.status == 200 else { throw NoAnswer(description: "it answers with status \(response.status)") }
    let body = try await response.body.collect(upTo: Self.maxAnswerBytes)
    guard let json = try? JSON(body), case .bool(let isAllowed) = json["allowed"] else {
      throw NoAnswer(description: "its answer is no JSON object with a boolean \"allowed\"")
    }
    return Answer(isAllowed: isAllowed, reason: Self.line(json["reason"]?.text ?? ""))
  }

  /// A text for a message: of one line, and not too long.
  private static func line(_ text: String) -> String {
    let characters = text.unicodeScalars.map { $0.properties.generalCategory == .control ? " " : Character($0) }
    return String(String(characters).prefix(maxReasonCharacters))
  }

  private func check(_ answer: Answer, _ what: String, field: String, job: String) throws(Status) {
    guard !answer.isAllowed else { return }
    logger.info("the content filter refuses", metadata: ["job": "\(job)", "what": "\(what)"])
    let reason = answer.reason.isEmpty ? "" : ": \(answer.reason)"
    throw Status(.permissionDenied, "the content filter refuses the \(what)\(reason)", field: field)
  }

  /// Lets what was not judged through, if that is wanted; else it is refused with `code`.
  private func pass(because error: any Error, job: String, else code: StatusCode) throws(Status) {
    logger.warning(
      "the content filter gives no answer",
      metadata: ["job": "\(job)", "reason": "\(error)", "letThrough": "\(settings.failsOpen)"])
    guard !settings.failsOpen else { return }
    throw Status(
      code, "the content filter gives no answer, and without one there are no images",
      retryAfterSeconds: code.allowsAnotherRequest ? 10 : nil)
  }
}
