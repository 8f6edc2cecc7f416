import Foundation
import Journal

extension PostgreSQLJournalStore {
  /// As ``JournalStore`` says: the bytes of requests, images and states, without what the engine adds; how much space
  /// the server has is not known.
  public func space() throws(JournalError) -> JournalSpace {
    let used = try read("measure its space") { connection in
      try connection.run([PostgresStatement("SELECT coalesce(sum(bytes), 0)::bigint AS bytes FROM writes")])[0].first?
        .integer("bytes") ?? 0
    }
    return JournalSpace(usedBytes: max(0, used), freeBytes: limits.maxBytes > 0 ? max(0, limits.maxBytes - used) : .max)
  }

  /// As ``JournalStore`` says; by one opening at a time.
  @discardableResult
  public func forgetOldJobs(nowMs: Int64) throws(JournalError) -> Int {
    let numbers = try read("find old jobs") { connection in
      let expired = try connection.run([
        PostgresStatement(
          "SELECT number FROM jobs WHERE ended_ms < $1 ORDER BY ended_ms, number LIMIT 100",
          [.integer(nowMs - limits.retentionSeconds * 1000)])
      ])[0].rows.map { try $0.integer("number") }
      return try expired.isEmpty ? surplusJobs(connection) : expired
    }
    guard !numbers.isEmpty else {
      try forgetOwners()
      return 0
    }
    var count = 0
    try write("forget old jobs", []) {
      count = numbers.count
      // Whoever has the lock removes them; the others find them gone.
      return [
        PostgresStatement(
          """
          SELECT forget_job($1, number) FROM (
            SELECT number FROM jobs WHERE number = ANY ($2::text::bigint[]) AND ended_ms IS NOT NULL
              AND pg_try_advisory_xact_lock($3)
            ORDER BY number FOR UPDATE SKIP LOCKED) AS old
          """, [.integer(epoch), .list(numbers), .integer(schema.lock + 1)])
      ]
    }
    return count
  }

  private func surplusJobs(_ connection: PostgresConnection) throws -> [Int64] {
    let results = try connection.run([
      PostgresStatement("SELECT coalesce(sum(result_bytes), 0)::bigint AS bytes FROM images")
    ])
    var surplus = try (results[0].first?.integer("bytes") ?? 0) - limits.retentionBytes
    guard surplus > 0 else { return [] }
    var numbers: [Int64] = []
    let rows = try connection.run([
      PostgresStatement(
        """
        SELECT number, (SELECT sum(result_bytes)::bigint FROM images WHERE job = number) AS bytes FROM jobs
        WHERE ended_ms IS NOT NULL ORDER BY ended_ms, number LIMIT 100
        """)
    ])[0].rows
    for row in rows where surplus > 0 {
      numbers.append(try row.integer("number"))
      surplus -= try row.optionalInteger("bytes") ?? 0
    }
    return numbers
  }

  /// Removes openings that ended a day ago and have no jobs; the bytes that they have counted stay counted.
  private func forgetOwners() throws(JournalError) {
    try control("forget openings") { connection in
      _ = try connection.run([
        .begin, PostgresStatement("SELECT fence($1, $2)", [.integer(epoch), .integer(token)]),
        PostgresStatement(
          """
          WITH old AS (
            DELETE FROM owners WHERE epoch IN (
              SELECT epoch FROM owners WHERE ended < clock_timestamp() - interval '1 day'
                AND NOT EXISTS (SELECT 1 FROM jobs WHERE owner = epoch AND ended_ms IS NULL)
              ORDER BY epoch LIMIT 100 FOR UPDATE SKIP LOCKED)
            RETURNING epoch
          ), counted AS (
            DELETE FROM writes WHERE epoch IN (SELECT epoch FROM old) RETURNING bytes
          )
          UPDATE writes SET bytes = bytes + (SELECT coalesce(sum(counted.bytes), 0)::bigint FROM counted)
          WHERE epoch = 0 AND EXISTS (SELECT 1 FROM counted)
          """),
        .commit,
      ])
    }
  }

  /// As ``JournalStore`` says. Reads what is there now, a portion at a time.
  public func problems() throws(JournalError) -> [String] {
    try read("check itself") { connection in
      var problems: [String] = []
      for table in ["payloads", "inputs"] {
        var last: PostgresValue = table == "payloads" ? .integer(.min) : .text("")
        let key = table == "payloads" ? "id" : "digest"
        while true {
          // One by one: a payload may have hundreds of megabytes.
          let row = try connection.run([
            PostgresStatement("SELECT * FROM \(table) WHERE \(key) > $1 ORDER BY \(key) LIMIT 1", [last])
          ])[0].first
          guard let row else { break }
          last = try table == "payloads" ? .integer(row.integer(key)) : .text(row.text(key))
          do {
            if table == "payloads" { _ = try PostgresReading.payload(row) } else { _ = try PostgresReading.input(row) }
          } catch { problems.append("\(error)") }
        }
      }
      problems += try jobProblems(connection)
      problems += try connection.run([PostgresStatement(Self.problemsOfTables)])[0].rows.map { try $0.text("problem") }
      return problems
    }
  }

  private func jobProblems(_ connection: PostgresConnection) throws -> [String] {
    var problems: [String] = [], last = Int64.min
    while true {
      let numbers = try connection.run([
        PostgresStatement("SELECT number FROM jobs WHERE number > $1 ORDER BY number LIMIT 500", [.integer(last)])
      ])[0].rows.map { try $0.integer("number") }
      guard let end = numbers.last else { return problems }
      last = end
      for found in try PostgresReading.records(numbers, connection) {
        if case .failure(let error) = found.record { problems.append("\(error)") }
      }
    }
  }

  private static let problemsOfTables = """
    SELECT 'delivery ' || number || ' is never due' AS problem FROM deliveries WHERE state = 0 AND next_ms IS NULL
    UNION ALL
    SELECT 'input ' || left(digest, 80) || ' belongs to nothing' FROM inputs
    WHERE NOT EXISTS (SELECT 1 FROM job_inputs WHERE job_inputs.digest = inputs.digest)
    UNION ALL
    SELECT 'payload ' || id || ' belongs to nothing' FROM payloads
    WHERE NOT EXISTS (SELECT 1 FROM outputs WHERE payload = id)
      AND NOT EXISTS (SELECT 1 FROM checkpoints WHERE payload = id)
      AND NOT EXISTS (SELECT 1 FROM images WHERE result = id)
    UNION ALL
    SELECT 'counted are ' || counted || ' bytes, but there are ' || there FROM (
      SELECT (SELECT coalesce(sum(bytes), 0) FROM writes) AS counted,
        (SELECT coalesce(sum(octet_length(bytes)), 0) FROM payloads)
        + (SELECT coalesce(sum(octet_length(bytes)), 0) FROM inputs)
        + (SELECT coalesce(sum(octet_length(request)), 0) FROM jobs) AS there) AS sums
    WHERE counted <> there
    """
}
