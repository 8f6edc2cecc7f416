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
      // The opening that has the lock removes them; the others find them gone.
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

  /// As ``JournalStore`` says, at one instant.
  public func problems() throws(JournalError) -> [String] {
    try read("check itself") { connection in
      try connection.run([.beginReading])
      defer { _ = try? connection.run([.rollback]) }
      return try PostgresProblems.all(connection)
    }
  }
}
