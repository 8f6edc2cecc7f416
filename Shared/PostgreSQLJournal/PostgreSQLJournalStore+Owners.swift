import Foundation
import Journal

extension PostgreSQLJournalStore {
  /// The longest note, in bytes.
  static let maxNoteBytes = 64 << 10

  private var channel: String { PostgresListener.channel(server.settings.schema) }
  private var fence: PostgresStatement {
    PostgresStatement("SELECT fence($1, $2)", [.integer(epoch), .integer(token)])
  }

  /// As ``SharedJournalStore`` says.
  public func renewLease(note: Data) throws(JournalError) -> [JournalOwner] {
    guard note.count <= Self.maxNoteBytes else {
      throw .tooLarge(what: "the note of an owner", value: note.count, limit: Self.maxNoteBytes)
    }
    let (renewed, owners, work) = try control("renew the lease") { connection in
      let results = try connection.run([
        PostgresStatement(
          """
          UPDATE owners SET lease_until = clock_timestamp() + $3 * interval '1 millisecond', note = $4
          WHERE epoch = $1 AND token = $2 AND ended IS NULL RETURNING epoch
          """, [.integer(epoch), .integer(token), .integer(Int64(server.settings.leaseSeconds * 1000)), .bytes(note)]),
        PostgresStatement(
          """
          SELECT epoch, note FROM owners WHERE ended IS NULL AND lease_until > clock_timestamp() ORDER BY epoch
          """),
        // Its owner does not say that a lease is over.
        PostgresStatement(
          """
          SELECT EXISTS (SELECT 1 FROM owners WHERE ended IS NULL AND lease_until < clock_timestamp()) AS work
          """),
      ])
      return (
        results[0].count,
        try results[1].rows.map { JournalOwner(epoch: try $0.integer("epoch"), note: try $0.data("note")) },
        try results[2].first?.integer("work") == 1
      )
    }
    guard renewed == 1 else { throw .fenced(epoch: epoch) }
    if work { listener.yield(.lookForJobs) }
    return owners
  }

  /// As ``SharedJournalStore`` says.
  public func adoptJobs(limit: Int) throws(JournalError) -> OpenJobs {
    guard limit > 0 else { return ([], []) }
    return try control("adopt jobs") { connection in
      // A write that hangs on the server keeps its owner's lease from being ended.
      try connection.run([
        PostgresStatement(
          """
          SELECT pg_terminate_backend(pid) AS ended FROM pg_stat_activity
            JOIN owners ON writer_pid = pid AND writer_start = backend_start
          WHERE ended IS NULL AND lease_until < clock_timestamp() AND epoch <> $1
          """, [.integer(epoch)])
      ])
      let results = try connection.run([
        .begin, fence,
        PostgresStatement(
          """
          UPDATE owners SET ended = clock_timestamp() WHERE epoch IN (
            SELECT epoch FROM owners WHERE ended IS NULL AND lease_until < clock_timestamp() AND epoch <> $1
            FOR UPDATE SKIP LOCKED)
          """, [.integer(epoch)]),
        PostgresStatement(
          """
          UPDATE jobs SET owner = $1 WHERE number IN (
            SELECT number FROM jobs WHERE ended_ms IS NULL
              AND NOT EXISTS (SELECT 1 FROM owners WHERE owners.epoch = jobs.owner AND owners.ended IS NULL)
            ORDER BY number LIMIT $2 FOR UPDATE SKIP LOCKED)
          RETURNING number
          """, [.integer(epoch), .integer(Int64(limit))]),
        .commit,
      ])
      return try PostgresReading.openJobs(try results[3].rows.map { try $0.integer("number") }.sorted(), connection)
    }
  }

  /// As ``SharedJournalStore`` says.
  public func releaseLease() throws(JournalError) {
    hasReleased.store(true, ordering: .relaxed)
    try control("release the lease") { connection in
      _ = try connection.run([
        .begin,
        PostgresStatement(
          "UPDATE owners SET ended = clock_timestamp() WHERE epoch IN (SELECT epoch FROM owners WHERE epoch = $1 "
            + "AND token = $2 AND ended IS NULL FOR UPDATE)", [.integer(epoch), .integer(token)]),
        PostgresStatement("SELECT pg_notify($1, 'jobs')", [.text(channel)]), .commit,
      ])
    }
  }

  /// As ``SharedJournalStore`` says.
  public func owner(of job: String) throws(JournalError) -> Int64? {
    try read("look an owner up") { connection in
      try connection.run([
        PostgresStatement(
          """
          SELECT owner FROM jobs JOIN owners ON owners.epoch = jobs.owner
          WHERE id = $1 AND ended_ms IS NULL
          """, [.text(job)])
      ])[0].first?.optionalInteger("owner")
    }
  }

  /// As ``SharedJournalStore`` says.
  public func send(_ message: Data, to owner: Int64?) throws(JournalError) {
    guard message.count <= Self.maxMessageBytes else {
      throw .tooLarge(what: "a message between owners", value: message.count, limit: Self.maxMessageBytes)
    }
    let channel = owner.map { "\(self.channel)_\($0)" } ?? self.channel
    let sent = try control("send a message") { connection in
      // Without a lock of the owner's row, so that there is nothing to be synced to the disk.
      try connection.run([
        PostgresStatement(
          "SELECT pg_notify($1, $2) FROM owners WHERE epoch = $3 AND token = $4 AND (ended IS NULL OR $5 = 1)",
          [
            .text(channel), .text("\(epoch):\(message.base64EncodedString())"), .integer(epoch), .integer(token),
            // One that has handed its jobs over still follows them for its clients.
            .integer(hasReleased.load(ordering: .relaxed) ? 1 : 0),
          ])
      ])[0].count
    }
    if sent == 0 { throw .fenced(epoch: epoch) }
  }

  // MARK: Connections

  /// Runs `body`, which changes what is an owner's own, or may be made twice; once more when the connection turns out
  /// to be lost.
  func control<Result>(_ operation: String, _ body: (PostgresConnection) throws -> Result) throws(JournalError)
    -> Result
  {
    try JournalError.wrapPostgres(operation) {
      var attempts = 0
      while true {
        attempts += 1
        do {
          return try control.use(body)
        } catch let failure as PostgresFailure
          where failure.isTransient && attempts < 10 || (failure.kind == .lost || failure.isStale) && attempts < 2
        {
          continue
        }
      }
    }
  }

  /// Runs `body`, which only reads.
  func read<Result>(_ operation: String, _ body: (PostgresConnection) throws -> Result) throws(JournalError) -> Result {
    try JournalError.wrapPostgres(operation) { try pool.read(body) }
  }
}
