import Weights

/// Why a tokenizer could not be loaded. Every case names the file.
public enum TokenizerError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The file is missing, unreadable or too large.
  case cannotRead(file: String, reason: String)
  /// The file's content breaks its format, or contradicts another file.
  case malformed(file: String, reason: String)
  /// The file asks for something that this tokenizer does not do.
  case unsupported(file: String, setting: String, value: String, supported: String)

  /// The message for users and logs.
  public var description: String { printable(message, max: 8192) }

  private var message: String {
    switch self {
    case .cannotRead(let file, let reason): "cannot read \(file): \(reason)"
    case .malformed(let file, let reason): "\(file): \(reason)"
    case .unsupported(let file, let setting, let value, let supported):
      "\(file): \(setting) is \(value), supported is only \(supported)"
    }
  }
}
