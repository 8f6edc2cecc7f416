/// Why the journal cannot do what was asked of it.
public enum JournalError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The file is another program's, of a later version, or no database at all.
  case foreign(path: String, reason: String)
  /// Another process has the journal open.
  case inUse(path: String)
  /// There is no space left, on the disk or within what the configuration allows.
  case full(reason: String)
  /// What was written is not what is there.
  case corrupt(what: String)
  /// A value is larger than the journal takes.
  case tooLarge(what: String, value: Int, limit: Int)
  /// An idempotency key, a job or an image is there already.
  case duplicate(what: String)
  /// The engine behind the journal cannot be reached now; what was asked may succeed later.
  case unavailable(reason: String)
  /// Another opening of the journal has taken over the jobs of this one, which must not write any more.
  case fenced(epoch: Int64)
  /// The engine behind the journal or the file system failed.
  case failed(operation: String, reason: String)

  /// For people: what is wrong, with the value and the limit.
  public var description: String {
    switch self {
    case .foreign(let path, let reason): "the journal \(path) cannot be used: \(reason)"
    case .inUse(let path): "the journal \(path) is in use by another process"
    case .full(let reason): "the journal is full: \(reason)"
    case .corrupt(let what): "the journal is damaged: \(what)"
    case .tooLarge(let what, let value, let limit): "\(what) has \(value) bytes, the journal's limit is \(limit)"
    case .duplicate(let what): "the journal has this \(what) already"
    case .unavailable(let reason): "the journal cannot be reached: \(reason)"
    case .fenced(let epoch): "the jobs of opening \(epoch) of the journal were taken over by another one"
    case .failed(let operation, let reason): "the journal failed to \(operation): \(reason)"
    }
  }
}
