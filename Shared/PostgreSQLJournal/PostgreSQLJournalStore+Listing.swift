import Foundation
import Journal

extension PostgreSQLJournalStore {
  /// Jobs that one query looks at, at most: with several conditions, an index serves one of them.
  package static let maxListed = 2000

  /// As ``JournalStore`` says.
  public func page(_ query: JobQuery, tenant: String) throws(JournalError) -> JobPage? {
    try read("list jobs") { connection in
      var start: PostgresListing.Place =
        query.isAscending ? (query.submittedMs.lowerBound, .min) : (query.submittedMs.upperBound, .max)
      if let after = query.after {
        guard let place = try PostgresListing.place(after, query, tenant, connection) else { return nil }
        if query.isAscending ? place > start : place < start { start = place }
      }
      var page = JobPage(records: []), admitted: [Int64] = [], lookedAt = 0
      var portion = query.limit + 1
      search: while true {
        let listing = PostgresListing(query: query, tenant: tenant, start: start, count: portion)
        let entries = try listing.entries(connection)
        for entry in entries {
          lookedAt += 1
          if entry.isAdmitted {
            guard admitted.count < query.limit else { break search }
            admitted.append(entry.number)
          }
          start = (entry.submittedAtMs, entry.number)
          page.next = JobCursor(job: entry.id, submittedAtMs: entry.submittedAtMs)
          if lookedAt == Self.maxListed { break search }
        }
        if entries.count < portion {
          page.next = nil
          break
        }
        portion = min(Self.maxListed - lookedAt, max(portion * 4, 200))
      }
      let found = try PostgresReading.records(admitted, connection)
      let records = Dictionary(found.map { ($0.number, $0.record) }) { first, _ in first }
      // Those that are damaged are left out, and those that were removed in between.
      page.records = admitted.compactMap { try? records[$0]?.get() }
      return page
    }
  }
}

/// A portion of a tenant's jobs in order, by the index that leaves fewest: that of a tag, else of a state, else of a
/// model.
struct PostgresListing {
  typealias Place = (submittedAtMs: Int64, number: Int64)

  struct Entry {
    let number: Int64
    let id: String
    let submittedAtMs: Int64
    /// Whether the job fulfils what its index does not say.
    let isAdmitted: Bool
  }

  let query: JobQuery
  let tenant: String
  let start: Place
  let count: Int

  /// - Returns: nil when there is no such job, and its place is not known.
  static func place(_ cursor: JobCursor, _ query: JobQuery, _ tenant: String, _ connection: PostgresConnection) throws
    -> Place?
  {
    let row = try connection.run([
      PostgresStatement(
        "SELECT submitted_ms, number FROM jobs WHERE id = $1 AND tenant = $2", [.text(cursor.job), .text(tenant)])
    ])[0].first
    if let row { return (try row.integer("submitted_ms"), try row.integer("number")) }
    return cursor.submittedAtMs.map { ($0, query.isAscending ? .min : .max) }
  }

  /// The next jobs behind the start; fewer than `count` when there are no more.
  func entries(_ connection: PostgresConnection) throws -> [Entry] {
    let states = query.states.map(\.rawValue).sorted()
    let isAnyState = states.count == StoredState.allCases.count
    let order = query.isAscending ? "ASC" : "DESC"
    let source: String
    if !query.tags.isEmpty {
      source = Self.source(
        "job_tags JOIN jobs ON number = job", "job_tags", "job", "job_tags.tag = $6", query.isAscending)
    } else if !isAnyState {
      // One for each state, each in the order of its index.
      source = states.map {
        "(\(Self.source("jobs", "jobs", "number", "jobs.state = \($0) AND $6::text IS NULL", query.isAscending)))"
      }.joined(separator: " UNION ALL ")
    } else if query.model != nil {
      source = Self.source(
        "jobs", "jobs", "number", "left(jobs.model, 256) = left($7, 256) AND $6::text IS NULL", query.isAscending)
    } else {
      source = Self.source("jobs", "jobs", "number", "$6::text IS NULL", query.isAscending)
    }
    let statement = PostgresStatement(
      """
      SELECT number, id, submitted_ms, state = ANY ($8::text::bigint[]) AND ($7 IS NULL OR model = $7)
        AND NOT EXISTS (SELECT 1 FROM jsonb_array_elements_text($9::text::jsonb) AS wanted WHERE NOT EXISTS (
          SELECT 1 FROM job_tags t WHERE t.tenant = $1 AND t.tag = wanted AND t.submitted_ms = listed.submitted_ms
            AND t.job = listed.number)) AS admitted
      FROM (\(source)) AS listed ORDER BY submitted_ms \(order), number \(order) LIMIT $4
      """,
      [
        .text(tenant), .integer(start.submittedAtMs), .integer(start.number), .integer(Int64(count)),
        .integer(query.isAscending ? query.submittedMs.upperBound : query.submittedMs.lowerBound),
        .optional(query.tags.first), .optional(query.model), .list(states.map(Int64.init)),
        try .json(Array(query.tags.dropFirst())),
      ])
    return try connection.run([statement])[0].rows.map { row in
      Entry(
        number: try row.integer("number"), id: try row.text("id"), submittedAtMs: try row.integer("submitted_ms"),
        isAdmitted: try row.integer("admitted") == 1)
    }
  }

  private static func source(
    _ tables: String, _ table: String, _ number: String, _ condition: String, _ isAscending: Bool
  ) -> String {
    let (behind, within, order) = isAscending ? (">", "<=", "ASC") : ("<", ">=", "DESC")
    return """
      SELECT jobs.number, jobs.id, jobs.submitted_ms, jobs.state, jobs.model FROM \(tables)
      WHERE \(table).tenant = $1 AND \(condition) AND \(table).submitted_ms \(within) $5
        AND (\(table).submitted_ms, \(table).\(number)) \(behind) ($2, $3)
      ORDER BY \(table).submitted_ms \(order), \(table).\(number) \(order) LIMIT $4
      """
  }
}
