import CPostgreSQL
import Foundation

/// A parameter of a statement. All travel in binary form.
enum PostgresValue: Sendable {
  case null
  /// bigint.
  case integer(Int64)
  case text(String)
  /// bytea.
  case bytes(Data)

  static func optional(_ value: Int64?) -> PostgresValue { value.map { .integer($0) } ?? .null }
  static func optional(_ text: String?) -> PostgresValue { text.map { .text($0) } ?? .null }

  /// A list of numbers, for `$1::text::bigint[]`.
  static func list(_ numbers: some Sequence<Int64>) -> PostgresValue {
    .text("{\(numbers.map(String.init).joined(separator: ","))}")
  }

  /// The number by which the server knows the type.
  var type: Oid {
    switch self {
    case .integer: 20
    case .text, .null: 25
    case .bytes: 17
    }
  }
}

/// A statement with its parameters. Its text names a prepared statement, so there must be few texts.
struct PostgresStatement: Sendable {
  let sql: String
  let values: [PostgresValue]

  init(_ sql: String, _ values: [PostgresValue] = []) {
    (self.sql, self.values) = (sql, values)
  }

  static let commit = PostgresStatement("COMMIT")
  static let rollback = PostgresStatement("ROLLBACK")
  static let begin = PostgresStatement("BEGIN")
  /// Everything that is read after it is of one instant.
  static let beginReading = PostgresStatement("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

  /// Prepared statements of one text with parameters of other types are different ones.
  var key: String { sql + "|" + values.map { String($0.type) }.joined(separator: ",") }
}

/// Why a statement or a connection has failed.
struct PostgresFailure: Error, CustomStringConvertible {
  enum Kind: Equatable {
    /// There is no connection, or there is none any more; whether what was sent was done is not known.
    case lost
    /// The server has refused the statement, with this SQLSTATE.
    case refused(String)
    /// Not as expected.
    case unexpected
  }
  let kind: Kind
  /// For people; no secrets.
  let message: String

  var description: String {
    if case .refused(let state) = kind { "\(message) (SQLSTATE \(state))" } else { message }
  }

  /// The SQLSTATE, if the server has sent one.
  var state: String? { if case .refused(let state) = kind { state } else { nil } }

  /// Whether the same transaction may succeed when it is made again at once: serialization failures, deadlocks, a row
  /// that another transaction has removed in between.
  var isTransient: Bool { ["40001", "40P01", "23503"].contains(state ?? "") }

  /// Whether the connection's prepared statements are out of date.
  var isStale: Bool { ["26000", "0A000", "42P05"].contains(state ?? "") }

  /// Whether the server cannot serve now: lost, shutting down, a standby, out of connections, a time limit.
  var isUnavailable: Bool {
    guard let state else { return kind == .lost }
    return ["08", "57"].contains(String(state.prefix(2)))
      || ["53300", "53200", "25006", "55P03", "25P03"].contains(state)
  }
}
