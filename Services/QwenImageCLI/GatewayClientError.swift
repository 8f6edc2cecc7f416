import AsyncHTTPClient
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix

/// What can go wrong between this program and a gateway.
enum GatewayClientError: Error, CustomStringConvertible {
  case badAddress(source: String, text: String, reason: String)
  case unreachable(GatewayAddress, reason: String)
  case brokenConnection(GatewayAddress, reason: String)
  case silent(GatewayAddress, seconds: Double)
  case notGateway(GatewayAddress, reason: String)
  case redirected(GatewayAddress, location: String)
  case refused(status: UInt, message: String, retryAfterSeconds: Int?)
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
    case let error as NIOConnectionError:
      guard let first = error.connectionErrors.first?.error else {
        return GatewayClientError.unreachable(address, reason: "the host \(error.host) is not known")
      }
      return GatewayClientError.unreachable(address, reason: Self.reason(first))
    case let error as IOError where [ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, ETIMEDOUT].contains(error.errnoCode):
      return GatewayClientError.unreachable(address, reason: Self.reason(error))
    case let error as IOError: return GatewayClientError.brokenConnection(address, reason: Self.reason(error))
    case let error as HTTPClientError: return explained(error)
    case is HTTPParserError:
      return GatewayClientError.notGateway(
        address, reason: "what answers there does not speak HTTP; if it speaks TLS, write https://")
    case is NIOTooManyBytesError:
      return GatewayClientError.notGateway(address, reason: "its answer is longer than \(Self.maxAnswerBytes) bytes")
    case is DecodingError:
      return GatewayClientError.notGateway(address, reason: "its answer lacks what a gateway's has")
    // The library's types for TLS are not among this program's dependencies.
    case let error where String(reflecting: type(of: error)).hasPrefix("NIOSSL."):
      let isUntrusted = "\(error)".contains("CERTIFICATE_VERIFY_FAILED")
      let reason =
        isUntrusted
        ? "its certificate is not one that this machine trusts"
        : "what answers there does not speak TLS; try http:// instead"
      return GatewayClientError.notGateway(address, reason: reason)
    default: return error
    }
  }

  private func explained(_ error: HTTPClientError) -> any Error {
    switch error {
    case .connectTimeout, .tlsHandshakeTimeout, .getConnectionFromPoolTimeout:
      return GatewayClientError.unreachable(address, reason: "no answer within \(connectTimeoutSeconds.formatted()) s")
    case .readTimeout, .deadlineExceeded: return GatewayClientError.silent(address, seconds: timeoutSeconds)
    case .remoteConnectionClosed, .uncleanShutdown:
      return GatewayClientError.brokenConnection(address, reason: "the other side has closed it")
    default:
      guard "\(error)".contains("invalidHeaderField") else { return error }
      return GatewayClientError.unsendable(reason: "--api-key or --key holds a character that a request cannot carry")
    }
  }

  private static func reason(_ error: any Error) -> String {
    guard let error = error as? IOError else { return error is ChannelError ? "no answer" : "\(error)" }
    return String(cString: strerror(error.errnoCode))
  }

  /// Why an answer other than a success came.
  func refusal(_ response: HTTPClientResponse) async -> GatewayClientError {
    let status = response.status
    if (300..<400).contains(status.code), let location = response.headers.first(name: "location") {
      return .redirected(address, location: String(location.prefix(200)))
    }
    guard let message = Self.message(in: await Self.beginning(of: response)) else {
      let type = response.headers.first(name: "content-type").map { " and \($0.prefix(80))" } ?? ""
      let hint = [502, 503, 504].contains(status.code) ? "; perhaps a proxy whose gateway is away" : ""
      return .notGateway(
        address, reason: "what answers there sent \(status.code) \(status.reasonPhrase.prefix(80))\(type)\(hint)")
    }
    if status == .unauthorized { return .unauthorized(message: message, hadKey: apiKey != nil) }
    let seconds = response.headers.first(name: "retry-after").flatMap { Int($0) }.flatMap {
      (0...86_400).contains($0) ? $0 : nil
    }
    return .refused(status: status.code, message: message, retryAfterSeconds: seconds)
  }

  /// The first bytes of a body, enough for an error.
  private static func beginning(of response: HTTPClientResponse) async -> Data {
    var bytes = Data()
    do {
      for try await chunk in response.body where bytes.count < maxErrorBytes { bytes += chunk.readableBytesView }
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
