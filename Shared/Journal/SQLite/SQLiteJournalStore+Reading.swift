import ClusterCore
import Foundation
import GRDB

extension SQLiteJournalStore {
  /// As ``JournalStore`` says.
  public func lastPayloadID() throws(JournalError) -> UInt64 {
    try JournalError.wrap("read its payloads") {
      try database.read { db in
        UInt64(clamping: try Int64.fetchOne(db, sql: "SELECT seq FROM sqlite_sequence WHERE name = 'payloads'") ?? 0)
      }
    }
  }

  /// As ``JournalStore`` says.
  public func openJobs() throws(JournalError) -> OpenJobs {
    try JournalError.wrap("read open jobs") {
      try database.read { db in
        var jobs: [(record: StoredRecord, images: [OpenImage])] = [], damaged: [DamagedJob] = []
        let holders = OpenHolders(db)
        for row in try Row.fetchAll(db, sql: "SELECT * FROM jobs WHERE ended_ms IS NULL ORDER BY number") {
          do {
            jobs.append(try Self.openJob(row, holders, db))
          } catch JournalError.corrupt(let what) {
            damaged.append(DamagedJob(number: try row.value("number"), damage: what))
          } catch let error as DatabaseError where error.resultCode == .SQLITE_CORRUPT {
            let number: Int64 = try row.value("number")
            damaged.append(DamagedJob(number: number, damage: "the pages of job \(number)"))
          }
        }
        return (jobs, damaged)
      }
    }
  }

  /// As ``JournalStore`` says.
  public func record(of job: String, tenant: String?) throws(JournalError) -> StoredRecord? {
    try JournalError.wrap("read a job") {
      try database.read { db in
        guard let row = try db.row(sql: "SELECT * FROM jobs WHERE id = ?", arguments: [job]) else {
          return nil
        }
        let record = try Self.record(row, db)
        return tenant == nil || record.job.tenant == tenant ? record : nil
      }
    }
  }

  /// As ``JournalStore`` says.
  public func job(ofKey key: String, tenant: String) throws(JournalError) -> (job: String, digest: Data)? {
    try JournalError.wrap("look a key up") {
      try database.read { db in
        let row = try db.row(
          sql: "SELECT id, digest FROM idempotency_keys k JOIN jobs ON job = number WHERE k.tenant = ? AND key = ?",
          arguments: [tenant, key])
        guard let row else { return nil }
        return (job: try row.value("id"), digest: try row.value("digest"))
      }
    }
  }

  /// As ``JournalStore`` says.
  public func result(of image: ImageReference) throws(JournalError) -> StoredPayload? {
    try JournalError.wrap("read a result") {
      try database.read { db in
        let row = try db.row(
          sql: """
            SELECT payloads.* FROM jobs JOIN pictures ON job = number JOIN payloads ON payloads.id = result
            WHERE jobs.id = ? AND picture = ?
            """,
          arguments: [image.job, image.index])
        return try row.map { try Self.payload($0) }
      }
    }
  }

  /// As ``JournalStore`` says.
  public func counts() throws(JournalError) -> (open: Int, all: Int) {
    try JournalError.wrap("count jobs") {
      try database.read { db in
        let row = try Row.fetchOne(db, sql: "SELECT count(*) AS total, count(ended_ms) AS ended FROM jobs")
        let (all, ended): (Int, Int) = (try row?.value("total") ?? 0, try row?.value("ended") ?? 0)
        return (all - ended, all)
      }
    }
  }

  /// As ``JournalStore`` says.
  public func problems() throws(JournalError) -> [String] {
    try JournalError.wrap("check itself") {
      try database.read { db in
        var problems = try String.fetchAll(db, sql: "PRAGMA integrity_check").filter { $0 != "ok" }
        problems += try Row.fetchAll(db, sql: "PRAGMA foreign_key_check").map { "a dangling reference: \($0)" }
        let rows = try Row.fetchCursor(db, sql: "SELECT * FROM payloads")
        while let row = try rows.next() {
          do { _ = try Self.payload(row) } catch { problems.append("\(error)") }
        }
        problems += try Int64.fetchAll(
          db, sql: "SELECT number FROM deliveries WHERE state = 0 AND next_ms IS NULL"
        ).map { "delivery \($0) is never due" }
        let inputs = try Row.fetchCursor(db, sql: "SELECT * FROM inputs")
        while let row = try inputs.next() {
          do { _ = try Self.input(row) } catch { problems.append("\(error)") }
        }
        problems += try String.fetchAll(
          db, sql: "SELECT digest FROM inputs WHERE digest NOT IN (SELECT digest FROM job_inputs)"
        ).map { "input \($0.prefix(80)) belongs to nothing" }
        let jobs = try Row.fetchCursor(db, sql: "SELECT * FROM jobs")
        while let row = try jobs.next() {
          do { _ = try Self.record(row, db) } catch { problems.append("\(error)") }
        }
        problems += try Int64.fetchAll(
          db,
          sql: """
            SELECT id FROM payloads WHERE id NOT IN (SELECT payload FROM outputs)
              AND id NOT IN (SELECT payload FROM checkpoints)
              AND id NOT IN (SELECT result FROM pictures WHERE result IS NOT NULL)
            """
        ).map { "payload \($0) belongs to nothing" }
        return problems
      }
    }
  }

  // MARK: Rows

  /// - Throws: `corrupt` when the job's own rows are not those that were written.
  private static func openJob(
    _ row: Row, _ holders: OpenHolders, _ db: Database
  ) throws -> (record: StoredRecord, images: [OpenImage]) {
    let number: Int64 = try row.value("number")
    var record = try record(row, hasKey: holders.mayHold(number, .keys), db)
    let images = try record.outcomes.indices.filter { record.outcomes[$0] == .open }.map { index in
      OpenImage(
        reference: ImageReference(job: record.job.id, index: index),
        progress: holders.mayHold(number, .outputs) || holders.mayHold(number, .checkpoints)
          ? try progress(number, index, db) : [],
        attempts: holders.mayHold(number, .attempts) ? try attempts(number, index, db) : [:])
    }
    if holders.mayHold(number, .inputs) { record.job.inputs = try inputs(record, db) }
    if holders.mayHold(number, .webhooks) { record.job.webhooks = try webhooks(of: number, db) }
    return (record, images)
  }

  /// The images that a job begins with.
  private static func inputs(_ record: StoredRecord, _ db: Database) throws -> [StoredInput] {
    try db.rows(
      sql: "SELECT inputs.* FROM job_inputs JOIN inputs USING (digest) WHERE job = ?", arguments: [record.number]
    ).map { row in
      do { return try input(row) } catch JournalError.corrupt {
        throw JournalError.corrupt(what: "an image that job \(record.job.id) begins with")
      }
    }
  }

  private static func input(_ row: Row) throws -> StoredInput {
    let input = StoredInput(digest: try row.value("digest"), bytes: try row.value("bytes"), object: try object(row))
    guard try Int64(Checksum.of(input.bytes)) == row.value("crc") else {
      throw JournalError.corrupt(what: "the \(input.bytes.count) bytes of input \(input.digest.prefix(80))")
    }
    return input
  }

  /// - Throws: `corrupt` when the rows are not those that were written.
  static func record(_ row: Row, hasKey: Bool = true, _ db: Database) throws -> StoredRecord {
    let id: String = try row.value("id")
    let request: Data = try row.value("request")
    let imageCount: Int = try row.value("picture_count")
    guard try Int64(Checksum.of(request)) == row.value("request_crc") else {
      throw JournalError.corrupt(what: "the request of job \(id)")
    }
    let number: Int64 = try row.value("number")
    let rows = try db.rows(sql: "SELECT * FROM pictures WHERE job = ? ORDER BY picture", arguments: [number])
    guard (1...ValueLimits.maxImages).contains(imageCount),
      try rows.map({ try $0.value("picture") as Int }) == Array(0..<imageCount)
    else {
      throw JournalError.corrupt(what: "the images of job \(id)")
    }
    let key = hasKey ? try key(of: number, db) : nil
    let job = StoredJob(
      id: id, tenant: try row.value("tenant"), submittedAtMs: try row.value("submitted_ms"),
      deadlineAtMs: try row.optional("deadline_ms"),
      request: request, imageCount: imageCount, key: key, model: try row.value("model"))
    return StoredRecord(
      number: number, job: job, outcomes: try rows.map { try outcome($0, id) }, endedAtMs: try row.optional("ended_ms"))
  }

  private static func key(of number: Int64, _ db: Database) throws -> IdempotencyKey? {
    try db.row(sql: "SELECT key, digest FROM idempotency_keys WHERE job = ?", arguments: [number]).map {
      IdempotencyKey(text: try $0.value("key"), digest: try $0.value("digest"))
    }
  }

  private static func outcome(_ row: Row, _ id: String) throws -> StoredOutcome {
    switch try row.value("state") as Int {
    case 0: return .open
    case 1: return .finished(byteCount: try row.value("result_bytes"), promptTokens: try row.value("prompt_tokens"))
    case 2:
      let code: Int64 = try row.value("failure_code")
      return .failed(
        Status(
          StatusCode(rawValue: Int32(clamping: code)) ?? .unknown, try row.value("failure_message"),
          field: try row.optional("failure_field")))
    case let state: throw JournalError.corrupt(what: "an image of job \(id) has the state \(state)")
    }
  }

  private static func progress(_ number: Int64, _ index: Int, _ db: Database) throws -> [StoredProgress] {
    let rows = try db.rows(
      sql: """
        SELECT task, NULL AS steps, numerics_class, payloads.* FROM outputs JOIN payloads ON payload = id
        WHERE job = ?1 AND picture = ?2
        UNION ALL
        SELECT task, steps, numerics_class, payloads.* FROM checkpoints JOIN payloads ON payload = id
        WHERE job = ?1 AND picture = ?2
        ORDER BY task
        """,
      arguments: [number, index])
    return rows.compactMap { row in
      // What is damaged is made again.
      try? StoredProgress(
        task: bounded(row.value("task"), 0..<ValueLimits.maxTasks, "task"),
        completedSteps: row.optional("steps").map { try bounded($0, 1..<ValueLimits.maxSteps, "steps") },
        payload: payload(row),
        numericsClass: row.value("numerics_class"))
    }
  }

  private static func attempts(_ number: Int64, _ index: Int, _ db: Database) throws -> [Int: UInt32] {
    let rows = try db.rows(
      sql: "SELECT task, number FROM attempts WHERE job = ? AND picture = ?", arguments: [number, index])
    return try rows.reduce(into: [:]) { attempts, row in
      attempts[try bounded(row.value("task"), 0..<ValueLimits.maxTasks, "task")] = UInt32(
        clamping: try row.value("number") as Int64)
    }
  }

  private static func bounded(_ value: Int, _ range: Range<Int>, _ column: String) throws -> Int {
    guard range.contains(value) else { throw JournalError.corrupt(what: "the column \(column) holds \(value)") }
    return value
  }

  private static func payload(_ row: Row) throws -> StoredPayload {
    let id: Int64 = try row.value("id")
    let text: String = try row.value("shape")
    let shape = text.isEmpty ? [] : text.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
    let bytes: Data = try row.value("bytes")
    guard shape.count <= ValueLimits.maxRank, shape.allSatisfy({ ($0 ?? -1) >= 0 }),
      let dtype = Int32(exactly: try row.value("dtype") as Int64)
    else { throw JournalError.corrupt(what: "payload \(id) has the shape \(text.prefix(80))") }
    guard try Int64(Checksum.of(bytes)) == row.value("crc") else {
      throw JournalError.corrupt(what: "the \(bytes.count) bytes of payload \(id)")
    }
    return StoredPayload(
      id: UInt64(bitPattern: id), name: try row.value("name"), dtype: dtype, shape: shape.compactMap { $0 },
      bytes: bytes, object: try object(row))
  }
}

/// Open jobs with rows in tables of which most jobs have none: the others need not be asked for them one by one.
private struct OpenHolders {
  enum Table: String, CaseIterable {
    case keys = "idempotency_keys"
    case outputs, checkpoints, attempts
    case inputs = "job_inputs"
    case webhooks
  }

  private let jobs: [Table: Set<Int64>]

  /// A table that is damaged is left out: every job is asked, and fails alone.
  init(_ db: Database) {
    jobs = Table.allCases.reduce(into: [:]) { jobs, table in
      jobs[table] = try? Set(
        Int64.fetchAll(
          db, sql: "SELECT DISTINCT job FROM \(table.rawValue) JOIN jobs ON job = jobs.number WHERE ended_ms IS NULL"))
    }
  }

  func mayHold(_ job: Int64, _ table: Table) -> Bool { jobs[table]?.contains(job) ?? true }
}

extension Row {
  /// The column's value. In a damaged file it may be of another type; GRDB's subscripts would trap then.
  func value<Value: DatabaseValueConvertible>(_ column: String) throws -> Value {
    guard hasColumn(column), let converted = Value.fromDatabaseValue(self[column] as DatabaseValue) else {
      throw JournalError.corrupt(what: "the column \(column) does not hold a \(Value.self)")
    }
    return converted
  }

  /// The column's value, or nil for NULL.
  func optional<Value: DatabaseValueConvertible>(_ column: String) throws -> Value? {
    let isNull = hasColumn(column) && (self[column] as DatabaseValue).isNull
    return isNull ? nil : try value(column) as Value
  }
}
