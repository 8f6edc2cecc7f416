import GRDB

extension SQLiteJournalStore {
  /// Jobs that one query looks at, at most: with several conditions, an index serves one of them.
  package static let maxListed = 2000

  /// As ``JournalStore`` says.
  public func page(_ query: JobQuery, tenant: String) throws(JournalError) -> JobPage? {
    try JournalError.wrap("list jobs") {
      try database.read { db in
        var listing = Listing(query, tenant: tenant)
        guard try listing.begin(db) else { return nil }
        var page = JobPage(records: [])
        var lookedAt = 0
        while let row = try listing.next() {
          lookedAt += 1
          if try listing.admits(row, db) {
            guard page.records.count < query.limit else { return page }
            if let record = try Self.soundRecord(row.number, db) { page.records.append(record) }
          }
          page.next = JobCursor(job: row.id, submittedAtMs: row.submittedAtMs)
          if lookedAt == Self.maxListed { return page }
        }
        page.next = nil
        return page
      }
    }
  }

  private static func soundRecord(_ number: Int64, _ db: Database) throws -> StoredRecord? {
    guard let row = try db.row(sql: "SELECT * FROM jobs WHERE number = ?", arguments: [number]) else { return nil }
    do { return try record(row, db) } catch JournalError.corrupt { return nil }
  }
}

/// Reads jobs in order by the index that leaves fewest: that of a tag, else of a state, else of a model.
private struct Listing {
  struct Entry {
    let number: Int64
    let id: String
    let submittedAtMs: Int64
    let state: Int
    let model: String

    init(_ row: Row) throws {
      number = try row.value("number")
      id = try row.value("id")
      submittedAtMs = try row.value("submitted_ms")
      state = try row.value("state")
      model = try row.value("model")
    }

    var place: (Int64, Int64) { (submittedAtMs, number) }
  }

  private let query: JobQuery
  private let tenant: String
  private var start: (submittedAtMs: Int64, number: Int64)
  /// One for each state whose index is read; the next entry of each.
  private var sources: [(cursor: RowCursor, head: Entry?)] = []

  init(_ query: JobQuery, tenant: String) {
    self.query = query
    self.tenant = tenant
    start =
      query.isAscending
      ? (query.submittedMs.lowerBound, Int64.min) : (query.submittedMs.upperBound, Int64.max)
  }

  /// - Returns: whether the job to begin behind is there, or its place is known.
  mutating func begin(_ db: Database) throws -> Bool {
    if let after = query.after {
      let row = try db.row(
        sql: "SELECT submitted_ms, number FROM jobs WHERE id = ? AND tenant = ?", arguments: [after.job, tenant])
      let place: (Int64, Int64)
      if let row {
        place = (try row.value("submitted_ms"), try row.value("number"))
      } else if let submittedAtMs = after.submittedAtMs {
        place = (submittedAtMs, query.isAscending ? Int64.min : Int64.max)
      } else {
        return false
      }
      if query.isAscending ? place > start : place < start { start = place }
    }
    if let tag = query.tags.first {
      try open("job_tags JOIN jobs ON jobs.number = job_tags.job", "job_tags", "tag = ?", tag, db)
    } else if query.states.count < StoredState.allCases.count {
      for state in query.states.map(\.rawValue).sorted() {
        try open("jobs INDEXED BY jobs_by_state", "jobs", "state = ?", state, db)
      }
    } else if let model = query.model {
      try open("jobs INDEXED BY jobs_by_model", "jobs", "model = ?", model, db)
    } else {
      try open("jobs INDEXED BY jobs_by_time", "jobs", "tenant = ?", tenant, db)
    }
    return true
  }

  /// Reads `tables` by the index of `table` that begins with the tenant and the condition.
  private mutating func open(
    _ tables: String, _ table: String, _ condition: String, _ value: some DatabaseValueConvertible, _ db: Database
  ) throws {
    let (bound, direction) = query.isAscending ? (">=", "ASC") : ("<=", "DESC")
    let number = table == "jobs" ? "number" : "job"
    let cursor = try Row.fetchCursor(
      db,
      sql: """
        SELECT jobs.number, jobs.id, jobs.submitted_ms, jobs.state, jobs.model FROM \(tables)
        WHERE \(table).tenant = ? AND \(table).\(condition) AND \(table).submitted_ms \(bound) ?
        ORDER BY \(table).submitted_ms \(direction), \(table).\(number) \(direction)
        """,
      arguments: [tenant, value, start.submittedAtMs])
    sources.append((cursor, try cursor.next().map { try Entry($0) }))
  }

  /// The next job behind the beginning and within the times; nil: there is none.
  mutating func next() throws -> Entry? {
    while true {
      var first: Int?
      for index in sources.indices {
        guard let head = sources[index].head else { continue }
        guard let other = first.flatMap({ sources[$0].head }) else {
          first = index
          continue
        }
        if query.isAscending ? head.place < other.place : head.place > other.place { first = index }
      }
      guard let first, let entry = sources[first].head else { return nil }
      sources[first].head = try sources[first].cursor.next().map { try Entry($0) }
      let isBehind = query.isAscending ? entry.place > start : entry.place < start
      guard isBehind else { continue }
      return query.submittedMs.contains(entry.submittedAtMs) ? entry : nil
    }
  }

  /// Whether a job fulfils what its index does not say.
  func admits(_ entry: Entry, _ db: Database) throws -> Bool {
    guard StoredState(rawValue: entry.state).map(query.states.contains) ?? true else { return false }
    if let model = query.model, model != entry.model { return false }
    for tag in query.tags.dropFirst() {
      let isThere = try db.isThere(
        sql: "SELECT 1 FROM job_tags WHERE tenant = ? AND tag = ? AND submitted_ms = ? AND job = ?",
        arguments: [tenant, tag, entry.submittedAtMs, entry.number])
      guard isThere else { return false }
    }
    return true
  }
}
