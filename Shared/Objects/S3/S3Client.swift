import Foundation
import HTTPClient
import Hashing
import Synchronization

/// Signs requests, sends them, and repeats those that failed for a reason that may pass.
///
/// * Repeated: connections that break, time limits, 408, 429 and 5xx, uploads that arrived damaged. The pause is chosen
///   at random below a bound that doubles ("full jitter"), or what the server asks for in `Retry-After`.
/// * Every repetition takes from a budget that successes fill again, so that a server which is down is not asked many
///   times as often as one that works.
/// * A wrong clock is corrected by the server's, credentials that were replaced are read again, each once.
final class S3Client: Sendable {
  struct Call: Sendable {
    var method: String
    /// In the bucket.
    var key = ""
    var query: [(String, String)] = []
    var headers: [(String, String)] = []
    var body: Data?
    /// Of the answer.
    var maxBodyBytes = 64 << 10
    /// Of the request and the answer, for the time limit.
    var byteCount = 0
  }

  private struct State {
    /// Repetitions that may be made now, in fifths.
    var budget = S3Client.fullBudget
    /// The server's clock less this machine's.
    var clockOffset = 0.0
  }

  private static let fullBudget = 500
  private static let repetitionCost = 5
  private static let timeoutCost = 10
  private static let maxAttempts = 6

  let settings: S3Settings
  let address: S3Settings.Address
  private let credentials: S3CredentialSource
  private let http: HTTPClient
  private let state = Mutex(State())

  init(_ settings: S3Settings, credentials: S3CredentialSource, maxConnections: Int) throws(ObjectError) {
    self.settings = settings
    self.credentials = credentials
    address = try settings.address()
    http = HTTPClient(
      userAgent: "qwen-image-cluster", connectTimeout: .seconds(5), maxRedirections: 0,
      maxConnectionsPerHost: maxConnections)
  }

  func close() { http.shutDown() }

  /// What an object is called in messages.
  func name(_ key: String) -> String { "s3://\(settings.bucket)/\(key)" }

  // MARK: Attempts

  private enum Outcome {
    case answer(S3Answer)
    case final(ObjectError)
    case again(ObjectError, after: Duration?, cost: Int)
  }

  /// - Returns: an answer with a status below 300, or 404 of an object.
  /// - Throws: anything but `missing`.
  func send(_ call: Call) async throws(ObjectError) -> S3Answer {
    let start = ContinuousClock.now
    let end = start + settings.timeout + .seconds(call.byteCount >> 20)
    var mayRenew = true
    for attempt in 0... {
      let left = end - .now
      let limit = max(.milliseconds(100), min(left, settings.timeout / 2 + .seconds(call.byteCount >> 20)))
      switch await self.attempt(call, timeout: limit, mayRenew: &mayRenew) {
      case .answer(let answer):
        state.withLock { $0.budget = min($0.budget + 1, Self.fullBudget) }
        return answer
      case .final(let error): throw error
      case .again(let error, let asked, let cost):
        let bound = Duration.milliseconds(100 << min(attempt, 5))
        let pause = asked ?? .nanoseconds(Int64.random(in: 0...bound.nanoseconds))
        let isAffordable = state.withLock { state in
          guard state.budget >= cost else { return false }
          state.budget -= cost
          return true
        }
        guard isAffordable, attempt + 1 < Self.maxAttempts, .now + pause < end else { throw error }
        do { try await Task.sleep(for: pause) } catch { throw .unavailable("cancelled") }
      }
    }
    throw .unavailable("\(name(call.key)) could not be asked for")
  }

  private func attempt(_ call: Call, timeout: Duration, mayRenew: inout Bool) async -> Outcome {
    let what = "\(call.method) \(name(call.key)) at \(address.scheme)://\(address.host)"
    let secrets: S3Credentials
    do throws(ObjectError) { secrets = try credentials.current() } catch { return .final(error) }
    let answer: S3Answer
    do {
      answer = try await exchange(call, secrets, timeout)
    } catch let error as HTTPClientError {
      let text = "\(what): \(Self.withoutSecrets(error.message, secrets))"
      return switch error.kind {
      case .badRequest: .final(.settings(text))
      case .untrusted, .noTLS: .final(.refused(text))
      case .tooLong: .final(.corrupt("\(what): the object is larger than it was"))
      case .timedOut, .connectTimedOut: .again(.unavailable(text), after: nil, cost: Self.timeoutCost)
      case .unreachable, .noHTTP, .forbiddenAddress, .broken:
        .again(.unavailable(text), after: nil, cost: Self.repetitionCost)
      }
    } catch {
      return .final(.unavailable("\(what): cancelled"))
    }
    let said = [answer.code, answer.message].filter { !$0.isEmpty }.joined(separator: ": ")
    let text = Self.withoutSecrets("\(what): \(answer.status) \(said)", secrets)
    return judge(answer, text, &mayRenew)
  }

  private func judge(_ answer: S3Answer, _ text: String, _ mayRenew: inout Bool) -> Outcome {
    func renewed() -> Outcome {
      guard mayRenew else { return .final(.refused(text)) }
      mayRenew = false
      return .again(.refused(text), after: .zero, cost: Self.repetitionCost)
    }
    switch (answer.status, answer.code) {
    case (200..<300, _): return .answer(answer)
    case (404, "NoSuchBucket"): return .final(.refused(text))
    case (404, _): return .answer(answer)
    case (_, "RequestTimeTooSkewed"):
      if let date = answer.date { state.withLock { $0.clockOffset = date.timeIntervalSinceNow } }
      return renewed()
    // Credentials may have been replaced a moment ago.
    case (403, _), (_, "ExpiredToken"), (_, "InvalidToken"): return renewed()
    case (507, _): return .final(.full(text))
    case (408, _), (429, _), (500..., _),
      (400, "RequestTimeout"), (400, "BadDigest"), (400, "IncompleteBody"), (400, "XAmzContentSHA256Mismatch"),
      (400, "XAmzContentChecksumMismatch"):
      return .again(.unavailable(text), after: answer.retryAfter, cost: Self.repetitionCost)
    case (300..<400, _):
      let region = answer.header("x-amz-bucket-region").map { "; the bucket is in the region \($0.prefix(64))" } ?? ""
      return .final(.refused(text + region))
    default: return .final(.refused(text))
    }
  }

  private func exchange(_ call: Call, _ secrets: S3Credentials, _ timeout: Duration) async throws -> S3Answer {
    let date = Date(timeIntervalSinceNow: state.withLock(\.clockOffset))
    let path = address.path + call.key
    let body = call.body.map { Array($0) }
    let signature = S3Signature(credentials: secrets, region: settings.region)
    let query = S3Signature.encoded(call.query)
    var request = HTTPClient.Request(
      "\(address.scheme)://\(address.host)\(S3Signature.encoded(path, keepsSlashes: true))"
        + (query.isEmpty ? "" : "?\(query)"), method: call.method, timeout: timeout)
    request.headers = signature.headers(
      method: call.method, host: address.host, path: path, query: call.query, headers: call.headers,
      payloadSHA256: hexadecimal(SHA256.hash(body ?? [])), date: date)
    request.body = body
    let response = try await http.execute(request)
    // Errors are described in a body as well.
    let limit = response.status < 300 ? call.maxBodyBytes : max(call.maxBodyBytes, 64 << 10)
    return S3Answer(
      status: response.status, headers: response.headers, body: try await response.body.collect(upTo: limit))
  }

  private static func withoutSecrets(_ text: String, _ credentials: S3Credentials) -> String {
    [credentials.secretAccessKey, credentials.sessionToken ?? ""].filter { !$0.isEmpty }.reduce(text) {
      $0.replacingOccurrences(of: $1, with: "…")
    }
  }
}

extension Duration {
  /// In nanoseconds.
  fileprivate var nanoseconds: Int64 { Int64(self / .nanoseconds(1)) }
}
