import Foundation
import Journal

extension PostgreSQLJournalStore {
  /// So long no other owner attempts a delivery that an owner was given. Longer than an attempt may take.
  static let claimSeconds: Int64 = 60

  /// As ``JournalStore`` says. What is returned is this opening's to attempt, for a minute; when its lease ends before
  /// it has said what came of it, others may attempt it at once.
  public func dueDeliveries(
    nowMs: Int64, excludingHosts hosts: [String] = [], excluding numbers: [Int64] = [], limit: Int
  ) throws(JournalError) -> [DueDelivery] {
    try control("read deliveries") { connection in
      let results = try connection.run([
        .begin, PostgresStatement("SELECT fence($1, $2)", [.integer(epoch), .integer(token)]),
        PostgresStatement(
          """
          WITH taken AS (
            SELECT number FROM deliveries WHERE state = 0 AND next_ms <= $2
              AND host NOT IN (SELECT jsonb_array_elements_text($3::text::jsonb))
              AND number <> ALL ($4::text::bigint[])
              AND (claimed_by IS NULL OR claimed_by = $1 OR claimed_until < clock_timestamp()
                OR NOT EXISTS (SELECT 1 FROM owners WHERE epoch = claimed_by AND ended IS NULL))
            ORDER BY next_ms, number LIMIT $5 FOR UPDATE SKIP LOCKED
          ), claimed AS (
            UPDATE deliveries d SET claimed_by = $1, claimed_until = clock_timestamp() + $6 * interval '1 second'
            FROM taken WHERE d.number = taken.number RETURNING d.*
          )
          SELECT claimed.*, jobs.id AS job_id, tenant, url, secret, events FROM claimed
            JOIN jobs ON jobs.number = claimed.job
            JOIN webhooks ON webhooks.job = claimed.job AND webhooks.position = claimed.position
          ORDER BY next_ms, claimed.number
          """,
          [
            .integer(epoch), .integer(nowMs), try .json(hosts), .list(numbers), .integer(Int64(limit)),
            .integer(Self.claimSeconds),
          ]),
        .commit,
      ])
      return try results[2].rows.map { row in
        DueDelivery(
          delivery: try Self.delivery(row), tenant: try row.text("tenant"), webhook: try PostgresReading.webhook(row))
      }
    }
  }

  /// As ``JournalStore`` says; those of other openings are due when these may not attempt them any more.
  public func pendingDeliveries(nowMs: Int64 = .min) throws(JournalError) -> (count: Int, nextAtMs: Int64?) {
    try read("count deliveries") { connection in
      let row = try connection.run([
        PostgresStatement(
          """
          WITH pending AS (
            SELECT next_ms, CASE WHEN claimed_by <> $2 AND claimed_until > clock_timestamp()
              THEN greatest(next_ms, (extract(epoch FROM claimed_until) * 1000)::bigint) ELSE next_ms END AS due_ms
            FROM deliveries WHERE state = 0
          )
          SELECT count(*) AS count, min(due_ms) FILTER (WHERE due_ms > $1) AS next FROM pending
          """, [.integer(nowMs), .integer(epoch)])
      ])[0].first
      return (try row?.int("count") ?? 0, try row?.optionalInteger("next"))
    }
  }

  /// As ``JournalStore`` says.
  public func webhooks(of job: String) throws(JournalError) -> [(webhook: StoredWebhook, deliveries: [StoredDelivery])]
  {
    try read("read webhooks") { connection in
      let results = try connection.run([
        .beginReading,
        PostgresStatement(
          """
          SELECT webhooks.* FROM jobs JOIN webhooks ON webhooks.job = jobs.number WHERE id = $1 ORDER BY position
          """, [.text(job)]),
        PostgresStatement(
          """
          SELECT deliveries.*, jobs.id AS job_id FROM jobs JOIN deliveries ON deliveries.job = jobs.number
          WHERE id = $1 ORDER BY deliveries.number
          """, [.text(job)]),
        .commit,
      ])
      let deliveries = try results[2].rows.map { try Self.delivery($0) }
      return try results[1].rows.map { row in
        let position = try row.int("position")
        return (try PostgresReading.webhook(row), deliveries.filter { $0.position == position })
      }
    }
  }

  static func delivery(_ row: PostgresRow) throws -> StoredDelivery {
    let state = try row.int("state")
    guard let state = StoredDelivery.State(rawValue: state) else {
      throw JournalError.corrupt(what: "a delivery has the state \(state)")
    }
    var delivery = StoredDelivery(
      number: try row.integer("number"), job: try row.text("job_id"), position: try row.int("position"),
      event: try row.text("event"), percent: try row.int("percent"), createdAtMs: try row.integer("created_ms"))
    delivery.state = state
    delivery.attempts = try row.int("attempts")
    delivery.lastAttemptAtMs = try row.optionalInteger("last_ms")
    delivery.lastStatus = try row.optionalInteger("last_status").map { Int($0) }
    delivery.lastError = try row.optionalText("last_error")
    delivery.nextAttemptAtMs = try row.optionalInteger("next_ms")
    return delivery
  }

  /// Keeps what came of an attempt.
  static func delivery(_ attempt: DeliveryAttempt) -> PostgresStatement {
    let state: StoredDelivery.State =
      attempt.error == nil ? .delivered : attempt.nextAtMs == nil ? .abandoned : .pending
    return PostgresStatement(
      "SELECT keep_delivery($1, $2, $3::bigint, $4, $5::bigint, $6)",
      [
        .integer(attempt.delivery), .integer(Int64(state.rawValue)),
        .optional(state == .pending ? attempt.nextAtMs : nil), .integer(attempt.atMs),
        .optional(attempt.status.map { Int64($0) }), attempt.error.map { .readable($0, 500) } ?? .null,
      ])
  }
}
