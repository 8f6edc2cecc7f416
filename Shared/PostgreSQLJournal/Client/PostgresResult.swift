import CPostgreSQL
import Foundation
import Journal

/// Rows that a statement has returned.
final class PostgresResult {
  private let pointer: OpaquePointer
  /// How many rows there are.
  let count: Int

  /// Takes `pointer` over.
  init(_ pointer: OpaquePointer) {
    self.pointer = pointer
    count = Int(PQntuples(pointer))
  }

  deinit { PQclear(pointer) }

  /// Its rows, in order.
  var rows: some Sequence<PostgresRow> { (0..<count).lazy.map { PostgresRow(result: self, index: Int32($0)) } }

  /// The first row.
  var first: PostgresRow? { count > 0 ? PostgresRow(result: self, index: 0) : nil }

  fileprivate func column(_ name: String) throws(JournalError) -> Int32 {
    let column = PQfnumber(pointer, name)
    guard column >= 0 else { throw .failed(operation: "read the column \(name)", reason: "there is no such column") }
    return column
  }

  fileprivate func bytes(_ row: Int32, _ column: Int32) -> UnsafeRawBufferPointer? {
    guard PQgetisnull(pointer, row, column) == 0 else { return nil }
    return UnsafeRawBufferPointer(
      start: PQgetvalue(pointer, row, column), count: Int(PQgetlength(pointer, row, column)))
  }

  fileprivate func type(_ column: Int32) -> Oid { PQftype(pointer, column) }
}

/// A row of a result.
struct PostgresRow {
  fileprivate let result: PostgresResult
  fileprivate let index: Int32

  /// The column's number; it may be of any integer type or a truth value.
  func integer(_ name: String) throws(JournalError) -> Int64 {
    guard let value = try optionalInteger(name) else { throw .corrupt(what: "the column \(name) holds nothing") }
    return value
  }

  func optionalInteger(_ name: String) throws(JournalError) -> Int64? {
    guard let bytes = try bytes(name) else { return nil }
    guard [1, 2, 4, 8].contains(bytes.count) else { throw .corrupt(what: "the column \(name) does not hold a number") }
    let bits = bytes.reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    switch bytes.count {
    case 1: return Int64(bits)
    case 2: return Int64(Int16(truncatingIfNeeded: bits))
    case 4: return Int64(Int32(truncatingIfNeeded: bits))
    default: return Int64(bitPattern: bits)
    }
  }

  /// A number as an `Int`.
  func int(_ name: String) throws(JournalError) -> Int { Int(try integer(name)) }

  func text(_ name: String) throws(JournalError) -> String {
    guard let text = try optionalText(name) else { throw .corrupt(what: "the column \(name) holds nothing") }
    return text
  }

  func optionalText(_ name: String) throws(JournalError) -> String? {
    guard let bytes = try bytes(name) else { return nil }
    return String(decoding: bytes, as: UTF8.self)
  }

  func data(_ name: String) throws(JournalError) -> Data {
    guard let bytes = try bytes(name) else { throw .corrupt(what: "the column \(name) holds nothing") }
    return Data(bytes)
  }

  /// The column's value, of whatever type.
  func archived(_ name: String) throws(JournalError) -> ArchivedValue {
    guard let bytes = try bytes(name) else { return .null }
    switch result.type(try result.column(name)) {
    case 17: return .bytes(Data(bytes))
    case 20, 21, 23: return .integer(try integer(name))
    default: return .text(String(decoding: bytes, as: UTF8.self))
    }
  }

  private func bytes(_ name: String) throws(JournalError) -> UnsafeRawBufferPointer? {
    result.bytes(index, try result.column(name))
  }
}
