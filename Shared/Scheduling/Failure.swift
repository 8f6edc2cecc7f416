/// The canonical gRPC status codes, with their numbers.
public enum StatusCode: UInt32, CaseIterable, Sendable {
  case cancelled = 1
  case unknown = 2
  case invalidArgument = 3
  case deadlineExceeded = 4
  case notFound = 5
  case alreadyExists = 6
  case permissionDenied = 7
  case resourceExhausted = 8
  case failedPrecondition = 9
  case aborted = 10
  case outOfRange = 11
  case unimplemented = 12
  case `internal` = 13
  case unavailable = 14
  case dataLoss = 15
  case unauthenticated = 16

  /// Whether another attempt at the same task may succeed where this one did not.
  public var isRetryable: Bool {
    switch self {
    case .cancelled, .unknown, .resourceExhausted, .aborted, .internal, .unavailable, .dataLoss: true
    case .invalidArgument, .deadlineExceeded, .notFound, .alreadyExists, .permissionDenied, .failedPrecondition, .outOfRange,
      .unimplemented, .unauthenticated:
      false
    }
  }
}

/// Why a job, a task or a request could not be served.
public struct Failure: Error, Hashable, Sendable {
  /// The kind of failure.
  public var code: StatusCode
  /// For people: what is wrong, with the value and the limit.
  public var message: String
  /// The request field at fault; nil when none is.
  public var field: String?
  /// When asking again makes sense; nil when nothing is known.
  public var retryAfterSeconds: Double?
  /// With RESOURCE_EXHAUSTED: of what there is not enough; nil: something else.
  public var resource: ExhaustedResource?

  /// A failure of kind `code`.
  public init(
    _ code: StatusCode, _ message: String, field: String? = nil, retryAfterSeconds: Double? = nil, resource: ExhaustedResource? = nil
  ) {
    self.code = code
    self.message = message
    self.field = field
    self.retryAfterSeconds = retryAfterSeconds
    self.resource = resource
  }
}

extension Failure {
  /// The same failure with the field at fault, if there is one, under the name that it has in the request.
  func blaming(_ name: String) -> Failure {
    guard let field, field != name else { return self }
    var failure = self
    failure.field = name
    if message.hasPrefix("\(field) ") || message.hasPrefix("\(field):") {
      failure.message = name + message.dropFirst(field.count)
    }
    return failure
  }
}

/// What there is not enough of.
public enum ExhaustedResource: String, CaseIterable, Sendable {
  /// Places in the queue of all.
  case queue
  /// The tenant's places in the queue.
  case tenantQueue = "tenant-queue"
  /// Room for the journal.
  case storage
}
