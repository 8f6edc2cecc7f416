import Foundation
import GRDB

extension SQLiteJournalStore: ObjectNamingJournalStore {
  /// As ``ObjectNamingJournalStore`` says.
  public func deadObjects(limit: Int) throws(JournalError) -> [StoredObject] {
    try readObjects("SELECT object, object_bytes FROM dead_objects LIMIT ?", [limit])
  }

  /// As ``ObjectNamingJournalStore`` says.
  public func forgetDeadObjects(_ names: [String]) throws(JournalError) {
    try JournalError.wrap("forget objects") {
      try database.write { db in
        for name in names { try db.run(sql: "DELETE FROM dead_objects WHERE object = ?", arguments: [name]) }
      }
    }
  }

  /// As ``ObjectNamingJournalStore`` says.
  public func namedObjects(among names: [String]) throws(JournalError) -> Set<String> {
    try JournalError.wrap("look objects up") {
      try database.read { db in
        try Set(names.filter { try Self.isNamed($0, db) })
      }
    }
  }

  /// As ``ObjectNamingJournalStore`` says.
  public func objects(after name: String?, limit: Int) throws(JournalError) -> [StoredObject] {
    try readObjects(
      """
      SELECT * FROM (SELECT object, object_bytes FROM payloads WHERE object > ?1 ORDER BY object LIMIT ?2)
      UNION ALL SELECT * FROM (SELECT object, object_bytes FROM inputs WHERE object > ?1 ORDER BY object LIMIT ?2)
      ORDER BY object LIMIT ?2
      """, [name ?? "", limit])
  }

  /// As ``ObjectNamingJournalStore`` says.
  public func objectBytes() throws(JournalError) -> Int64 {
    try JournalError.wrap("measure objects") {
      try database.read { db in
        try ["payloads", "inputs", "dead_objects"].reduce(0) { sum, table in
          try sum + (Int64.fetchOne(db, sql: "SELECT sum(object_bytes) FROM \(table) WHERE object IS NOT NULL") ?? 0)
        }
      }
    }
  }

  /// As ``ObjectNamingJournalStore`` says.
  public func hasPayload(_ id: UInt64) throws(JournalError) -> Bool {
    try has("SELECT 1 FROM payloads WHERE id = ?", [Int64(bitPattern: id)])
  }

  /// As ``ObjectNamingJournalStore`` says.
  public func hasInput(_ digest: String) throws(JournalError) -> Bool {
    try has("SELECT 1 FROM inputs WHERE digest = ?", [digest])
  }

  private func has(_ query: String, _ arguments: StatementArguments) throws(JournalError) -> Bool {
    try JournalError.wrap("look bytes up") {
      try database.read { try $0.isThere(sql: query, arguments: arguments) }
    }
  }

  private func readObjects(_ query: String, _ arguments: StatementArguments) throws(JournalError) -> [StoredObject] {
    try JournalError.wrap("read objects") {
      try database.read { db in
        try db.rows(sql: query, arguments: arguments).map {
          StoredObject(name: try $0.value("object"), byteCount: try $0.value("object_bytes"))
        }
      }
    }
  }

  // MARK: Rows

  /// Where the bytes of a row are; nil: in it.
  static func object(_ row: Row) throws -> StoredObject? {
    guard let name: String = try row.optional("object") else { return nil }
    let byteCount: Int = try row.value("object_bytes")
    guard (0...ValueLimits.maxPayloadBytes).contains(byteCount), name.utf8.count <= StoredObject.maxNameBytes else {
      throw JournalError.corrupt(what: "the object \(name.prefix(StoredObject.maxNameBytes)) of \(byteCount) bytes")
    }
    return StoredObject(name: name, byteCount: byteCount)
  }

  private static func isNamed(_ name: String, _ db: Database) throws -> Bool {
    try db.isThere(
      sql: "SELECT 1 FROM payloads WHERE object = ?1 UNION ALL SELECT 1 FROM inputs WHERE object = ?1",
      arguments: [name])
  }

  /// Of the objects that came with `changes`: those that a row names live, the others are dead.
  static func settleObjects(of changes: [JournalChange], _ db: Database) throws {
    for object in changes.flatMap(\.objects) {
      if try isNamed(object.name, db) {
        try db.run(sql: "DELETE FROM dead_objects WHERE object = ?", arguments: [object.name])
      } else {
        try db.run(
          sql: "INSERT OR IGNORE INTO dead_objects VALUES (?, ?)", arguments: [object.name, object.byteCount])
      }
    }
  }
}
