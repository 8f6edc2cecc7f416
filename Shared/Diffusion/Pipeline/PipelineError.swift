/// What can be wrong with a request or a checkpoint, apart from its weight files (`WeightsError`).
public enum PipelineError: Error, Equatable, Sendable, CustomStringConvertible {
  /// A field of the request has a value the model cannot take.
  case invalidRequest(field: String, reason: String)
  /// The checkpoint's parts do not fit together.
  case checkpoint(String)
  /// The caller asked to stop.
  case cancelled

  /// For people: the field or file, and what is wrong with it.
  public var description: String {
    switch self {
    case .invalidRequest(let field, let reason): "\(field) \(reason)"
    case .checkpoint(let reason): reason
    case .cancelled: "cancelled"
    }
  }
}
