import HTTPTypes
import Scheduling

/// An error as clients of the HTTP API see it. Codes are stable: programs may depend on them.
public struct APIError: Error, Hashable, Sendable {
  /// What kind of error it is, and whose fault.
  public var code: Code
  /// For people: what is wrong, with the value and the limit.
  public var message: String
  /// The request field at fault.
  public var param: String?
  /// When asking again makes sense.
  public var retryAfterSeconds: Int?
  /// The methods that a 405 names.
  public var allowedMethods: [HTTPRequest.Method] = []

  /// An error of kind `code`.
  public init(_ code: Code, _ message: String, param: String? = nil, retryAfterSeconds: Int? = nil) {
    self.code = code
    self.message = message
    self.param = param
    self.retryAfterSeconds = retryAfterSeconds
  }

  /// The kinds of errors: with HTTP status, OpenAI's `type`, and gRPC status they make the table below.
  public enum Code: String, CaseIterable, Sendable {
    case invalidJSON = "invalid_json"
    case missingField = "missing_required_parameter"
    case unknownField = "unknown_parameter"
    case invalidType = "invalid_type"
    case invalidValue = "invalid_value"
    case unsupportedValue = "unsupported_value"
    case promptTooLong = "prompt_too_long"
    case malformedRequest = "malformed_request"
    case authenticationRequired = "invalid_api_key"
    case permissionDenied = "permission_denied"
    case hostNotAllowed = "host_not_allowed"
    case originNotAllowed = "origin_not_allowed"
    case routeNotFound = "route_not_found"
    case modelNotFound = "model_not_found"
    case notFound = "not_found"
    case methodNotAllowed = "method_not_allowed"
    case requestTimeout = "request_timeout"
    case conflict = "conflict"
    case bodyTooLarge = "body_too_large"
    case unsupportedMediaType = "unsupported_media_type"
    case expectationFailed = "expectation_failed"
    case keyReused = "idempotency_key_reused"
    case notFinished = "not_finished"
    case queueFull = "queue_full"
    case rateLimited = "rate_limit_exceeded"
    case storageFull = "storage_full"
    case headersTooLarge = "headers_too_large"
    case cancelled = "cancelled"
    case internalError = "internal_error"
    case unimplemented = "unimplemented"
    case unavailable = "unavailable"
    case notReady = "not_ready"
    case shuttingDown = "shutting_down"
    case deadlineExceeded = "deadline_exceeded"
  }
}

extension APIError.Code {
  /// One row of the table of errors.
  struct Row {
    var status: HTTPResponse.Status
    var type: String
    /// Whether the same request may succeed later. Told to clients as `x-should-retry`, which the OpenAI clients obey.
    var isRetryable: Bool
  }

  /// The table of errors.
  var row: Row {
    switch self {
    case .invalidJSON, .missingField, .unknownField, .invalidType, .invalidValue, .unsupportedValue, .promptTooLong, .malformedRequest:
      Row(status: .badRequest, type: "invalid_request_error", isRetryable: false)
    case .authenticationRequired: Row(status: .unauthorized, type: "authentication_error", isRetryable: false)
    case .permissionDenied, .originNotAllowed: Row(status: .forbidden, type: "permission_error", isRetryable: false)
    case .hostNotAllowed: Row(status: .misdirectedRequest, type: "invalid_request_error", isRetryable: false)
    case .routeNotFound, .modelNotFound, .notFound: Row(status: .notFound, type: "invalid_request_error", isRetryable: false)
    case .methodNotAllowed: Row(status: .methodNotAllowed, type: "invalid_request_error", isRetryable: false)
    case .requestTimeout: Row(status: .requestTimeout, type: "invalid_request_error", isRetryable: false)
    case .conflict: Row(status: .conflict, type: "invalid_request_error", isRetryable: false)
    case .notFinished: Row(status: .conflict, type: "invalid_request_error", isRetryable: true)
    case .keyReused: Row(status: .unprocessableContent, type: "invalid_request_error", isRetryable: false)
    case .bodyTooLarge: Row(status: .contentTooLarge, type: "invalid_request_error", isRetryable: false)
    case .unsupportedMediaType: Row(status: .unsupportedMediaType, type: "invalid_request_error", isRetryable: false)
    case .expectationFailed: Row(status: .expectationFailed, type: "invalid_request_error", isRetryable: false)
    case .storageFull: Row(status: .init(code: 507, reasonPhrase: "Insufficient Storage"), type: "server_error", isRetryable: true)
    case .queueFull, .rateLimited: Row(status: .tooManyRequests, type: "rate_limit_error", isRetryable: true)
    case .headersTooLarge: Row(status: .requestHeaderFieldsTooLarge, type: "invalid_request_error", isRetryable: false)
    case .cancelled: Row(status: .init(code: 499, reasonPhrase: "Client Closed Request"), type: "cancelled", isRetryable: false)
    case .internalError: Row(status: .internalServerError, type: "server_error", isRetryable: false)
    case .unimplemented: Row(status: .notImplemented, type: "server_error", isRetryable: false)
    case .unavailable, .notReady, .shuttingDown: Row(status: .serviceUnavailable, type: "server_error", isRetryable: true)
    case .deadlineExceeded: Row(status: .gatewayTimeout, type: "server_error", isRetryable: false)
    }
  }
}

extension APIError {
  /// What a client is told about a failed job.
  public init(_ failure: Failure) {
    let code: Code =
      switch (failure.code, failure.resource, failure.field) {
      case (.resourceExhausted, .storage, _): .storageFull
      case (.alreadyExists, _, Dispatcher.keyField): .keyReused
      // Everything else about a prompt is checked before a stage sees it: what is left for the text encoder to refuse
      // is tokens.
      case (.invalidArgument, _, "prompt"?), (.invalidArgument, _, "negative_prompt"?): .promptTooLong
      default: Code(failure.code)
      }
    // A full queue always says when to come back, even before anything was measured.
    let seconds = failure.retryAfterSeconds ?? (code == .queueFull ? 10 : nil)
    self.init(
      code, failure.message, param: failure.field, retryAfterSeconds: seconds.map { Int(min(max($0, 1), 3600).rounded(.up)) })
  }
}

extension APIError.Code {
  /// gRPC status → the API's code.
  init(_ status: StatusCode) {
    self =
      switch status {
      case .cancelled: .cancelled
      case .invalidArgument, .failedPrecondition, .outOfRange: .invalidValue
      case .deadlineExceeded: .deadlineExceeded
      case .notFound: .notFound
      case .alreadyExists, .aborted: .conflict
      case .permissionDenied: .permissionDenied
      case .resourceExhausted: .queueFull
      case .unimplemented: .unimplemented
      case .unknown, .internal, .dataLoss: .internalError
      case .unavailable: .unavailable
      case .unauthenticated: .authenticationRequired
      }
  }
}
