import Foundation
import GRDB

extension SQLiteJournalStore: JournalArchive {
  /// As ``JournalArchive`` says.
  public func exportRows(
    objects: ObjectReading?, _ body: (ArchivedRow) throws -> Void
  ) throws(JournalError) {
    try JournalError.wrap("read all rows") {
      try database.read { db in
        for number in try Int64.fetchAll(db, sql: "SELECT number FROM jobs ORDER BY number") {
          for table in ArchivedRow.Table.allCases {
            let rows = try Row.fetchCursor(db, sql: table.sqliteSelection, arguments: ["job": number])
            while let row = try rows.next() {
              let values = Array(row.databaseValues.prefix(table.columns.count)).map { ArchivedValue($0) }
              let object = table.canNameObjects ? try Self.object(row) : nil
              try body(ArchivedRow(table, values).resolved(object, objects))
            }
          }
        }
      }
    }
  }

  /// As ``JournalArchive`` says.
  public func namedObjectSpace() throws(JournalError) -> String? { objectSpace }

  /// As ``JournalArchive`` says.
  public func importRows(_ next: () throws -> ArchivedRow?) throws(JournalError) -> Int {
    try JournalError.wrap("take rows in") {
      try database.write { db in
        let isEmpty = try Int.fetchOne(db, sql: "SELECT count(*) FROM jobs") == 0
        var jobs = 0, number: Int64 = 0
        while let row = try next() {
          if row.table == .job { jobs += 1 }
          try Self.insert(row, &number, keepsNumbers: isEmpty, db)
        }
        return jobs
      }
    }
  }

  private static func insert(_ row: ArchivedRow, _ job: inout Int64, keepsNumbers: Bool, _ db: Database) throws {
    var columns = row.table.sqliteColumns, values = row.values.map(\.sqlite)
    if !keepsNumbers, row.table == .job || row.table == .delivery {
      columns.removeFirst()
      values.removeFirst()
    }
    if row.table.hasJob {
      columns.append("job")
      values.append(job.databaseValue)
    }
    let isShared = row.table == .payload || row.table == .input
    let marks = Array(repeating: "?", count: columns.count).joined(separator: ", ")
    try db.execute(
      sql: """
        INSERT INTO \(row.table.sqliteName) (\(columns.joined(separator: ", "))) VALUES (\(marks))
        \(isShared ? "ON CONFLICT DO NOTHING" : "")
        """, arguments: StatementArguments(values))
    if row.table == .job { job = db.lastInsertedRowID }
    guard isShared, let key = values.first else { return }
    // Several jobs may have it; what is there must be the same.
    let found = try Int64.fetchOne(
      db, sql: "SELECT crc FROM \(row.table.name) WHERE \(columns[0]) = ?", arguments: [key])
    guard case .integer(found ?? -1)? = row.value("crc") else {
      throw JournalError.duplicate(what: "\(row.table.name) row \(key) with other bytes")
    }
    if row.table == .input {
      try db.execute(
        sql: "INSERT OR IGNORE INTO job_inputs (job, digest) VALUES (?, ?)", arguments: [job, key])
    }
  }

  /// As ``JournalArchive`` says.
  public func schemaVersion() throws(JournalError) -> (found: Int64?, newest: Int64) {
    try JournalError.wrap("read the version") {
      let applied = try database.read { try String.fetchAll($0, sql: "SELECT identifier FROM grdb_migrations") }
      return (applied.compactMap { Int64($0) }.max(), Int64(Schema.versions.count))
    }
  }

  /// As ``JournalArchive`` says. After a way back this program has to be closed, since it would go forward again.
  public func migrate(to version: Int64, acceptsLoss: Bool) throws(JournalError) {
    try JournalError.wrap("migrate to version \(version)") {
      try database.write { db in
        let applied = try String.fetchAll(db, sql: "SELECT identifier FROM grdb_migrations").compactMap { Int64($0) }
        guard (1...Int64(Schema.versions.count)).contains(version) else {
          throw JournalError.failed(
            operation: "migrate", reason: "this program knows the versions 1 to \(Schema.versions.count)")
        }
        for step in Schema.backwards where step.version > version && applied.contains(step.version) {
          let losses = try String.fetchAll(db, sql: step.losses)
          guard losses.isEmpty || acceptsLoss else {
            throw JournalError.failed(
              operation: "migrate to version \(version)",
              reason: "version \(step.version - 1) has no place for \(losses.joined(separator: ", "))")
          }
          try db.execute(sql: step.sql)
          try db.execute(
            sql: "DELETE FROM grdb_migrations WHERE identifier = ?", arguments: ["\(step.version)"])
        }
      }
    }
  }
}

extension ArchivedRow.Table {
  /// The table of images has its first name in this engine.
  fileprivate var sqliteName: String { self == .image ? "pictures" : name }

  fileprivate var sqliteColumns: [String] {
    columns.map { $0 == "image" ? "picture" : $0 == "image_count" ? "picture_count" : $0 }
  }

  /// The rows of the job `:job`.
  fileprivate var sqliteSelection: String {
    let condition =
      switch self {
      case .job: "number = :job"
      case .payload:
        """
        id IN (SELECT result FROM pictures WHERE job = :job UNION SELECT payload FROM outputs WHERE job = :job
          UNION SELECT payload FROM checkpoints WHERE job = :job)
        """
      case .input: "digest IN (SELECT digest FROM job_inputs WHERE job = :job)"
      default: "job = :job"
      }
    let selected = sqliteColumns + (canNameObjects ? ["object", "object_bytes"] : [])
    return "SELECT \(selected.joined(separator: ", ")) FROM \(sqliteName) WHERE \(condition) ORDER BY 1, 2"
  }
}

extension ArchivedValue {
  fileprivate init(_ value: DatabaseValue) {
    switch value.storage {
    case .null, .double: self = .null
    case .int64(let number): self = .integer(number)
    case .string(let text): self = .text(text)
    case .blob(let bytes): self = .bytes(bytes)
    }
  }

  fileprivate var sqlite: DatabaseValue {
    switch self {
    case .null: .null
    case .integer(let number): number.databaseValue
    case .text(let text): text.databaseValue
    case .bytes(let bytes): bytes.databaseValue
    }
  }
}

extension Schema {
  /// A way to the version before: what it drops must be nothing, or be accepted as lost.
  struct Backwards {
    let version: Int64
    /// A row for each thing that would be lost.
    let losses: String
    let sql: String
  }

  /// The newest first.
  static let backwards = [
    // Objects that are still to be deleted are found by listing them, should this version be back.
    Backwards(
      version: 5,
      losses: """
        SELECT count(*) || ' results, inputs and checkpoints that are objects' FROM (
          SELECT object FROM payloads WHERE object IS NOT NULL UNION ALL
          SELECT object FROM inputs WHERE object IS NOT NULL) HAVING count(*) > 0
        """,
      sql: """
        DROP TRIGGER payload_object_dies;
        DROP TRIGGER input_object_dies;
        DROP TABLE dead_objects;
        DROP INDEX payloads_by_object;
        DROP INDEX inputs_by_object;
        ALTER TABLE payloads DROP COLUMN object;
        ALTER TABLE payloads DROP COLUMN object_bytes;
        ALTER TABLE inputs DROP COLUMN object;
        ALTER TABLE inputs DROP COLUMN object_bytes;
        ALTER TABLE facts DROP COLUMN objects;
        """),
    Backwards(
      version: 4,
      losses: """
        SELECT count(*) || ' webhooks with their deliveries' FROM webhooks HAVING count(*) > 0
        """, sql: "DROP TABLE deliveries; DROP TABLE webhooks;"),
    // A job's model and state are made again of what else is there.
    Backwards(
      version: 3, losses: "SELECT count(*) || ' tags of jobs' FROM job_tags HAVING count(*) > 0",
      sql: """
        DROP INDEX jobs_by_time;
        DROP INDEX jobs_by_state;
        DROP INDEX jobs_by_model;
        DROP TABLE job_tags;
        ALTER TABLE jobs DROP COLUMN model;
        ALTER TABLE jobs DROP COLUMN state;
        CREATE INDEX jobs_of_tenant ON jobs (tenant, number);
        """),
    Backwards(
      version: 2, losses: "SELECT count(*) || ' images that jobs begin with' FROM inputs HAVING count(*) > 0",
      sql: "DROP TABLE job_inputs; DROP TABLE inputs;"),
  ]
}
