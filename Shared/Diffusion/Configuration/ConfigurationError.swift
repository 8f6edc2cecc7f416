import Weights

/// Why a model's configuration cannot be used. Every case names the file and the field.
public enum ConfigurationError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The path does not lead to a checkpoint directory.
  case notACheckpoint(path: String, reason: String)
  /// The file is missing, unreadable or too large.
  case cannotRead(file: String, reason: String)
  /// The file is not a JSON object.
  case malformed(file: String, reason: String)
  /// A field that has no default is absent.
  case missing(file: String, field: String)
  /// A field is not one of those that the file may have.
  case unknown(file: String, field: String, known: [String])
  /// A field has another type than it should.
  case wrongType(file: String, field: String, expected: String, found: String)
  /// A field's value is outside its limits.
  case outOfRange(file: String, field: String, value: String, limit: String)
  /// A field's value is valid, but this project does not implement it.
  case unsupported(file: String, field: String, value: String, supported: [String])
  /// Two fields contradict each other.
  case inconsistent(file: String, reason: String)

  /// The message for users and logs.
  public var description: String { printable(message, max: 8192) }

  private var message: String {
    switch self {
    case .notACheckpoint(let path, let reason): "\(path) is not a checkpoint: \(reason)"
    case .cannotRead(let file, let reason): "cannot read \(file): \(reason)"
    case .malformed(let file, let reason): "\(file) is not a configuration: \(reason)"
    case .missing(let file, let field): "\(file): \(field) is missing"
    case .unknown(let file, let field, let known):
      "\(file): there is no field \"\(printable(field, max: 80))\"; known are \(known.joined(separator: ", "))"
    case .wrongType(let file, let field, let expected, let found): "\(file): \(field) is \(found), expected \(expected)"
    case .outOfRange(let file, let field, let value, let limit): "\(file): \(field) is \(value), must be \(limit)"
    case .unsupported(let file, let field, let value, let supported):
      "\(file): \(field) \(value) is not supported, supported: \(supported.joined(separator: ", "))"
    case .inconsistent(let file, let reason): "\(file): \(reason)"
    }
  }
}
