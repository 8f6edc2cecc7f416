import Foundation
import GRDB

extension SQLiteJournalStore {
  /// As ``JournalStore`` says.
  public func space() throws(JournalError) -> JournalSpace {
    try JournalError.wrap("measure its space") { try database.read { try measure($0) } }
  }

  /// Refuses jobs while there is still space left for those that run.
  ///
  /// - Parameter inputBytes: of the images that the jobs bring.
  func checkSpace(_ db: Database, for inputBytes: Int64) throws {
    guard ballast?.restore() ?? true else {
      throw JournalError.full(reason: "the disk has no \(limits.reserveBytes) bytes to reserve for the jobs that run")
    }
    // What is reserved on the disk does not count as free; within `maxBytes` nothing is reserved.
    let space = try measure(db)
    let needed = limits.maxBytes > 0 ? limits.reserveBytes : 0
    if space.freeBytes < max(needed, Self.admissionBytes) + inputBytes {
      let images = inputBytes > 0 ? "; the images of the job have \(inputBytes)" : ""
      throw JournalError.full(
        reason: "\(space.freeBytes) bytes are left, and \(needed) are kept for the jobs that run\(images)")
    }
  }

  /// A job is not admitted into less than this.
  private static let admissionBytes: Int64 = 64 << 10

  private func measure(_ db: Database) throws -> JournalSpace {
    func pragma(_ name: String) throws -> Int64 { try Int64.fetchOne(db, sql: "PRAGMA \(name)") ?? 0 }
    let pageSize = try pragma("page_size")
    let used = try (pragma("page_count") - pragma("freelist_count")) * pageSize
    var free = limits.maxBytes > 0 ? limits.maxBytes - used : Int64.max
    if let path {
      var status = statvfs()
      if statvfs(path, &status) == 0 {
        let unused = try pragma("freelist_count") * pageSize
        free = min(free, Int64(clamping: UInt64(status.f_bavail) * UInt64(status.f_frsize)) + unused)
      }
    }
    return JournalSpace(usedBytes: used, freeBytes: max(0, free))
  }

  /// As ``JournalStore`` says.
  @discardableResult
  public func forgetOldJobs(nowMs: Int64) throws(JournalError) -> Int {
    try JournalError.wrap("forget old jobs") {
      let count = try database.write { db in
        let expired = try Int64.fetchAll(
          db, sql: "SELECT number FROM jobs WHERE ended_ms < ? ORDER BY ended_ms LIMIT 100",
          arguments: [nowMs - limits.retentionSeconds * 1000])
        let surplus = expired.isEmpty ? try surplusJobs(db) : []
        for number in expired + surplus {
          let results = try Int64.fetchAll(
            db, sql: "SELECT result FROM pictures WHERE job = ? AND result IS NOT NULL", arguments: [number])
          let inputs = try String.fetchAll(
            db, sql: "SELECT digest FROM job_inputs WHERE job = ?", arguments: [number])
          try db.execute(sql: "DELETE FROM jobs WHERE number = ?", arguments: [number])
          try Self.deleteUnusedInputs(inputs, db)
          try Self.deleteUnused(results, db)
        }
        return expired.count + surplus.count
      }
      // Gives some of what is free back to the disk, and lets the write-ahead log start again.
      try database.writeWithoutTransaction { try $0.execute(sql: "PRAGMA incremental_vacuum(1000)") }
      return count
    }
  }

  private func surplusJobs(_ db: Database) throws -> [Int64] {
    var surplus = try (Int64.fetchOne(db, sql: "SELECT sum(result_bytes) FROM pictures") ?? 0) - limits.retentionBytes
    guard surplus > 0 else { return [] }
    var numbers: [Int64] = []
    let rows = try Row.fetchAll(
      db,
      sql: """
        SELECT number, (SELECT sum(result_bytes) FROM pictures WHERE job = number) AS bytes FROM jobs
        WHERE ended_ms IS NOT NULL ORDER BY ended_ms, number LIMIT 100
        """)
    for row in rows where surplus > 0 {
      numbers.append(try row.value("number"))
      surplus -= try row.value("bytes")
    }
    return numbers
  }
}
