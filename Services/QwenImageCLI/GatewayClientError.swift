import Foundation
import HTTPClient

/// What can go wrong between this program and a gateway.
enum GatewayClientError: Error, CustomStringConvertible {
  case badAddress(source: String, text: String, reason: String)
  case unreachable(GatewayAddress, reason: String)
  case brokenConnection(GatewayAddress, reason: String)
  case silent(GatewayAddress, seconds: Double)
  case notGateway(GatewayAddress, reason: String)
  case redirected(GatewayAddress, location: String)
  case refused(status: Int, message: String, retryAfterSeconds: Int?)
  case unauthorized(message: String, hadKey: Bool)
  case unsendable(reason: String)
  case failed(message: String)
  case incomplete
  case noSize(reason: String)
  case tooLong(limitBytes: Int)

  var description: String {
    switch self {
    case .badAddress(let source, let text, let reason): "\(source): \(text.isEmpty ? "the address" : text) \(reason)"
    case .unreachable(let address, let reason):
      "no gateway can be reached at \(address): \(reason). Start one (./compose/quickstart.sh --keep, or "
        + "docker compose -f compose/compose.yaml up -d --wait), or name another with --gateway or QWEN_IMAGE_GATEWAY."
    case .brokenConnection(let address, let reason): "the connection to the gateway at \(address) broke: \(reason)"
    case .silent(let address, let seconds):
      "the gateway at \(address) has not answered for \(seconds.formatted()) s; --timeout sets how long to wait"
    case .notGateway(let address, let reason): "there is no gateway at \(address): \(reason)"
    case .redirected(let address, let location):
      "the server at \(address) redirects to \(location); name that address with --gateway"
    case .refused(let status, let message, let seconds):
      "the gateway refused the request (\(status)): \(message)" + (seconds.map { "; try again in \($0) s" } ?? "")
    case .unauthorized(let message, let hadKey):
      hadKey
        ? "the gateway does not take this API key (401): \(message)"
        : "the gateway asks for an API key (401); give it with --api-key or QWEN_IMAGE_API_KEY"
    case .unsendable(let reason): reason
    case .failed(let message): "the cluster could not draw the image: \(message)"
    case .incomplete: "the gateway closed the connection before the image was complete"
    case .noSize(let reason): "\(reason); give both --width and --height"
    case .tooLong(let limit): "the gateway sent an event of more than \(limit) bytes"
    }
  }
}

extension GatewayClient {
  /// What an error of the libraries below means to a user; other errors as they are.
  func explained(_ error: any Error) -> any Error {
    switch error {
    case let error as HTTPClientError: explained(error)
    case is DecodingError: GatewayClientError.notGateway(address, reason: "its answer lacks what a gateway's has")
    default: error
    }
  }

  private func explained(_ error: HTTPClientError) -> GatewayClientError {
    switch error.kind {
    case .unreachable: .unreachable(address, reason: Self.reason(error))
    case .forbiddenAddress: .unreachable(address, reason: error.message)
    case .connectTimedOut: .unreachable(address, reason: "no answer within \(connectTimeoutSeconds.formatted()) s")
    case .timedOut: .silent(address, seconds: timeoutSeconds)
    case .broken: .brokenConnection(address, reason: "the other side has closed it (\(error))")
    case .noHTTP:
      .notGateway(address, reason: "what answers there does not speak HTTP; if it speaks TLS, write https://")
    case .noTLS: .notGateway(address, reason: "what answers there does not speak TLS; try http:// instead")
    case .untrusted: .notGateway(address, reason: "its certificate is not one that this machine trusts")
    case .tooLong: .notGateway(address, reason: "its answer is longer than \(Self.maxAnswerBytes) bytes")
    case .badRequest: .unsendable(reason: "--api-key or --key holds a character that a request cannot carry")
    }
  }

  /// The system's words, with which those of the HTTP client end:
  /// "Failed to connect to HOST port PORT after 0 ms: Couldn't connect to server: Connection refused".
  private static func reason(_ error: HTTPClientError) -> String {
    let text = error.message
    if text.contains("resolve host") { return "its host is not known" }
    return text.contains(": ") ? String(text.split(separator: ": ").last ?? "") : "nothing listens there (\(text))"
  }

  /// Why an answer other than a success came.
  func refusal(_ response: HTTPClient.Response) async -> GatewayClientError {
    let status = response.status
    if (300..<400).contains(status), let location = response.header("location") {
      return .redirected(address, location: String(location.prefix(200)))
    }
    guard let message = Self.message(in: await Self.beginning(of: response)) else {
      let type = response.header("content-type").map { " and \($0.prefix(80))" } ?? ""
      let hint = [502, 503, 504].contains(status) ? "; perhaps a proxy whose gateway is away" : ""
      return .notGateway(
        address, reason: "what answers there sent the status \(status)\(type)\(hint)")
    }
    if status == 401 { return .unauthorized(message: message, hadKey: apiKey != nil) }
    let seconds = response.header("retry-after").flatMap { Int($0) }.flatMap {
      (0...86_400).contains($0) ? $0 : nil
    }
    return .refused(status: status, message: message, retryAfterSeconds: seconds)
  }

  /// The first bytes of a body, enough for an error.
  private static func beginning(of response: HTTPClient.Response) async -> Data {
    var bytes = Data()
    do {
      for try await chunk in response.body where bytes.count < maxErrorBytes { bytes += chunk }
    } catch {}
    return bytes.prefix(maxErrorBytes)
  }

  private static let maxErrorBytes = 64 << 10

  /// The message of an error in the shape of OpenAI's, which is a gateway's; nil: it has another shape.
  static func message(in data: Data) -> String? {
    struct Body: Decodable {
      struct Problem: Decodable { let message: String }
      let error: Problem
    }
    return (try? JSONDecoder().decode(Body.self, from: data)).map { String($0.error.message.prefix(2000)) }
  }
}
