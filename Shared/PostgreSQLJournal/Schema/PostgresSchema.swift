import Foundation
import Journal

/// One version of the schema, and the ways to it and back.
struct SchemaVersion: Sendable {
  /// From 1 upwards, without gaps.
  let number: Int64
  /// The oldest program, by the newest version that it knows, that can serve this version.
  let minimumReader: Int64
  /// Makes it of the version before.
  let up: String
  /// Makes the version before of it.
  let down: String
  /// A statement that gives a row for everything, by its name, that `down` would drop.
  let losses: String
}

/// The tables of a shared journal, and how versions of them become others.
///
/// Several gateways start at a time, so all is done in one transaction under an advisory lock. A newer gateway takes
/// the schema forward while older ones run, if they can serve the newer version as well; else it says which must end
/// first.
struct PostgresSchema: Sendable {
  static let versions = [
    SchemaVersion(
      number: 1, minimumReader: 1, up: SchemaTables.first + SchemaFunctions.first + SchemaObjects.first,
      down: """
        DROP TABLE owners, writes, facts, jobs, payloads, images, outputs, checkpoints, attempts, idempotency_keys,
          inputs, job_inputs, job_tags, webhooks, deliveries, dead_objects CASCADE;
        """
          + (SchemaFunctions.names + SchemaObjects.names).map { "DROP FUNCTION \($0) CASCADE;" }.joined(),
      losses: "SELECT count(*) || ' jobs' AS loss FROM jobs HAVING count(*) > 0")
  ]

  /// The journal's schema.
  let name: String
  /// All versions that this program knows.
  var versions = PostgresSchema.versions

  /// The newest one.
  var newest: Int64 { versions.last?.number ?? 0 }

  /// The version that is there; nil: none.
  func version(_ connection: PostgresConnection) throws -> (number: Int64, minimumReader: Int64)? {
    let isThere = try connection.run([
      // Not to_regclass: what it has not found once it may not find later in the transaction either, though another
      // gateway has made it in the meantime.
      PostgresStatement(
        """
        SELECT EXISTS (
          SELECT 1 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
          WHERE nspname = $1 AND relname = 'versions') AS there
        """, [.text(name)])
    ])[0].first?.integer("there")
    guard isThere == 1 else { return nil }
    let row = try connection.run([
      PostgresStatement("SELECT max(number) AS number, max(minimum_reader) AS reader FROM versions")
    ])[0].first
    guard let number = try row?.optionalInteger("number"), let reader = try row?.optionalInteger("reader") else {
      return nil
    }
    return (number, reader)
  }

  /// Refuses a schema that this program cannot serve.
  func check(_ found: (number: Int64, minimumReader: Int64), _ location: String) throws(JournalError) {
    guard found.minimumReader <= newest else {
      throw .foreign(
        path: location,
        reason: "its schema has the version \(found.number), which programs serve that know version "
          + "\(found.minimumReader); this one knows \(newest)")
    }
  }

  /// Takes an older schema, or none, to the newest version.
  func bringUpToDate(_ connection: PostgresConnection, _ location: String) throws {
    if let found = try version(connection) {
      try check(found, location)
      if found.number >= newest { return }
    }
    try exclusively(connection) {
      let found = try version(connection)
      if let found { try check(found, location) }
      try forward(connection, from: found?.number ?? 0, to: newest)
    }
  }

  /// Takes the schema to version `target`, forwards or backwards; no gateway may have the journal open.
  ///
  /// - Parameter acceptsLoss: whether what an older version has no place for may be dropped.
  func migrate(_ connection: PostgresConnection, to target: Int64, acceptsLoss: Bool, _ location: String) throws {
    guard (0...newest).contains(target) else {
      throw JournalError.failed(operation: "migrate", reason: "this program knows the versions 0 to \(newest)")
    }
    try exclusively(connection) {
      let found = try version(connection)
      if let found {
        guard found.number <= newest else {
          throw JournalError.foreign(
            path: location, reason: "its schema has the version \(found.number), this program knows \(newest)")
        }
        if let owner = try liveOwners(connection).first {
          throw JournalError.inUse(path: "\(location) (opening \(owner.epoch))")
        }
      }
      let number = found?.number ?? 0
      try forward(connection, from: number, to: target)
      for version in versions.reversed() where version.number > target && version.number <= number {
        let losses = try connection.run([PostgresStatement(version.losses)])[0].rows.map { try $0.text("loss") }
        guard losses.isEmpty || acceptsLoss else {
          throw JournalError.failed(
            operation: "migrate to version \(target)",
            reason: "version \(version.number - 1) has no place for \(losses.joined(separator: ", "))")
        }
        try connection.script(version.down)
        try connection.run([PostgresStatement("DELETE FROM versions WHERE number = $1", [.integer(version.number)])])
      }
      if target == 0 { try connection.script("DROP TABLE IF EXISTS versions; DROP SCHEMA IF EXISTS \(name)") }
    }
  }

  private func forward(_ connection: PostgresConnection, from: Int64, to target: Int64) throws {
    guard from < target else { return }
    if from == 0 {
      try connection.script(
        """
        CREATE SCHEMA IF NOT EXISTS \(name);
        CREATE TABLE IF NOT EXISTS versions (
          number bigint PRIMARY KEY, minimum_reader bigint NOT NULL, made timestamptz NOT NULL DEFAULT now());
        """)
    } else {
      let reader = versions.filter { $0.number > from && $0.number <= target }.map(\.minimumReader).max() ?? 0
      let old = try liveOwners(connection).filter { $0.version < reader }.map { "\($0.epoch)" }
      guard old.isEmpty else {
        throw JournalError.failed(
          operation: "migrate to version \(target)",
          reason: "gateways that know version \(reader - 1) at most have it open, as openings "
            + "\(old.joined(separator: ", ")): end them first")
      }
    }
    for version in versions where version.number > from && version.number <= target {
      try connection.script(version.up)
      try connection.run([
        PostgresStatement(
          "INSERT INTO versions (number, minimum_reader) VALUES ($1, $2)",
          [.integer(version.number), .integer(version.minimumReader)])
      ])
    }
  }

  /// Openings whose leases hold, and the newest version that each knows.
  func liveOwners(_ connection: PostgresConnection) throws -> [(epoch: Int64, version: Int64)] {
    try connection.run([
      PostgresStatement(
        """
        SELECT epoch, version FROM owners WHERE ended IS NULL AND lease_until > clock_timestamp() ORDER BY epoch
        """)
    ])[0].rows.map { (try $0.integer("epoch"), try $0.integer("version")) }
  }

  /// Runs `body` in a transaction while no other process changes the schema.
  private func exclusively(_ connection: PostgresConnection, _ body: () throws -> Void) throws {
    try connection.run([
      .begin, PostgresStatement("SELECT pg_advisory_xact_lock($1) IS NULL AS locked", [.integer(lock)]),
    ])
    do {
      try body()
      try connection.run([.commit])
    } catch {
      _ = try? connection.run([.rollback])
      throw error
    }
  }

  /// The key of the lock for changes of the schema; that for removing old jobs is the next one.
  var lock: Int64 {
    // FNV-1a, so that two schemas of a database do not wait for each other.
    let hash = "qwen-image \(name)".utf8.reduce(0xcbf2_9ce4_8422_2325 as UInt64) {
      ($0 ^ UInt64($1)) &* 0x100_0000_01b3
    }
    return Int64(bitPattern: hash & ~1)
  }
}
