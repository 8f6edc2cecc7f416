import GRDB

extension SQLiteJournalStore {
  /// As ``JournalStore`` says.
  public func dueDeliveries(
    nowMs: Int64, excludingHosts hosts: [String] = [], excluding numbers: [Int64] = [], limit: Int
  ) throws(JournalError) -> [DueDelivery] {
    try JournalError.wrap("read deliveries") {
      try database.read { db in
        let (hostMarks, numberMarks) = (Self.marks(hosts.count), Self.marks(numbers.count))
        let rows = try Row.fetchAll(
          db,
          sql: """
            SELECT deliveries.*, jobs.id AS job_id, tenant, url, secret, events
            FROM deliveries INDEXED BY deliveries_due
              JOIN jobs ON jobs.number = deliveries.job
              JOIN webhooks ON webhooks.job = deliveries.job AND webhooks.position = deliveries.position
            WHERE deliveries.state = 0 AND next_ms <= ? AND deliveries.host NOT IN (\(hostMarks))
              AND deliveries.number NOT IN (\(numberMarks))
            ORDER BY next_ms LIMIT ?
            """,
          arguments: StatementArguments([nowMs]) + StatementArguments(hosts) + StatementArguments(numbers) + [limit])
        return try rows.map { row in
          DueDelivery(
            delivery: try Self.delivery(row), tenant: try row.value("tenant"), webhook: try Self.webhook(row))
        }
      }
    }
  }

  /// As ``JournalStore`` says.
  public func pendingDeliveries(nowMs: Int64 = .min) throws(JournalError) -> (count: Int, nextAtMs: Int64?) {
    try JournalError.wrap("count deliveries") {
      try database.read { db in
        let count = try Int.fetchOne(db, sql: "SELECT count(*) FROM deliveries WHERE state = 0") ?? 0
        let next = try Int64.fetchOne(
          db, sql: "SELECT min(next_ms) FROM deliveries WHERE state = 0 AND next_ms > ?", arguments: [nowMs])
        return (count, next)
      }
    }
  }

  /// As ``JournalStore`` says.
  public func webhooks(of job: String) throws(JournalError) -> [(webhook: StoredWebhook, deliveries: [StoredDelivery])]
  {
    try JournalError.wrap("read webhooks") {
      try database.read { db in
        let webhooks = try Row.fetchAll(
          db,
          sql: "SELECT webhooks.* FROM jobs JOIN webhooks ON webhooks.job = jobs.number WHERE id = ? ORDER BY position",
          arguments: [job])
        let deliveries = try Row.fetchAll(
          db,
          sql: """
            SELECT deliveries.*, jobs.id AS job_id FROM jobs JOIN deliveries ON deliveries.job = jobs.number
            WHERE id = ? ORDER BY deliveries.number
            """,
          arguments: [job]
        ).map { try Self.delivery($0) }
        return try webhooks.map { row in
          let position: Int = try row.value("position")
          return (try Self.webhook(row), deliveries.filter { $0.position == position })
        }
      }
    }
  }

  private static func marks(_ count: Int) -> String { Array(repeating: "?", count: count).joined(separator: ", ") }

  private static func webhook(_ row: Row) throws -> StoredWebhook {
    let events: String = try row.value("events")
    return StoredWebhook(
      url: try row.value("url"), host: try row.value("host"), secret: try row.optional("secret"),
      events: events.split(separator: ",").map(String.init))
  }

  private static func delivery(_ row: Row) throws -> StoredDelivery {
    let state: Int = try row.value("state")
    guard let state = StoredDelivery.State(rawValue: state) else {
      throw JournalError.corrupt(what: "a delivery has the state \(state)")
    }
    var delivery = StoredDelivery(
      number: try row.value("number"), job: try row.value("job_id"), position: try row.value("position"),
      event: try row.value("event"), percent: try row.value("percent"), createdAtMs: try row.value("created_ms"))
    delivery.state = state
    delivery.attempts = try row.value("attempts")
    delivery.lastAttemptAtMs = try row.optional("last_ms")
    delivery.lastStatus = try row.optional("last_status")
    delivery.lastError = try row.optional("last_error")
    delivery.nextAttemptAtMs = try row.optional("next_ms")
    return delivery
  }

  // MARK: Changes

  static func webhooks(of number: Int64, _ db: Database) throws -> [StoredWebhook] {
    let statement = try db.cachedStatement(sql: "SELECT * FROM webhooks WHERE job = ? ORDER BY position")
    return try Row.fetchAll(statement, arguments: [number]).map {
      try webhook($0)
    }
  }

  static func insert(_ webhooks: [StoredWebhook], of number: Int64, _ db: Database) throws {
    for (position, webhook) in webhooks.enumerated() {
      try db.execute(
        sql: "INSERT INTO webhooks (job, position, url, host, secret, events) VALUES (?, ?, ?, ?, ?, ?)",
        arguments: [
          number, position, webhook.url, webhook.host, webhook.secret, webhook.events.joined(separator: ","),
        ])
    }
  }

  /// Makes a delivery for each webhook of the job that wants the event, unless there is one.
  static func announce(_ event: String, percent: Int = 0, of number: Int64, _ atMs: Int64, _ db: Database) throws {
    let statement = try db.cachedStatement(sql: "SELECT * FROM webhooks WHERE job = ?")
    for row in try Row.fetchAll(statement, arguments: [number]) {
      guard try webhook(row).events.contains(event) else { continue }
      let (position, host): (Int, String) = (try row.value("position"), try row.value("host"))
      try db.execute(
        sql: """
          INSERT OR IGNORE INTO deliveries (job, position, event, percent, created_ms, host, next_ms)
          VALUES (?, ?, ?, ?, ?, ?, ?)
          """,
        arguments: [number, position, event, percent, atMs, host, atMs])
    }
  }

  /// Announces the end of a job that has ended.
  static func announceEnd(of number: Int64, _ atMs: Int64, _ db: Database) throws {
    let statement = try db.cachedStatement(sql: "SELECT state FROM jobs WHERE number = ?")
    let state = try Int.fetchOne(statement, arguments: [number])
    guard let event = state.flatMap({ StoredState(rawValue: $0)?.event }) else { return }
    try announce(event, of: number, atMs, db)
  }

  static func keep(_ attempt: DeliveryAttempt, _ db: Database) throws {
    let state: StoredDelivery.State =
      attempt.error == nil ? .delivered : attempt.nextAtMs == nil ? .abandoned : .pending
    try db.execute(
      sql: """
        UPDATE deliveries
        SET state = ?, next_ms = ?, attempts = attempts + 1, last_ms = ?, last_status = ?, last_error = ?
        WHERE number = ? AND state = 0
        """,
      arguments: [
        state.rawValue, state == .pending ? attempt.nextAtMs : nil, attempt.atMs, attempt.status,
        attempt.error.map { String($0.prefix(500)) }, attempt.delivery,
      ])
  }
}
