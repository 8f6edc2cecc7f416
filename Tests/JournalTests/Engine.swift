import Foundation
import GRDB
import Journal
import PostgreSQLJournal
import TestSupport
import Testing

/// What can be behind a journal: all of them keep the same promises.
enum Engine: CaseIterable, CustomTestStringConvertible {
  case sqlite
  case postgresql

  /// Those that are installed.
  static let all = allCases.filter { $0 != .postgresql || PostgreSQLServer.programs != nil }

  var testDescription: String { self == .sqlite ? "SQLite" : "PostgreSQL" }

  /// An empty journal.
  func journal() throws -> TestJournal { try TestJournal(self) }
}

/// A journal that is gone afterwards.
final class TestJournal {
  let engine: Engine
  private let folder = NSTemporaryDirectory() + "journal-\(UInt64.random(in: 0 ... .max))"
  private let database: TestDatabase?
  private var stores: [any JournalStore] = []

  init(_ engine: Engine) throws {
    self.engine = engine
    database = engine == .postgresql ? try TestDatabase() : nil
    if database == nil { try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true) }
  }

  func close() {
    for store in stores { store.close() }
    stores = []
    try? FileManager.default.removeItem(atPath: folder)
  }

  func open(limits: JournalLimits = JournalLimits()) throws -> any JournalStore {
    let store: any JournalStore
    if let database {
      store = try database.open(limits: limits)
    } else {
      store = try SQLiteJournalStore(path: folder + "/state/j", limits: limits)
    }
    stores.append(store)
    return store
  }

  /// Closes `store` and opens the journal again, with its open jobs.
  func reopen(_ store: any JournalStore, limits: JournalLimits = JournalLimits()) throws -> any JournalStore {
    if let store = store as? any SharedJournalStore { try store.releaseLease() }
    store.close()
    stores.removeAll { $0 === store }
    let again = try open(limits: limits)
    if let again = again as? any SharedJournalStore { _ = try again.adoptJobs(limit: .max) }
    return again
  }

  /// What takes rows in, while no gateway has the journal open.
  func emptyArchive() throws -> any JournalArchive {
    if database != nil { return try postgresArchive() }
    return try #require(try open() as? SQLiteJournalStore)
  }

  func postgresArchive() throws -> any JournalArchive { try PostgreSQLArchive(#require(database).settings) }

  /// The journal after rows were taken in, with its open jobs.
  func openAgain() throws -> any JournalStore {
    guard database != nil else { return try #require(stores.last) }
    let store = try open()
    if let store = store as? any SharedJournalStore { _ = try store.adoptJobs(limit: .max) }
    return store
  }

  /// Changes tables in a way that no journal does; `sql` is as SQLite takes it.
  func damage(_ sql: String) throws {
    if let database {
      _ = try database.sql(Self.translated(sql))
    } else {
      try sqlite.write { try $0.execute(sql: sql) }
    }
  }

  /// The single column of all rows, as text.
  func column(_ sql: String) throws -> [String] {
    if let database { return try database.sql(Self.translated(sql)).split(separator: "\n").map(String.init) }
    return try sqlite.read { try String.fetchAll($0, sql: sql) }
  }

  private var sqlite: any DatabaseWriter {
    get throws { try #require(stores.last as? SQLiteJournalStore).database }
  }

  private static func translated(_ sql: String) -> String {
    sql.replacing("pictures", with: "images").replacing("picture", with: "image")
      .replacing(#/zeroblob\((\d+)\)/#) { "decode(repeat('00', \($0.1)), 'hex')" }
      .replacing("x'00'", with: "'\\x00'")
  }
}

extension JournalStore {
  func dueDeliveries(nowMs: Int64, limit: Int) throws(JournalError) -> [DueDelivery] {
    try dueDeliveries(nowMs: nowMs, excludingHosts: [], excluding: [], limit: limit)
  }
}
