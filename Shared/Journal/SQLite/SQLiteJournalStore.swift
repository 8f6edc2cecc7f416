import Foundation
import GRDB
import Synchronization

/// A journal in one SQLite database (write-ahead log, every commit synced to the disk), which one process has open at a
/// time.
public final class SQLiteJournalStore: JournalStore {
  /// "QIMG", so that no other database is taken for a journal.
  static let applicationID: Int32 = 0x5149_4D47

  /// The file; nil: in memory, gone with the process.
  public let path: String?
  /// As ``JournalStore`` says.
  public let limits: JournalLimits
  /// As ``JournalStore`` says.
  public let epoch: Int64
  /// As ``JournalStore`` says.
  public let run: Int64
  /// As ``ObjectNamingJournalStore`` says.
  public let objectSpace: String
  /// As ``JournalStore`` says.
  public var location: String { path ?? "memory" }
  /// As ``JournalStore`` says.
  public var isDurable: Bool { path != nil }

  package let database: any DatabaseWriter
  let ballast: Ballast?
  private let lock: FileLock?
  private let isClosed = Mutex(false)

  /// Opens the journal, which is made if there is none.
  ///
  /// - Parameters:
  ///   - path: the file; nil: in memory.
  ///   - limits: how much is kept, and for how long.
  /// - Throws: `foreign`, `inUse` or `failed`.
  public init(path: String?, limits: JournalLimits = JournalLimits()) throws(JournalError) {
    self.path = path
    self.limits = limits
    lock = try path.map { path throws(JournalError) in try FileLock(path + ".lock") }
    if let path { try Self.prepareFile(path) }
    ballast = path.map { Ballast($0 + ".reserve", byteCount: limits.reserveBytes) }
    let opened: Opened
    do throws(JournalError) {
      opened = try Self.open(path, limits)
    } catch {
      // An earlier process may have left the disk full.
      guard case .full = error, ballast?.release() ?? false else { throw error }
      opened = try Self.open(path, limits)
    }
    (database, epoch, run, objectSpace) = (opened.database, opened.epoch, opened.run, opened.objectSpace)
  }

  private struct Opened {
    let database: any DatabaseWriter
    let epoch: Int64
    let run: Int64
    let objectSpace: String
  }

  private static func open(_ path: String?, _ limits: JournalLimits) throws(JournalError) -> Opened {
    try JournalError.wrap("open \(path ?? "memory")") {
      let configuration = Self.configuration(limits)
      let database: any DatabaseWriter
      if let path {
        database = try DatabasePool(path: path, configuration: configuration)
      } else {
        database = try DatabaseQueue(configuration: configuration)
      }
      try Schema.migrator.migrate(database)
      let opening = try database.write { try Self.nextOpening($0) }
      return Opened(database: database, epoch: opening.0, run: opening.1, objectSpace: opening.2)
    }
  }

  /// As ``JournalStore`` says.
  public func close() {
    // A second time the engine would follow a pointer that is not there any more.
    let wasClosed = isClosed.withLock { isClosed in
      defer { isClosed = true }
      return isClosed
    }
    if wasClosed { return }
    if path != nil { _ = try? database.writeWithoutTransaction { try $0.checkpoint(.truncate) } }
    try? database.close()
    lock?.release()
  }

  private static func configuration(_ limits: JournalLimits) -> Configuration {
    var configuration = Configuration()
    configuration.label = "journal"
    configuration.maximumReaderCount = 4
    configuration.prepareDatabase { db in
      try db.execute(sql: "PRAGMA synchronous = FULL")
      try db.execute(sql: "PRAGMA foreign_keys = ON")
      try db.execute(sql: "PRAGMA cell_size_check = ON")
      try db.execute(sql: "PRAGMA trusted_schema = OFF")
      if limits.maxBytes > 0, !db.configuration.readonly {
        let pageSize = try Int64.fetchOne(db, sql: "PRAGMA page_size") ?? 4096
        _ = try Int64.fetchOne(db, sql: "PRAGMA max_page_count = \(max(16, limits.maxBytes / pageSize))")
      }
    }
    return configuration
  }

  /// Makes an empty journal, or checks that the file is one, before anything is changed in it.
  private static func prepareFile(_ path: String) throws(JournalError) {
    let size = (try? FileManager.default.attributesOfItem(atPath: path)[.size] as? NSNumber)?.intValue ?? 0
    if size == 0 {
      try JournalError.wrap("make \(path)") {
        let folder = URL(filePath: path).deletingLastPathComponent()
        try FileManager.default.createDirectory(
          at: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        let database = try DatabaseQueue(path: path)
        try database.writeWithoutTransaction { db in
          // Before the first table; the file takes it over with it.
          try db.execute(
            sql: "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA synchronous = FULL; PRAGMA application_id = \(applicationID)"
          )
        }
        try database.close()
        // Prompts and images are private.
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
      }
      return
    }
    let found: Int32
    do {
      var configuration = Configuration()
      configuration.readonly = true
      let database = try DatabaseQueue(path: path, configuration: configuration)
      found = try database.read { try Int32.fetchOne($0, sql: "PRAGMA application_id") ?? 0 }
      try database.close()
    } catch {
      throw .foreign(path: path, reason: "it is not a database, or damaged: \(error)")
    }
    guard found == applicationID else {
      throw .foreign(path: path, reason: "its application id is \(found), not a journal's \(applicationID)")
    }
    try Schema.check(path)
  }

  private static func nextOpening(_ db: Database) throws -> (Int64, Int64, objectSpace: String) {
    try db.execute(
      sql: """
        UPDATE facts SET epoch = epoch + 1,
          run = CASE WHEN EXISTS (SELECT 1 FROM jobs WHERE ended_ms IS NULL) THEN run + 1 ELSE 0 END
        """)
    guard let row = try Row.fetchOne(db, sql: "SELECT epoch, run, objects FROM facts") else {
      throw JournalError.corrupt(what: "facts is empty")
    }
    return (try row.value("epoch"), try row.value("run"), try row.value("objects"))
  }
}

extension JournalError {
  /// Runs `body`; what it throws becomes a `JournalError`.
  static func wrap<Result>(_ operation: String, _ body: () throws -> Result) throws(JournalError) -> Result {
    do {
      return try body()
    } catch let error as JournalError {
      throw error
    } catch let error as DatabaseError {
      throw JournalError(error, operation)
    } catch let error as RowDecodingError {
      throw .corrupt(what: "\(operation): \(error)")
    } catch {
      throw .failed(operation: operation, reason: "\(error)")
    }
  }

  private init(_ error: DatabaseError, _ operation: String) {
    let reason = "\(error.message ?? "SQLite error \(error.extendedResultCode.rawValue)")"
    switch error.resultCode {
    case .SQLITE_FULL: self = .full(reason: reason)
    // SQLite does not say why a write or sync failed; with nothing left on the disk the reason is plain.
    case .SQLITE_IOERR where [ENOSPC, EDQUOT].contains(errno): self = .full(reason: "no space left on the disk")
    case .SQLITE_CORRUPT, .SQLITE_NOTADB: self = .corrupt(what: "\(operation): \(reason)")
    case .SQLITE_CONSTRAINT: self = .duplicate(what: reason)
    default: self = .failed(operation: operation, reason: reason)
    }
  }
}
