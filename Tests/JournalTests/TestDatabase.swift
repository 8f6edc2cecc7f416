import Foundation
import Journal
import PostgreSQLJournal
import Synchronization
import TestSupport

/// A journal's schema in the server that all tests of this process share.
final class TestDatabase: Sendable {
  private static let server = Result { try PostgreSQLServer() }
  private static let count = Mutex(0)

  let server: PostgreSQLServer
  let schema: String

  init(_ server: PostgreSQLServer? = nil) throws {
    self.server = try server ?? Self.server.get()
    schema = Self.count.withLock { count in
      count += 1
      return "journal_\(count)"
    }
  }

  var settings: PostgreSQLSettings {
    var settings = PostgreSQLSettings(url: server.url)
    settings.schema = schema
    return settings
  }

  func open(leaseSeconds: Double = 30, limits: JournalLimits = JournalLimits()) throws -> PostgreSQLJournalStore {
    var settings = settings
    settings.leaseSeconds = leaseSeconds
    return try PostgreSQLJournalStore(settings, limits: limits)
  }

  /// Changes what is in the tables.
  func sql(_ text: String) throws -> String { try server.sql("SET search_path = \(schema); \(text)") }
}
