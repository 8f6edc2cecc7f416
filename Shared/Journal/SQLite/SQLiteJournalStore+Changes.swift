import ClusterCore
import Foundation
import GRDB

extension SQLiteJournalStore {
  /// As ``JournalStore`` says.
  public func apply(_ changes: [JournalChange]) throws(JournalError) {
    for change in changes { try change.check() }
    do throws(JournalError) {
      try write(changes)
    } catch {
      // What is set aside is for the ends of jobs alone.
      guard case .full = error, changes.contains(where: \.endsImage), !changes.contains(where: \.admitsJob),
        ballast?.release() ?? false
      else { throw error }
      // A checkpoint frees the write-ahead log's space as well, once the database has space for its pages.
      _ = try? database.writeWithoutTransaction { try $0.checkpoint(.truncate) }
      try write(changes)
    }
  }

  private func write(_ changes: [JournalChange]) throws(JournalError) {
    try JournalError.wrap("write") {
      try database.write { db in
        if changes.contains(where: \.admitsJob) { try checkSpace(db, for: Self.newInputBytes(changes, db)) }
        for change in changes { try Self.apply(change, db) }
        try Self.settleObjects(of: changes, db)
      }
    }
  }

  /// As ``JournalStore`` says.
  public func fail(_ damaged: [DamagedJob], code: StatusCode, atMs: Int64) throws(JournalError) {
    try JournalError.wrap("fail damaged jobs") {
      try database.write { db in
        for job in damaged {
          let failure = Status(code, "\(JournalError.corrupt(what: job.damage))")
          for index in try Int.fetchAll(
            db, sql: "SELECT picture FROM pictures WHERE job = ? AND state <> 1", arguments: [job.number])
          {
            try Self.fail(job.number, index, failure, atMs, db)
          }
          try db.run(
            sql: "UPDATE jobs SET ended_ms = ?, state = 2 WHERE number = ?", arguments: [atMs, job.number])
          try Self.announceEnd(of: job.number, atMs, db)
          try Self.releaseInputs(of: job.number, db)
        }
      }
    }
  }

  private static func apply(_ change: JournalChange, _ db: Database) throws {
    switch change {
    case .admit(let job): try insert(job, db)
    case .progress(let image, let progress): try keep(progress, of: image, db)
    case .attempt(let image, let task, let number):
      guard let job = try openImage(image, db) else { return }
      try db.run(
        sql: "INSERT OR REPLACE INTO attempts (job, picture, task, number) VALUES (?, ?, ?, ?)",
        arguments: [job, image.index, task, number])
    case .finish(let image, let result, let promptTokens, let atMs):
      guard let number = try openImage(image, db) else { return }
      try insert(result, db)
      try db.run(
        sql: """
          UPDATE pictures SET state = 1, result = ?, result_bytes = ?, prompt_tokens = ?
          WHERE job = ? AND picture = ?
          """,
        arguments: [Int64(bitPattern: result.id), result.byteCount, promptTokens, number, image.index])
      try end(number, image.index, atMs, db)
    case .fail(let image, let failure, let atMs):
      guard let number = try openImage(image, db) else { return }
      try fail(number, image.index, failure, atMs, db)
    case .announce(let job, let event, let percent, let atMs):
      let number = try Int64.fetchOne(
        db.cachedStatement(sql: "SELECT number FROM jobs WHERE id = ? AND ended_ms IS NULL"), arguments: [job])
      if let number { try announce(event, percent: percent, of: number, atMs, db) }
    case .attempted(let attempt): try keep(attempt, db)
    }
  }

  private static func fail(_ number: Int64, _ index: Int, _ failure: Status, _ atMs: Int64, _ db: Database) throws {
    try db.run(
      sql: """
        UPDATE pictures SET state = 2, failure_code = ?, failure_message = ?, failure_field = ?
        WHERE job = ? AND picture = ?
        """,
      arguments: [failure.code.rawValue, String(failure.message.prefix(2000)), failure.field, number, index])
    try end(number, index, atMs, db)
  }

  private static func insert(_ job: StoredJob, _ db: Database) throws {
    try db.run(
      sql: """
        INSERT INTO jobs (id, tenant, submitted_ms, deadline_ms, picture_count, request, request_crc, model)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)
        """,
      arguments: [
        job.id, job.tenant, job.submittedAtMs, job.deadlineAtMs, job.imageCount, job.request,
        Int64(Checksum.of(job.request)), job.model,
      ])
    let number = db.lastInsertedRowID
    for tag in job.tags {
      try db.run(
        sql: "INSERT OR IGNORE INTO job_tags (tenant, tag, submitted_ms, job) VALUES (?, ?, ?, ?)",
        arguments: [job.tenant, tag, job.submittedAtMs, number])
    }
    for index in 0..<job.imageCount {
      try db.run(sql: "INSERT INTO pictures (job, picture) VALUES (?, ?)", arguments: [number, index])
    }
    try insert(job.webhooks, of: number, db)
    for input in job.inputs {
      try db.run(
        sql: """
          INSERT INTO inputs (digest, crc, bytes, object, object_bytes) VALUES (?, ?, ?, ?, ?)
          ON CONFLICT (digest) DO NOTHING
          """,
        arguments: [
          input.digest, Int64(Checksum.of(input.bytes)), input.bytes, input.object?.name, input.object?.byteCount ?? 0,
        ])
      try db.run(
        sql: "INSERT OR IGNORE INTO job_inputs (job, digest) VALUES (?, ?)", arguments: [number, input.digest])
    }
    if let key = job.key {
      try db.run(
        sql: "INSERT INTO idempotency_keys (tenant, key, digest, job) VALUES (?, ?, ?, ?)",
        arguments: [job.tenant, key.text, key.digest, number])
    }
  }

  /// The number of the job, if the image has not ended: what comes late changes nothing.
  private static func openImage(_ image: ImageReference, _ db: Database) throws -> Int64? {
    let sql =
      "SELECT number FROM jobs JOIN pictures ON job = number WHERE id = ? AND picture = ? AND pictures.state = 0"
    return try Int64.fetchOne(db.cachedStatement(sql: sql), arguments: [image.job, image.index])
  }

  private static func insert(_ payload: StoredPayload, _ db: Database) throws {
    // One encoded prompt may serve several images.
    try db.run(
      sql: """
        INSERT INTO payloads (id, name, dtype, shape, crc, bytes, object, object_bytes)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO NOTHING
        """,
      arguments: [
        Int64(bitPattern: payload.id), payload.name, payload.dtype,
        payload.shape.map(String.init).joined(separator: ","),
        Int64(Checksum.of(payload.bytes)), payload.bytes, payload.object?.name, payload.object?.byteCount ?? 0,
      ])
  }

  private static func keep(_ progress: StoredProgress, of image: ImageReference, _ db: Database) throws {
    guard let number = try openImage(image, db) else { return }
    let key: StatementArguments = [number, image.index, progress.task]
    let earlier = try db.row(
      sql: "SELECT payload, steps FROM checkpoints WHERE job = ? AND picture = ? AND task = ?", arguments: key)
    if let steps = progress.completedSteps {
      // An older checkpoint never takes a newer one's place.
      if let earlier, try steps <= earlier.value("steps") { return }
      try insert(progress.payload, db)
      try db.run(
        sql: """
          INSERT OR REPLACE INTO checkpoints (job, picture, task, steps, payload, numerics_class)
          VALUES (?, ?, ?, ?, ?, ?)
          """,
        arguments: key + [steps, Int64(bitPattern: progress.payload.id), progress.numericsClass])
    } else {
      try insert(progress.payload, db)
      try db.run(
        sql: "INSERT OR REPLACE INTO outputs (job, picture, task, payload, numerics_class) VALUES (?, ?, ?, ?, ?)",
        arguments: key + [Int64(bitPattern: progress.payload.id), progress.numericsClass])
      try db.run(sql: "DELETE FROM checkpoints WHERE job = ? AND picture = ? AND task = ?", arguments: key)
    }
    if let earlier { try deleteUnused([earlier.value("payload")], db) }
  }

  /// Removes checkpoints, outputs and attempts of an image that has ended.
  private static func end(_ number: Int64, _ index: Int, _ atMs: Int64, _ db: Database) throws {
    let key: StatementArguments = [number, index]
    var payloads: [Int64] = []
    for table in ["outputs", "checkpoints"] {
      payloads += try Int64.fetchAll(
        db.cachedStatement(sql: "SELECT payload FROM \(table) WHERE job = ? AND picture = ?"), arguments: key)
      try db.run(sql: "DELETE FROM \(table) WHERE job = ? AND picture = ?", arguments: key)
    }
    try db.run(sql: "DELETE FROM attempts WHERE job = ? AND picture = ?", arguments: key)
    try deleteUnused(payloads, db)
    try db.run(
      sql: """
        UPDATE jobs SET ended_ms = ?1, state = CASE
          WHEN EXISTS (SELECT 1 FROM pictures p WHERE p.job = ?2 AND p.state = 2 AND p.failure_code <> ?3) THEN 2
          WHEN EXISTS (SELECT 1 FROM pictures p WHERE p.job = ?2 AND p.state = 2) THEN 3
          ELSE 1 END
        WHERE number = ?2 AND NOT EXISTS (SELECT 1 FROM pictures p WHERE p.job = ?2 AND p.state = 0)
        """,
      arguments: [atMs, number, StatusCode.cancelled.rawValue])
    guard db.changesCount > 0 else { return }
    try releaseInputs(of: number, db)
    try announceEnd(of: number, atMs, db)
  }

  /// Deletes the images that a job begins with, unless other jobs have them.
  private static func releaseInputs(of number: Int64, _ db: Database) throws {
    let digests = try String.fetchAll(
      db.cachedStatement(sql: "SELECT digest FROM job_inputs WHERE job = ?"), arguments: [number])
    guard !digests.isEmpty else { return }
    try db.run(sql: "DELETE FROM job_inputs WHERE job = ?", arguments: [number])
    try deleteUnusedInputs(digests, db)
  }

  /// Bytes of the images that come with `changes` and are not there yet.
  private static func newInputBytes(_ changes: [JournalChange], _ db: Database) throws -> Int64 {
    var known: Set<String> = [], bytes: Int64 = 0
    for case .admit(let job) in changes {
      for input in job.inputs where known.insert(input.digest).inserted {
        let isThere = try db.isThere(sql: "SELECT 1 FROM inputs WHERE digest = ?", arguments: [input.digest])
        if !isThere { bytes += Int64(input.bytes.count) }
      }
    }
    return bytes
  }

  /// Deletes those payloads that nothing refers to any more.
  static func deleteUnused(_ payloads: [Int64], _ db: Database) throws {
    for payload in payloads {
      try db.run(
        sql: """
          DELETE FROM payloads WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM outputs WHERE payload = ?1)
            AND NOT EXISTS (SELECT 1 FROM checkpoints WHERE payload = ?1)
            AND NOT EXISTS (SELECT 1 FROM pictures WHERE result = ?1)
          """,
        arguments: [payload])
    }
  }

  /// Deletes those images that no job has any more. One whose pages are damaged may stay: its job ends all the same.
  static func deleteUnusedInputs(_ digests: [String], _ db: Database) throws {
    for digest in digests {
      do {
        try db.inSavepoint {
          try db.run(
            sql: "DELETE FROM inputs WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM job_inputs WHERE digest = ?1)",
            arguments: [digest])
          return .commit
        }
      } catch let error as DatabaseError where error.resultCode == .SQLITE_CORRUPT {
        continue
      }
    }
  }
}

/// Statements that are compiled once: what is run for every job would be compiled again each time otherwise.
extension Database {
  func run(sql: String, arguments: StatementArguments) throws {
    try cachedStatement(sql: sql).execute(arguments: arguments)
  }

  func row(sql: String, arguments: StatementArguments) throws -> Row? {
    try Row.fetchOne(cachedStatement(sql: sql), arguments: arguments)
  }

  func rows(sql: String, arguments: StatementArguments) throws -> [Row] {
    try Row.fetchAll(cachedStatement(sql: sql), arguments: arguments)
  }

  func isThere(sql: String, arguments: StatementArguments) throws -> Bool {
    try Bool.fetchOne(cachedStatement(sql: "SELECT EXISTS (\(sql))"), arguments: arguments) ?? false
  }
}
