/// The canonical gRPC status codes, with their numbers.
public enum StatusCode: Int32, CaseIterable, Sendable {
  /// Success; never the code of a ``Status``.
  case ok = 0
  /// The caller, or the client behind it, cancelled the operation.
  case cancelled = 1
  /// An error of unknown kind.
  case unknown = 2
  /// The request is wrong and will be wrong again.
  case invalidArgument = 3
  /// It was not done in time.
  case deadlineExceeded = 4
  /// What the request names does not exist.
  case notFound = 5
  /// What the request would create exists.
  case alreadyExists = 6
  /// The caller may not do this.
  case permissionDenied = 7
  /// A quota, a queue, memory or storage is exhausted.
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
  /// Not possible now.
  case unavailable = 14
  /// Data was lost or corrupted.
  case dataLoss = 15
  /// The caller is not known.
  case unauthenticated = 16

  /// The canonical name: `INVALID_ARGUMENT`.
  public var name: String { row.name }

  /// Whether another attempt at the same task, perhaps by another worker, may succeed where this one did not.
  public var allowsAnotherAttempt: Bool { row.attempt }

  /// Whether the same request of a client may succeed later, after the cluster has made its own attempts.
  public var allowsAnotherRequest: Bool { row.request }

  /// The one table of names and retryability.
  private var row: (name: String, attempt: Bool, request: Bool) {
    switch self {
    case .ok: ("OK", false, false)
    // A worker that gives a task up though the gateway did not ask for it: another one can do it.
    case .cancelled: ("CANCELLED", true, false)
    case .unknown: ("UNKNOWN", true, false)
    case .invalidArgument: ("INVALID_ARGUMENT", false, false)
    case .deadlineExceeded: ("DEADLINE_EXCEEDED", false, false)
    case .notFound: ("NOT_FOUND", false, false)
    case .alreadyExists: ("ALREADY_EXISTS", false, false)
    case .permissionDenied: ("PERMISSION_DENIED", false, false)
    case .resourceExhausted: ("RESOURCE_EXHAUSTED", true, true)
    case .failedPrecondition: ("FAILED_PRECONDITION", false, false)
    case .aborted: ("ABORTED", true, false)
    case .outOfRange: ("OUT_OF_RANGE", false, false)
    case .unimplemented: ("UNIMPLEMENTED", false, false)
    case .internal: ("INTERNAL", true, false)
    case .unavailable: ("UNAVAILABLE", true, true)
    case .dataLoss: ("DATA_LOSS", true, false)
    case .unauthenticated: ("UNAUTHENTICATED", false, false)
    }
  }
}

/// Why a request, an image or a task could not be served: the one error that crosses module and process boundaries.
public struct Status: Error, Hashable, Sendable {
  /// What there is not enough of.
  public enum Resource: String, CaseIterable, Sendable {
    /// Places in the queue of all tenants.
    case queue
    /// The tenant's places in the queue.
    case tenantQueue = "tenant-queue"
    /// Disk space for the journal.
    case storage
  }

  /// The kind of error; never `.ok`.
  public var code: StatusCode
  /// For people: what is wrong, with the value and the limit.
  public var message: String
  /// The request field, parameter or tensor at fault; nil when none is.
  public var field: String?
  /// When another request makes sense; nil when nothing is known. Stays within a process.
  public var retryAfterSeconds: Double?
  /// With RESOURCE_EXHAUSTED: of what there is not enough; nil: something else. Stays within a process.
  public var resource: Resource?

  /// An error of kind `code`.
  public init(
    _ code: StatusCode, _ message: String, field: String? = nil, retryAfterSeconds: Double? = nil,
    resource: Resource? = nil
  ) {
    self.code = code
    self.message = message
    self.field = field
    self.retryAfterSeconds = retryAfterSeconds
    self.resource = resource
  }
}

extension Status {
  /// The same error with the field at fault, if there is one, under the name that it has in the client's request.
  public func blaming(_ name: String) -> Status {
    guard let field, field != name else { return self }
    var status = self
    status.field = name
    if message.hasPrefix("\(field) ") || message.hasPrefix("\(field):") {
      status.message = name + message.dropFirst(field.count)
    }
    return status
  }
}

extension Status: CustomStringConvertible {
  /// `INVALID_ARGUMENT (steps): …`
  public var description: String { field.map { "\(code.name) (\($0)): \(message)" } ?? "\(code.name): \(message)" }
}
