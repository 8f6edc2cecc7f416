import Foundation

/// A value of a row, as every engine has it.
public enum ArchivedValue: Hashable, Sendable {
  /// None.
  case null
  /// A whole number.
  case integer(Int64)
  /// Text.
  case text(String)
  /// Bytes.
  case bytes(Data)
}

/// A row of a journal, without what only its engine knows.
public struct ArchivedRow: Hashable, Sendable {
  /// The tables, in the order in which a job's rows come: what is referred to stands before what refers to it.
  public enum Table: UInt8, CaseIterable, Sendable {
    /// The job itself, which begins the rows that belong to it.
    case job = 1
    /// What it was sent under.
    case key = 2
    /// A word by which lists find it.
    case tag = 3
    /// A tensor or image: of a result, an output or a checkpoint.
    case payload = 4
    /// An image and how it ended.
    case image = 5
    /// What a task has made.
    case output = 6
    /// How far a task has got.
    case checkpoint = 7
    /// The last attempt at a task.
    case attempt = 8
    /// An image that the job begins with.
    case input = 9
    /// What is notified of it.
    case webhook = 10
    /// A notification.
    case delivery = 11

    /// The table's name; SQLite's table of images has its first name still.
    public var name: String {
      switch self {
      case .job: "jobs"
      case .key: "idempotency_keys"
      case .tag: "job_tags"
      case .payload: "payloads"
      case .image: "images"
      case .output: "outputs"
      case .checkpoint: "checkpoints"
      case .attempt: "attempts"
      case .input: "inputs"
      case .webhook: "webhooks"
      case .delivery: "deliveries"
      }
    }

    /// What a row has, in order, without the number of its job.
    public var columns: [String] {
      switch self {
      case .job:
        [
          "number", "id", "tenant", "submitted_ms", "deadline_ms", "ended_ms", "image_count", "request", "request_crc",
          "model", "state",
        ]
      case .key: ["tenant", "key", "digest"]
      case .tag: ["tenant", "tag", "submitted_ms"]
      case .payload: ["id", "name", "dtype", "shape", "crc", "bytes"]
      case .image:
        [
          "image", "state", "result", "result_bytes", "prompt_tokens", "failure_code", "failure_message",
          "failure_field",
        ]
      case .output: ["image", "task", "payload", "numerics_class"]
      case .checkpoint: ["image", "task", "steps", "payload", "numerics_class"]
      case .attempt: ["image", "task", "number"]
      case .input: ["digest", "crc", "bytes"]
      case .webhook: ["position", "url", "host", "secret", "events"]
      case .delivery:
        [
          "number", "position", "event", "percent", "created_ms", "host", "state", "next_ms", "attempts", "last_ms",
          "last_status", "last_error",
        ]
      }
    }

    /// Whether its rows may name an object in place of having bytes.
    package var canNameObjects: Bool { self == .payload || self == .input }
    /// Whether its rows belong to one job and say which.
    public var hasJob: Bool { ![.job, .payload, .input].contains(self) }
  }

  /// Where it stands.
  public var table: Table
  /// In the order of the table's columns.
  public var values: [ArchivedValue]

  /// A row of `table`.
  public init(_ table: Table, _ values: [ArchivedValue]) { (self.table, self.values) = (table, values) }

  /// The value of a column.
  public func value(_ column: String) -> ArchivedValue? {
    table.columns.firstIndex(of: column).flatMap { $0 < values.count ? values[$0] : nil }
  }

  /// The job's name, of the row that begins one.
  public var jobID: String? { if table == .job, case .text(let id)? = value("id") { id } else { nil } }
}

/// Reads the bytes of an object, or throws.
public typealias ObjectReading = (StoredObject) throws -> Data

extension ArchivedRow {
  /// This row of a payload or an input, with its bytes in place of the object that it names.
  ///
  /// - Parameters:
  ///   - object: that object; nil: the row has its bytes.
  ///   - objects: reads it.
  package func resolved(_ object: StoredObject?, _ objects: ObjectReading?) throws -> ArchivedRow {
    guard let object else { return self }
    guard let objects else {
      throw JournalError.failed(
        operation: "read all rows",
        reason: "\(object.byteCount) bytes are the object \(object.name): where objects are was not said")
    }
    let bytes = try objects(object)
    var row = self
    for (index, column) in table.columns.enumerated() {
      if column == "bytes" { row.values[index] = .bytes(bytes) }
      if column == "crc" { row.values[index] = .integer(Int64(Checksum.of(bytes))) }
    }
    return row
  }
}

/// A journal whose rows are taken out and put in, while no gateway writes to it.
public protocol JournalArchive: AnyObject {
  /// Where it is, for people.
  var location: String { get }
  /// Hands all rows over, as they are at one instant: the jobs in the order of their admission, each followed by what
  /// belongs to it. One row at a time is in memory.
  ///
  /// - Parameter objects: reads the bytes that rows name; nil: a row that has not got its bytes is an error.
  func exportRows(objects: ObjectReading?, _ body: (ArchivedRow) throws -> Void) throws(JournalError)
  /// Names the journal among those that keep their objects at one place; nil: there is no journal.
  func namedObjectSpace() throws(JournalError) -> String?
  /// The objects that rows name, in the order of their names: see ``ObjectNamingJournalStore/objects(after:limit:)``.
  func objects(after name: String?, limit: Int) throws(JournalError) -> [StoredObject]
  /// Takes the rows that `next` returns until it returns nil: all of them, or none when it throws.
  ///
  /// - Returns: how many jobs they are of.
  /// - Throws: `duplicate` when a job, a key or a payload of them is there already.
  func importRows(_ next: () throws -> ArchivedRow?) throws(JournalError) -> Int
  /// Everything that the engine and the checksums find wrong.
  func problems() throws(JournalError) -> [String]
  /// The version of its schema, and the newest one that this program knows; nil: there is no schema.
  func schemaVersion() throws(JournalError) -> (found: Int64?, newest: Int64)
  /// Takes its schema to another version.
  ///
  /// - Parameter acceptsLoss: whether what an older version has no place for may be dropped.
  /// - Throws: `failed`, which names what would be lost.
  func migrate(to version: Int64, acceptsLoss: Bool) throws(JournalError)
}
