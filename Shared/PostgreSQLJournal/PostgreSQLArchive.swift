import Foundation
import Journal

/// The rows of a shared journal, taken out while gateways may run, or put in while none does. It is no opening.
public final class PostgreSQLArchive: JournalArchive {
  /// As ``JournalArchive`` says.
  public var location: String { server.location }

  private let server: PostgresServer
  private let schema: PostgresSchema
  private let connection: PostgresConnection

  /// Connects to the server.
  ///
  /// - Throws: `unavailable`, or `failed` when the settings are wrong.
  public convenience init(_ settings: PostgreSQLSettings) throws(JournalError) {
    try self.init(settings, schema: PostgresSchema(name: settings.schema))
  }

  init(_ settings: PostgreSQLSettings, schema: PostgresSchema) throws(JournalError) {
    let server = try PostgresServer(settings)
    (self.server, self.schema) = (server, schema)
    connection = try JournalError.wrapPostgres("open \(server.location)") { try server.connect() }
  }

  /// As ``JournalArchive`` says.
  public func exportRows(
    objects: ObjectReading?, _ body: (ArchivedRow) throws -> Void
  ) throws(JournalError) {
    try reading("read all rows") {
      var last = Int64.min
      while true {
        let numbers = try connection.run([
          PostgresStatement("SELECT number FROM jobs WHERE number > $1 ORDER BY number LIMIT 1000", [.integer(last)])
        ])[0].rows.map { try $0.integer("number") }
        guard let end = numbers.last else { return }
        last = end
        for number in numbers { try exportJob(number, objects, body) }
      }
    }
  }

  private func exportJob(
    _ number: Int64, _ objects: ObjectReading?, _ body: (ArchivedRow) throws -> Void
  ) throws {
    let tables = ArchivedRow.Table.allCases
    let results = try connection.run(tables.map { PostgresStatement($0.postgresSelection, [.integer(number)]) })
    for (table, result) in zip(tables, results) {
      for row in result.rows {
        guard table.canNameObjects else {
          try body(ArchivedRow(table, try table.columns.map { try row.archived($0) }))
          continue
        }
        // The bytes of one at a time.
        let key: PostgresValue = try table == .payload ? .integer(row.integer("id")) : .text(row.text("digest"))
        let whole = try connection.run([
          PostgresStatement("SELECT * FROM \(table.name) WHERE \(table.columns[0]) = $1", [key])
        ])[0].first
        guard let whole else { continue }
        let archived = ArchivedRow(table, try table.columns.map { try whole.archived($0) })
        try body(archived.resolved(try PostgresReading.object(whole), objects))
      }
    }
  }

  /// As ``JournalArchive`` says.
  public func namedObjectSpace() throws(JournalError) -> String? {
    try JournalError.wrapPostgres("read its name") {
      guard try schema.version(connection) != nil else { return nil }
      return try connection.run([PostgresStatement("SELECT objects FROM facts")])[0].first?.text("objects")
    }
  }

  /// As ``JournalArchive`` says.
  public func objects(after name: String?, limit: Int) throws(JournalError) -> [StoredObject] {
    try reading("read objects") { try PostgresReading.objects(after: name, limit: limit, connection) }
  }

  /// As ``JournalArchive`` says.
  public func importRows(_ next: () throws -> ArchivedRow?) throws(JournalError) -> Int {
    try JournalError.wrapPostgres("take rows in") {
      try schema.bringUpToDate(connection, location)
      do {
        // No gateway can open the journal until the end.
        try connection.run([.begin, PostgresStatement("LOCK TABLE owners IN EXCLUSIVE MODE")])
        try refuseOwners()
        let count = try takeRows(next)
        try connection.run(Self.ending + [.commit])
        return count
      } catch {
        _ = try? connection.run([.rollback])
        throw error
      }
    }
  }

  private func refuseOwners() throws {
    if let owner = try schema.liveOwners(connection).first {
      throw JournalError.inUse(path: "\(location) (opening \(owner.epoch))")
    }
  }

  private func takeRows(_ next: () throws -> ArchivedRow?) throws -> Int {
    let there = try connection.run([PostgresStatement("SELECT EXISTS (SELECT 1 FROM jobs) AS jobs")])
    let keepsNumbers = try there[0].first?.integer("jobs") == 0
    var count = 0, job: Int64 = 0, bytes = 0, waiting: [PostgresStatement] = []
    while let row = try next() {
      if row.table == .job {
        count += 1
        if keepsNumbers, case .integer(let number)? = row.value("number") {
          job = number
        } else {
          let numbers = try connection.run([
            PostgresStatement("SELECT nextval(pg_get_serial_sequence('jobs', 'number')) AS number")
          ])
          job = try numbers[0].first?.integer("number") ?? 0
        }
      }
      waiting += try statements(row, job, keepsNumbers: keepsNumbers)
      bytes += row.values.reduce(16) { if case .bytes(let data) = $1 { $0 + data.count } else { $0 + 16 } }
      if bytes > 4 << 20 || waiting.count > 200 {
        try connection.run(waiting)
        (waiting, bytes) = ([], 0)
      }
    }
    try connection.run(waiting)
    return count
  }

  private func statements(_ row: ArchivedRow, _ job: Int64, keepsNumbers: Bool) throws -> [PostgresStatement] {
    if row.table == .payload {
      return [
        PostgresStatement("SELECT insert_payload(0, $1, $2, $3, $4, $5, $6, NULL, 0)", row.values.map(\.postgres))
      ]
    }
    var columns = row.table.columns, values = row.values.map(\.postgres)
    if row.table == .job { values[0] = .integer(job) }
    if row.table == .delivery, !keepsNumbers {
      columns.removeFirst()
      values.removeFirst()
    }
    if row.table.hasJob {
      columns.append("job")
      values.append(.integer(job))
    }
    var given: [PostgresValue] = []
    let marks = values.map { value -> String in
      if case .null = value { return "NULL" }
      given.append(value)
      return "$\(given.count)"
    }
    let insertion = PostgresStatement(
      "INSERT INTO \(row.table.name) (\(columns.joined(separator: ", "))) VALUES (\(marks.joined(separator: ", ")))"
        + (row.table == .input ? " ON CONFLICT (digest) DO NOTHING" : ""), given)
    guard row.table == .input, let digest = values.first else { return [insertion] }
    return [
      insertion,
      PostgresStatement("INSERT INTO job_inputs (job, digest) VALUES ($1, $2)", [.integer(job), digest]),
    ]
  }

  /// Numbers that are given from now on are greater than those that came, and all bytes are counted.
  private static let ending = [
    PostgresStatement(
      """
      SELECT setval(pg_get_serial_sequence('jobs', 'number'),
        greatest((SELECT max(number) FROM jobs), nextval(pg_get_serial_sequence('jobs', 'number'))))
      """),
    PostgresStatement(
      """
      SELECT setval(pg_get_serial_sequence('deliveries', 'number'),
        greatest((SELECT max(number) FROM deliveries), nextval(pg_get_serial_sequence('deliveries', 'number'))))
      """),
    // A payload's number has the opening in it.
    PostgresStatement(
      """
      SELECT setval(pg_get_serial_sequence('owners', 'epoch'),
        greatest((SELECT max(id) >> 36 FROM payloads), nextval(pg_get_serial_sequence('owners', 'epoch'))))
      """),
    PostgresStatement("UPDATE writes SET bytes = 0 WHERE bytes <> 0"),
    PostgresStatement(
      """
      UPDATE writes SET bytes = (SELECT coalesce(sum(octet_length(bytes)), 0) FROM payloads)
        + (SELECT coalesce(sum(octet_length(bytes)), 0) FROM inputs)
        + (SELECT coalesce(sum(octet_length(request)), 0) FROM jobs)
      WHERE epoch = 0
      """),
  ]

  /// As ``JournalArchive`` says.
  public func problems() throws(JournalError) -> [String] {
    try reading("check itself") { try PostgresProblems.all(connection) }
  }

  /// As ``JournalArchive`` says.
  public func schemaVersion() throws(JournalError) -> (found: Int64?, newest: Int64) {
    try JournalError.wrapPostgres("read the version") { (try schema.version(connection)?.number, schema.newest) }
  }

  /// As ``JournalArchive`` says; no gateway may have the journal open.
  public func migrate(to version: Int64, acceptsLoss: Bool) throws(JournalError) {
    try JournalError.wrapPostgres("migrate to version \(version)") {
      try schema.migrate(connection, to: version, acceptsLoss: acceptsLoss, location)
    }
  }

  /// Everything that `body` reads is of one instant.
  private func reading<Result>(_ operation: String, _ body: () throws -> Result) throws(JournalError) -> Result {
    try JournalError.wrapPostgres(operation) {
      guard let found = try schema.version(connection) else {
        throw JournalError.foreign(path: location, reason: "there is no journal")
      }
      try schema.check(found, location)
      try connection.run([.beginReading])
      defer { _ = try? connection.run([.rollback]) }
      return try body()
    }
  }
}

extension ArchivedRow.Table {
  /// The rows of the job `$1`; of payloads and inputs only what names them.
  fileprivate var postgresSelection: String {
    switch self {
    case .payload:
      """
      SELECT result AS id FROM images WHERE job = $1 AND result IS NOT NULL
      UNION SELECT payload FROM outputs WHERE job = $1 UNION SELECT payload FROM checkpoints WHERE job = $1 ORDER BY 1
      """
    case .input: "SELECT digest FROM job_inputs WHERE job = $1 ORDER BY 1"
    case .job: "SELECT \(columns.joined(separator: ", ")) FROM jobs WHERE number = $1"
    default: "SELECT \(columns.joined(separator: ", ")) FROM \(name) WHERE job = $1 ORDER BY 1, 2"
    }
  }
}

extension ArchivedValue {
  fileprivate var postgres: PostgresValue {
    switch self {
    case .null: .null
    case .integer(let number): .integer(number)
    case .text(let text): .text(text)
    case .bytes(let bytes): .bytes(bytes)
    }
  }
}
