import CPostgreSQL
import Foundation
import Journal
import Synchronization

/// A server as the settings name it, and how connections to it are made.
final class PostgresServer: Sendable {
  /// For people, without secrets.
  let location: String
  let settings: PostgreSQLSettings
  private let parameters: [String: String]
  /// After a failure no attempt is made before this time, so that calls fail at once while the server is away.
  private let pause = Mutex<(until: ContinuousClock.Instant, failure: PostgresFailure?, seconds: Double)>(
    (.now, nil, 0))

  /// - Throws: `failed` when the settings do not name a server.
  init(_ settings: PostgreSQLSettings) throws(JournalError) {
    self.settings = settings
    try settings.check()
    var given = try Self.parse(settings.url)
    let hosts = given["host"] ?? given["hostaddr"] ?? given["service"] ?? "localhost"
    location = "postgresql://\(hosts):\(given["port"] ?? "5432")/\(given["dbname"] ?? "") schema \(settings.schema)"
    for (name, value) in Self.defaults where given[name] == nil { given[name] = value }
    given["connect_timeout"] = given["connect_timeout"] ?? "\(max(2, settings.connectSeconds))"
    given["client_encoding"] = "UTF8"
    given["application_name"] = given["application_name"] ?? "qwen-image gateway"
    parameters = given
  }

  /// What is set unless the address says otherwise: of several hosts the one that takes writes, and a peer that has
  /// vanished is noticed in seconds.
  private static let defaults = [
    "target_session_attrs": "read-write", "keepalives_idle": "5", "keepalives_interval": "2", "keepalives_count": "3",
    "tcp_user_timeout": "10000",
  ]

  static let badAddress = "journal.url is neither postgresql://... nor a list such as \"host=... dbname=...\""

  static func parse(_ url: String) throws(JournalError) -> [String: String] {
    // libpq's message may repeat a part of the address, in which there may be a password.
    guard let options = PQconninfoParse(url, nil) else {
      throw .failed(operation: "open", reason: badAddress)
    }
    defer { PQconninfoFree(options) }
    var values: [String: String] = [:]
    var option = options
    while let keyword = option.pointee.keyword {
      if let value = option.pointee.val { values[String(cString: keyword)] = String(cString: value) }
      option += 1
    }
    return values
  }

  /// Makes a connection; blocks for `connectSeconds` for each address at most.
  func connect() throws(PostgresFailure) -> PostgresConnection {
    let waiting = pause.withLock { $0.until > .now ? $0.failure : nil }
    if let waiting { throw waiting }
    do throws(PostgresFailure) {
      let connection = try open()
      pause.withLock { $0 = (.now, nil, 0) }
      return connection
    } catch {
      pause.withLock { pause in
        let seconds = min(2, max(0.05, pause.seconds * 2))
        pause = (.now + .seconds(seconds), error, seconds)
      }
      throw error
    }
  }

  private func open() throws(PostgresFailure) -> PostgresConnection {
    var parameters = parameters
    if !settings.passwordFile.isEmpty { parameters["password"] = try password() }
    let names = parameters.keys.sorted()
    let cNames = names.map { strdup($0) } + [nil], cValues = names.map { strdup(parameters[$0] ?? "") } + [nil]
    defer { for text in cNames + cValues { free(text) } }
    let pointer = PQconnectdbParams(
      cNames.map { UnsafePointer($0) }, cValues.map { UnsafePointer($0) }, 0)
    guard let pointer else { throw PostgresFailure(kind: .lost, message: "there is no memory for a connection") }
    guard PQstatus(pointer) == CONNECTION_OK else {
      let message = PostgresConnection.text(of: pointer)
      PQfinish(pointer)
      throw PostgresFailure(kind: .lost, message: redact(message, parameters["password"]))
    }
    let connection = try PostgresConnection(taking: pointer, statementSeconds: settings.statementSeconds)
    try prepare(connection)
    return connection
  }

  private func redact(_ message: String, _ password: String?) -> String {
    guard let password, !password.isEmpty else { return message }
    return message.replacing(password, with: "***")
  }

  private func password() throws(PostgresFailure) -> String {
    guard let text = try? String(contentsOfFile: settings.passwordFile, encoding: .utf8),
      let line = text.split(separator: "\n", maxSplits: 1).first
    else {
      throw PostgresFailure(
        kind: .lost, message: "journal.passwordFile \(settings.passwordFile) cannot be read, or is empty")
    }
    return String(line)
  }

  /// What every session of the journal has.
  private func prepare(_ connection: PostgresConnection) throws(PostgresFailure) {
    guard connection.serverVersion >= 140_000 else {
      throw PostgresFailure(
        kind: .unexpected, message: "the server's version is \(connection.serverVersion / 10_000), 14 is the oldest")
    }
    let limit = "\(Int(settings.statementSeconds * 1000))"
    try connection.run([
      PostgresStatement(
        """
        SELECT set_config('search_path', $1, false), set_config('statement_timeout', $2, false),
          set_config('lock_timeout', $2, false), set_config('idle_in_transaction_session_timeout', $2, false),
          set_config('default_transaction_isolation', 'read committed', false),
          set_config('synchronous_commit',
            CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false),
          set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false),
          set_config('tcp_keepalives_count', '3', false)
        """, [.text(settings.schema), .text(limit)])
    ])
    // A statement of a gateway that is gone ends; not every system can tell.
    _ = try? connection.run([
      PostgresStatement("SELECT set_config('client_connection_check_interval', '2000', false)")
    ])
  }
}
