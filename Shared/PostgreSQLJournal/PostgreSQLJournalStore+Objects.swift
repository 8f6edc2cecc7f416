import Foundation
import Journal

extension PostgreSQLJournalStore: ObjectNamingJournalStore {
  /// As ``ObjectNamingJournalStore`` says.
  public func deadObjects(limit: Int) throws(JournalError) -> [StoredObject] {
    try read("read objects") { connection in
      try PostgresReading.objects(
        PostgresStatement(
          "SELECT object, object_bytes FROM dead_objects ORDER BY object LIMIT $1", [.integer(Int64(limit))]),
        connection)
    }
  }

  /// As ``ObjectNamingJournalStore`` says.
  public func forgetDeadObjects(_ names: [String]) throws(JournalError) {
    guard !names.isEmpty else { return }
    try write("forget objects", []) {
      [
        PostgresStatement(
          "DELETE FROM dead_objects WHERE object IN (SELECT jsonb_array_elements_text($1::text::jsonb))",
          [try .json(names)])
      ]
    }
  }

  /// As ``ObjectNamingJournalStore`` says.
  public func namedObjects(among names: [String]) throws(JournalError) -> Set<String> {
    try read("look objects up") { connection in
      let rows = try connection.run([
        PostgresStatement(
          """
          WITH given (wanted) AS (SELECT jsonb_array_elements_text($1::text::jsonb))
          SELECT object FROM payloads JOIN given ON object = wanted
          UNION ALL SELECT object FROM inputs JOIN given ON object = wanted
          """, [try .json(names)])
      ])[0].rows
      return try Set(rows.map { try $0.text("object") })
    }
  }

  /// As ``ObjectNamingJournalStore`` says.
  public func objects(after name: String?, limit: Int) throws(JournalError) -> [StoredObject] {
    try read("read objects") { try PostgresReading.objects(after: name, limit: limit, $0) }
  }

  /// As ``ObjectNamingJournalStore`` says.
  public func objectBytes() throws(JournalError) -> Int64 {
    try read("measure objects") { connection in
      try connection.run([
        PostgresStatement(
          """
          SELECT (SELECT coalesce(sum(object_bytes), 0) FROM payloads WHERE object IS NOT NULL)::bigint
            + (SELECT coalesce(sum(object_bytes), 0) FROM inputs WHERE object IS NOT NULL)::bigint
            + (SELECT coalesce(sum(object_bytes), 0) FROM dead_objects)::bigint AS bytes
          """)
      ])[0].first?.integer("bytes") ?? 0
    }
  }

  /// As ``ObjectNamingJournalStore`` says.
  public func hasPayload(_ id: UInt64) throws(JournalError) -> Bool {
    try has("SELECT 1 AS there FROM payloads WHERE id = $1", .integer(Int64(bitPattern: id)))
  }

  /// As ``ObjectNamingJournalStore`` says.
  public func hasInput(_ digest: String) throws(JournalError) -> Bool {
    try has("SELECT 1 AS there FROM inputs WHERE digest = $1", .text(digest))
  }

  private func has(_ sql: String, _ value: PostgresValue) throws(JournalError) -> Bool {
    try read("look bytes up") { try $0.run([PostgresStatement(sql, [value])])[0].count > 0 }
  }

  /// Of the objects that came with `changes`: those that a row names live, the others are dead.
  static func settling(_ changes: [JournalChange]) -> [PostgresStatement] {
    changes.flatMap(\.objects).map {
      PostgresStatement("SELECT settle_object($1, $2)", [.text($0.name), .integer(Int64($0.byteCount))])
    }
  }
}

extension PostgresReading {
  static func objects(after name: String?, limit: Int, _ connection: PostgresConnection) throws -> [StoredObject] {
    try objects(
      PostgresStatement(
        """
        SELECT object, object_bytes FROM (
          (SELECT object, object_bytes FROM payloads WHERE object > $1 ORDER BY object LIMIT $2)
          UNION ALL (SELECT object, object_bytes FROM inputs WHERE object > $1 ORDER BY object LIMIT $2)) AS both_tables
        ORDER BY object LIMIT $2
        """, [.text(name ?? ""), .integer(Int64(limit))]), connection)
  }

  static func objects(_ statement: PostgresStatement, _ connection: PostgresConnection) throws -> [StoredObject] {
    try connection.run([statement])[0].rows.map {
      StoredObject(name: try $0.text("object"), byteCount: try $0.int("object_bytes"))
    }
  }

  /// Where the bytes of a row are; nil: in it.
  static func object(_ row: PostgresRow) throws(JournalError) -> StoredObject? {
    guard let name = try row.optionalText("object") else { return nil }
    let byteCount = try row.int("object_bytes")
    guard (0...ValueLimits.maxPayloadBytes).contains(byteCount), name.utf8.count <= StoredObject.maxNameBytes else {
      throw .corrupt(what: "the object \(name.prefix(StoredObject.maxNameBytes)) of \(byteCount) bytes")
    }
    return StoredObject(name: name, byteCount: byteCount)
  }
}
