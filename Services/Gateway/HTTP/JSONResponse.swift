import ClusterCore
import Foundation
import GatewayAPI
import HTTPTypes
import Hummingbird

/// The shape of every error: what OpenAI's clients expect.
struct ErrorEnvelope: Encodable {
  struct Body: Encodable {
    var message: String
    var type: String
    var param: String?
    var code: String

    enum CodingKeys: CodingKey {
      case message, type, param, code
    }

    func encode(to encoder: any Encoder) throws {
      var container = encoder.container(keyedBy: CodingKeys.self)
      try container.encode(message, forKey: .message)
      try container.encode(type, forKey: .type)
      // Present even when it is null.
      try container.encode(param, forKey: .param)
      try container.encode(code, forKey: .code)
    }
  }
  var error: Body

  init(_ error: APIError) {
    self.error = Body(message: error.message, type: error.code.row.type, param: error.param, code: error.code.rawValue)
  }
}

enum JSONOutput {
  /// One line of JSON, with its keys in order.
  static func encode(_ value: some Encodable) throws -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    encoder.keyEncodingStrategy = .convertToSnakeCase
    return try encoder.encode(value)
  }
}

extension Response {
  /// `value` as a JSON body.
  static func json(_ value: some Encodable, status: HTTPResponse.Status = .ok) throws -> Response {
    Response(
      status: status, headers: [.contentType: "application/json"],
      body: ResponseBody(byteBuffer: ByteBuffer(bytes: try JSONOutput.encode(value))))
  }

  /// `error` with the status and headers of its row in the table.
  static func error(_ error: APIError) throws -> Response {
    let row = error.code.row
    var response = try json(ErrorEnvelope(error), status: row.status)
    if let seconds = error.retryAfterSeconds { response.headers[.retryAfter] = "\(seconds)" }
    if row.status == .unauthorized { response.headers[.wwwAuthenticate] = "Bearer" }
    if !row.isRetryable { response.headers[.shouldRetry] = "false" }
    if !error.allowedMethods.isEmpty {
      response.headers[.allow] = error.allowedMethods.map(\.rawValue).joined(separator: ", ")
    }
    return response
  }
}

extension HTTPField.Name {
  static let requestID = Self("x-request-id")!
  static let shouldRetry = Self("x-should-retry")!
  static let traceparent = Self("traceparent")!
  static let accelBuffering = Self("x-accel-buffering")!
}
