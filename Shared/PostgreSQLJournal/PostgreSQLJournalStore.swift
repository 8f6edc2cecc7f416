import Foundation
import Journal
import Synchronization

/// A journal in a PostgreSQL database (14 or later), which several gateways have open at a time.
///
/// It has one connection for writes, one for leases and messages, one that waits for messages, and a few for reading.
public final class PostgreSQLJournalStore: SharedJournalStore {
  /// As ``JournalStore`` says.
  public let limits: JournalLimits
  /// As ``JournalStore`` says.
  public let epoch: Int64
  /// As ``JournalStore`` says.
  public let run: Int64
  /// As ``ObjectNamingJournalStore`` says.
  public let objectSpace: String
  /// As ``SharedJournalStore`` says.
  public let messages: AsyncStream<OwnerMessage>
  /// What an operator should know about the server, such as that its settings make it lose what it has confirmed.
  public let warnings: [String]
  /// As ``JournalStore`` says.
  public var location: String { server.location }
  /// As ``JournalStore`` says.
  public var isDurable: Bool { true }

  let server: PostgresServer
  let schema: PostgresSchema
  /// Tells this opening from another with its epoch.
  let token: Int64
  let pool: PostgresPool
  let writer: PostgresSlot
  let control: PostgresSlot
  let writes = Mutex(WriteState())
  let listener: PostgresListener
  /// Whether the lease was given back.
  let hasReleased = Atomic(false)

  /// Opens the journal, which is made if there is none, and takes a lease.
  ///
  /// - Throws: `foreign`, `unavailable` or `failed`.
  public convenience init(_ settings: PostgreSQLSettings, limits: JournalLimits = JournalLimits()) throws(JournalError)
  {
    try self.init(settings, limits: limits, schema: PostgresSchema(name: settings.schema))
  }

  init(_ settings: PostgreSQLSettings, limits: JournalLimits, schema: PostgresSchema) throws(JournalError) {
    self.limits = limits
    self.schema = schema
    let server = try PostgresServer(settings)
    self.server = server
    let token = Int64.random(in: .min ... .max)
    self.token = token
    pool = PostgresPool(server)
    control = PostgresSlot(server)
    // The opening that takes the jobs over ends a write that hangs on the server.
    writer = PostgresSlot(server) { connection in
      try connection.run([
        PostgresStatement(
          """
          UPDATE owners SET writer_pid = pg_backend_pid(),
            writer_start = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())
          WHERE token = $1 AND ended IS NULL
          """, [.integer(token)])
      ])
    }
    let opened = try JournalError.wrapPostgres("open \(server.location)") {
      let connection = try server.connect()
      let warnings = try Self.checkServer(connection, server.location)
      try schema.bringUpToDate(connection, server.location)
      let opening = try Self.nextOpening(connection, schema, settings, token)
      return (warnings: warnings, epoch: opening.epoch, run: opening.run, objects: opening.objects)
    }
    (warnings, epoch, run, objectSpace) = opened
    listener = PostgresListener(server, epoch: opened.epoch)
    messages = listener.messages
  }

  /// As ``JournalStore`` says. The lease runs out if it was not released.
  public func close() {
    listener.close()
    pool.close()
    writer.close()
    control.close()
  }

  /// Refuses servers that lose what they have confirmed.
  private static func checkServer(_ connection: PostgresConnection, _ location: String) throws -> [String] {
    let row = try connection.run([
      PostgresStatement(
        """
        SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS pages,
          current_setting('server_encoding') AS encoding
        """)
    ])[0].first
    guard let row else { throw JournalError.failed(operation: "open", reason: "the server tells nothing of itself") }
    guard try row.text("encoding") == "UTF8" else {
      throw JournalError.foreign(
        path: location, reason: "the database's encoding is \(try row.text("encoding")), it must be UTF8")
    }
    guard try row.text("fsync") == "on" else {
      throw JournalError.foreign(
        path: location, reason: "the server has fsync = off, so that it may lose what it has confirmed")
    }
    return try row.text("pages") == "on"
      ? [] : ["the server has full_page_writes = off: safe on a file system only that writes pages whole, such as ZFS"]
  }

  private static func nextOpening(
    _ connection: PostgresConnection, _ schema: PostgresSchema, _ settings: PostgreSQLSettings, _ token: Int64
  ) throws -> (epoch: Int64, run: Int64, objects: String) {
    let lease = Int64(settings.leaseSeconds * 1000)
    let results = try connection.run([
      .begin, PostgresStatement("SELECT first_run FROM facts FOR UPDATE"),
      // With nothing open and no other opening, runs count from the beginning again.
      PostgresStatement(
        """
        UPDATE facts SET first_run = coalesce((SELECT max(epoch) FROM owners), 0) + 1
        WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE ended_ms IS NULL)
          AND NOT EXISTS (SELECT 1 FROM owners WHERE ended IS NULL AND lease_until > clock_timestamp())
        """),
      PostgresStatement(
        """
        INSERT INTO owners (token, version, lease_until)
        VALUES ($1, $2, clock_timestamp() + $3 * interval '1 millisecond') RETURNING epoch
        """, [.integer(token), .integer(schema.newest), .integer(lease)]),
      PostgresStatement("INSERT INTO writes (epoch) SELECT epoch FROM owners WHERE token = $1", [.integer(token)]),
      PostgresStatement("SELECT first_run, objects FROM facts"), .commit,
    ])
    guard let epoch = try results[3].first?.integer("epoch"), let first = try results[5].first?.integer("first_run"),
      let objects = try results[5].first?.text("objects")
    else { throw JournalError.corrupt(what: "the table facts is empty") }
    return (epoch, max(0, epoch - first), objects)
  }
}

extension JournalError {
  /// Runs `body`; what it throws becomes a `JournalError`.
  static func wrapPostgres<Result>(_ operation: String, _ body: () throws -> Result) throws(JournalError) -> Result {
    do {
      return try body()
    } catch let error as JournalError {
      throw error
    } catch let error as PostgresFailure {
      throw JournalError(error, operation)
    } catch {
      throw .failed(operation: operation, reason: "\(error)")
    }
  }

  init(_ failure: PostgresFailure, _ operation: String) {
    switch failure.state {
    case "QI001":
      self = .fenced(epoch: Int64(failure.message.split(separator: " ").compactMap { Int64($0) }.first ?? 0))
    case "QI002": self = .full(reason: failure.message)
    case "53100": self = .full(reason: "the server: \(failure.message)")
    case "23505": self = .duplicate(what: failure.message)
    case "XX001", "XX002": self = .corrupt(what: "\(operation): \(failure.message)")
    default:
      self =
        failure.isUnavailable
        ? .unavailable(reason: "\(failure)") : .failed(operation: operation, reason: "\(failure)")
    }
  }
}
