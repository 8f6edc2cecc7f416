/// The canonical gRPC status codes.
public enum StatusCode: Int32, Sendable, CaseIterable {
  /// Success; never sent in a `Status`.
  case ok = 0
  /// Somebody asked for it to stop.
  case cancelled = 1
  /// An error of unknown kind.
  case unknown = 2
  /// The request is wrong and will be wrong again.
  case invalidArgument = 3
  /// It was not done in time.
  case deadlineExceeded = 4
  /// The thing named does not exist.
  case notFound = 5
  /// The thing to make exists.
  case alreadyExists = 6
  /// The caller may not do this.
  case permissionDenied = 7
  /// A quota, a queue or memory is exhausted.
  case resourceExhausted = 8
  /// The system is not in a state to do this.
  case failedPrecondition = 9
  /// A conflict stopped it.
  case aborted = 10
  /// A value beyond the valid range.
  case outOfRange = 11
  /// Not supported here.
  case unimplemented = 12
  /// A bug or a broken invariant.
  case `internal` = 13
  /// Not possible now; may be tried again.
  case unavailable = 14
  /// Data was lost or corrupted.
  case dataLoss = 15
  /// The caller is not known.
  case unauthenticated = 16

  /// The canonical name: `INVALID_ARGUMENT`.
  public var name: String {
    switch self {
    case .ok: "OK"
    case .cancelled: "CANCELLED"
    case .unknown: "UNKNOWN"
    case .invalidArgument: "INVALID_ARGUMENT"
    case .deadlineExceeded: "DEADLINE_EXCEEDED"
    case .notFound: "NOT_FOUND"
    case .alreadyExists: "ALREADY_EXISTS"
    case .permissionDenied: "PERMISSION_DENIED"
    case .resourceExhausted: "RESOURCE_EXHAUSTED"
    case .failedPrecondition: "FAILED_PRECONDITION"
    case .aborted: "ABORTED"
    case .outOfRange: "OUT_OF_RANGE"
    case .unimplemented: "UNIMPLEMENTED"
    case .internal: "INTERNAL"
    case .unavailable: "UNAVAILABLE"
    case .dataLoss: "DATA_LOSS"
    case .unauthenticated: "UNAUTHENTICATED"
    }
  }

  /// Whether the same task may succeed when it is tried again, perhaps by another worker.
  public var isRetryable: Bool {
    switch self {
    case .unavailable, .resourceExhausted, .aborted, .dataLoss, .internal, .unknown: true
    case .ok, .cancelled, .invalidArgument, .deadlineExceeded, .notFound, .alreadyExists, .permissionDenied, .failedPrecondition,
      .outOfRange, .unimplemented, .unauthenticated:
      false
    }
  }
}

/// Why something could not be done.
public struct Status: Sendable, Equatable, Error {
  /// Never `.ok`.
  public var code: StatusCode
  /// For people: what is wrong, with the value and the limit.
  public var message: String
  /// The request field, parameter or tensor at fault; empty when none is.
  public var field: String

  /// Puts the parts together.
  public init(_ code: StatusCode, _ message: String, field: String = "") {
    self.code = code
    self.message = message
    self.field = field
  }
}

extension Status: CustomStringConvertible {
  /// `INVALID_ARGUMENT (steps): …`
  public var description: String { field.isEmpty ? "\(code.name): \(message)" : "\(code.name) (\(field)): \(message)" }
}
