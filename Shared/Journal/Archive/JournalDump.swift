import CZlib
import Foundation

/// A journal as a stream of bytes that every engine reads: a header, a record for each row, and a record that ends it.
///
/// * Header: `QWENJRNL`, then the format's version.
/// * Record: kind (1 byte; 0 ends the dump, else the table's number), length of the body (8 bytes), body, CRC-32 (4
///   bytes) of everything before it in the stream: a record that is changed, left out or in another place is noticed.
/// * Body of a row: each value as 0 (none), 1 (a number of 8 bytes), 2 (text) or 3 (bytes), the last two with their
///   length in 8 bytes before them. Body of the end: how many rows and jobs there were.
///
/// All numbers are little-endian.
public enum JournalDump {
  static let magic = Data("QWENJRNL".utf8)
  static let version: UInt64 = 1
  /// The largest value of a row, and some more.
  static let maxBodyBytes = UInt64(ValueLimits.maxPayloadBytes + (1 << 20))

  /// Writes all of `journal`.
  ///
  /// - Parameters:
  ///   - objects: reads the bytes that are objects, which go into the dump; nil: there are none.
  ///   - write: takes the bytes, in order.
  /// - Returns: how many jobs there were.
  public static func write(
    _ journal: any JournalArchive, objects: ObjectReading? = nil, _ write: @escaping (Data) throws -> Void
  ) throws(JournalError) -> Int {
    var writer = DumpWriter(write: write)
    try JournalError.wrap("write a dump") { try writer.begin() }
    try journal.exportRows(objects: objects) { try writer.add($0) }
    try JournalError.wrap("write a dump") { try writer.end() }
    return writer.jobs
  }

  /// Puts all of a dump into `journal`, or nothing.
  ///
  /// - Parameter read: returns the next bytes, as many as asked for unless the dump ends before.
  /// - Returns: how many jobs there were.
  /// - Throws: `corrupt` with the place, when the dump is cut or damaged.
  public static func read(_ journal: any JournalArchive, _ read: @escaping (Int) throws -> Data) throws(JournalError)
    -> Int
  {
    var reader = DumpReader(read: read)
    try JournalError.wrap("read a dump") { try reader.begin() }
    return try journal.importRows { try reader.next() }
  }
}

private struct DumpWriter {
  let write: (Data) throws -> Void
  var checksum: UInt = 0
  var rows: UInt64 = 0
  var jobs = 0

  mutating func begin() throws {
    try put(JournalDump.magic + JournalDump.version.bytes)
  }

  mutating func add(_ row: ArchivedRow) throws {
    var body = Data()
    for value in row.values {
      switch value {
      case .null: body.append(0)
      case .integer(let number): body += [1] + UInt64(bitPattern: number).bytes
      case .text(let text): body += [2] + UInt64(text.utf8.count).bytes + Data(text.utf8)
      case .bytes(let bytes):
        body += [3] + UInt64(bytes.count).bytes
        body += bytes
      }
    }
    rows += 1
    if row.table == .job { jobs += 1 }
    try record(row.table.rawValue, body)
  }

  mutating func end() throws {
    try record(0, rows.bytes + UInt64(jobs).bytes)
  }

  private mutating func record(_ kind: UInt8, _ body: Data) throws {
    try put([kind] + UInt64(body.count).bytes)
    try put(body)
    try put(UInt64(checksum).bytes.prefix(4))
  }

  private mutating func put(_ data: Data) throws {
    checksum = crc(checksum, data)
    try write(data)
  }
}

private struct DumpReader {
  let read: (Int) throws -> Data
  var checksum: UInt = 0
  var offset = 0
  var rows: UInt64 = 0
  var jobs: UInt64 = 0
  var job = ""

  mutating func begin() throws {
    let header = try take(16, "the header")
    guard header.prefix(8) == JournalDump.magic else {
      throw JournalError.corrupt(what: "this is no dump of a journal: it does not begin as one")
    }
    let version = UInt64(header.suffix(8))
    guard version == JournalDump.version else {
      throw JournalError.corrupt(
        what: "the dump's format has the version \(version), this program knows \(JournalDump.version)")
    }
  }

  mutating func next() throws -> ArchivedRow? {
    let start = offset
    let head = try take(9, "record \(rows + 1)")
    let kind = head[head.startIndex], count = UInt64(head.suffix(8))
    guard count <= JournalDump.maxBodyBytes else { throw damage(start, "it would have \(count) bytes") }
    let body = try take(Int(count), "record \(rows + 1)")
    let expected = UInt64(checksum).bytes.prefix(4)
    guard try take(4, "record \(rows + 1)") == expected else { throw damage(start, "its checksum is wrong") }
    if kind == 0 {
      guard body == rows.bytes + jobs.bytes else {
        throw damage(start, "the dump has \(rows) rows, it tells of others")
      }
      guard try read(1).isEmpty else { throw damage(offset, "there is something behind the end") }
      return nil
    }
    guard let table = ArchivedRow.Table(rawValue: kind) else { throw damage(start, "there is no kind \(kind)") }
    rows += 1
    let row = ArchivedRow(table, try values(body, start))
    guard row.values.count == table.columns.count else { throw damage(start, "it has \(row.values.count) values") }
    if let id = row.jobID { (job, jobs) = (id, jobs + 1) }
    guard jobs > 0 else { throw damage(start, "it belongs to no job") }
    return row
  }

  private func values(_ body: Data, _ start: Int) throws -> [ArchivedValue] {
    var values: [ArchivedValue] = [], rest = body[...]
    func part(_ count: Int) throws -> Data {
      guard count <= rest.count else { throw damage(start, "a value is cut") }
      defer { rest = rest.dropFirst(count) }
      return Data(rest.prefix(count))
    }
    while let kind = rest.first {
      rest = rest.dropFirst()
      if kind == 0 {
        values.append(.null)
        continue
      }
      let number = UInt64(try part(8))
      switch kind {
      case 1: values.append(.integer(Int64(bitPattern: number)))
      case 2:
        guard let text = String(data: try part(Int(clamping: number)), encoding: .utf8) else {
          throw damage(start, "a text is not UTF-8")
        }
        values.append(.text(text))
      case 3: values.append(.bytes(try part(Int(clamping: number))))
      default: throw damage(start, "there is no value of kind \(kind)")
      }
    }
    return values
  }

  private mutating func take(_ count: Int, _ what: String) throws -> Data {
    var data = Data()
    while data.count < count {
      let part = try read(min(count - data.count, 1 << 20))
      if part.isEmpty { throw damage(offset + data.count, "it ends in \(what)") }
      data += part
    }
    offset += count
    checksum = crc(checksum, data)
    return data
  }

  private func damage(_ place: Int, _ reason: String) -> JournalError {
    .corrupt(
      what: "the dump at byte \(place), record \(rows + 1)\(job.isEmpty ? "" : ", of or behind job \(job)"): \(reason)")
  }
}

private func crc(_ start: UInt, _ data: Data) -> UInt {
  data.withUnsafeBytes { crc32_z(start, $0.baseAddress?.assumingMemoryBound(to: UInt8.self), data.count) }
}

extension UInt64 {
  fileprivate var bytes: Data { withUnsafeBytes(of: littleEndian) { Data($0) } }

  fileprivate init(_ data: Data) { self = data.reversed().reduce(0) { $0 << 8 | UInt64($1) } }
}
