import ClusterCore
import HTTPTypes

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

  /// The same error of a field that is inside of `field`.
  public func inside(_ field: String) -> APIError {
    var error = self
    error.message = "\(field): \(message)"
    error.param = param.map { "\(field).\($0)" } ?? field
    return error
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
    case contentPolicyViolation = "content_policy_violation"
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
  public struct Row: Sendable {
    /// The kind of error inside the cluster; says whether the same request may succeed later.
    public var code: StatusCode
    /// HTTP status.
    public var status: HTTPResponse.Status
    /// OpenAI's `type`.
    public var type: String

    /// Whether the same request may succeed later. Sent to clients as `x-should-retry`, which the OpenAI clients obey.
    public var isRetryable: Bool { code.allowsAnotherRequest }
  }

  /// The table of errors.
  public var row: Row {
    switch self {
    case .invalidJSON, .missingField, .unknownField, .invalidType, .invalidValue, .unsupportedValue, .promptTooLong,
      .malformedRequest:
      Row(code: .invalidArgument, status: .badRequest, type: "invalid_request_error")
    case .authenticationRequired: Row(code: .unauthenticated, status: .unauthorized, type: "authentication_error")
    case .permissionDenied, .originNotAllowed:
      Row(code: .permissionDenied, status: .forbidden, type: "permission_error")
    case .contentPolicyViolation:
      Row(code: .permissionDenied, status: .badRequest, type: "invalid_request_error")
    case .hostNotAllowed: Row(code: .permissionDenied, status: .misdirectedRequest, type: "invalid_request_error")
    case .routeNotFound, .modelNotFound, .notFound:
      Row(code: .notFound, status: .notFound, type: "invalid_request_error")
    case .methodNotAllowed: Row(code: .unimplemented, status: .methodNotAllowed, type: "invalid_request_error")
    case .requestTimeout: Row(code: .deadlineExceeded, status: .requestTimeout, type: "invalid_request_error")
    case .conflict: Row(code: .alreadyExists, status: .conflict, type: "invalid_request_error")
    case .notFinished: Row(code: .unavailable, status: .conflict, type: "invalid_request_error")
    case .keyReused: Row(code: .alreadyExists, status: .unprocessableContent, type: "invalid_request_error")
    case .bodyTooLarge: Row(code: .invalidArgument, status: .contentTooLarge, type: "invalid_request_error")
    case .unsupportedMediaType:
      Row(code: .invalidArgument, status: .unsupportedMediaType, type: "invalid_request_error")
    case .expectationFailed: Row(code: .invalidArgument, status: .expectationFailed, type: "invalid_request_error")
    case .storageFull:
      Row(
        code: .resourceExhausted, status: .init(code: 507, reasonPhrase: "Insufficient Storage"), type: "server_error")
    case .queueFull, .rateLimited: Row(code: .resourceExhausted, status: .tooManyRequests, type: "rate_limit_error")
    case .headersTooLarge:
      Row(code: .invalidArgument, status: .requestHeaderFieldsTooLarge, type: "invalid_request_error")
    case .cancelled:
      Row(code: .cancelled, status: .init(code: 499, reasonPhrase: "Client Closed Request"), type: "cancelled")
    case .internalError: Row(code: .internal, status: .internalServerError, type: "server_error")
    case .unimplemented: Row(code: .unimplemented, status: .notImplemented, type: "server_error")
    case .unavailable, .notReady, .shuttingDown:
      Row(code: .unavailable, status: .serviceUnavailable, type: "server_error")
    case .deadlineExceeded: Row(code: .deadlineExceeded, status: .gatewayTimeout, type: "server_error")
    }
  }
}

extension APIError {
  /// The field of a failure that tells a reused idempotency key from other conflicts.
  public static let keyField = "Idempotency-Key"
  /// The field of a request that the content filter refuses; no permission is about it otherwise.
  public static let promptField = "prompt"
  /// The field of an image that the content filter refuses; it is in no request.
  public static let resultField = "result"

  /// What a client learns about a failed job.
  public init(_ status: Status) {
    let code: Code =
      switch (status.code, status.resource, status.field) {
      case (.resourceExhausted, .storage, _): .storageFull
      case (.alreadyExists, _, Self.keyField): .keyReused
      case (.permissionDenied, _, Self.promptField), (.permissionDenied, _, Self.resultField): .contentPolicyViolation
      // Everything else about a prompt is checked before a stage sees it: what is left for the text encoder to refuse
      // is tokens.
      case (.invalidArgument, _, "prompt"?), (.invalidArgument, _, "negative_prompt"?): .promptTooLong
      default: Code(status.code)
      }
    // A full queue always says when to come back, even before anything was measured.
    let seconds = status.retryAfterSeconds ?? (code == .queueFull ? 10 : nil)
    self.init(
      code, status.message, param: status.field == Self.resultField ? nil : status.field,
      retryAfterSeconds: seconds.map { Int(min(max($0, 1), 3600).rounded(.up)) })
  }

  /// Runs `body`; a failure becomes what clients learn.
  public static func wrap<Result>(_ body: () async throws(Status) -> Result) async throws(APIError) -> Result {
    do throws(Status) { return try await body() } catch { throw APIError(error) }
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
      case .ok, .unknown, .internal, .dataLoss: .internalError
      case .unavailable: .unavailable
      case .unauthenticated: .authenticationRequired
      }
  }
}
