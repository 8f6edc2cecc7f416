import ClusterCore
import Foundation
import GRDB
import Journal
import TestSupport
import Testing

@Suite("Lists of jobs", .timeLimit(.minutes(5)))
struct ListingTests {
  private static func job(
    _ number: Int, tenant: String = "t", model: String = "m", tags: [String] = [], ms: Int64? = nil
  )
    -> StoredJob
  {
    var job = Sample.job("job-\(number)", tenant: tenant)
    (job.model, job.tags, job.submittedAtMs) = (model, tags, ms ?? Int64(number))
    return job
  }

  private static func numbers(_ page: JobPage?) -> [Int]? {
    page?.records.compactMap { Int($0.job.id.dropFirst("job-".count)) }
  }

  /// All pages of a query, each with the jobs' numbers.
  private static func pages(_ store: any JournalStore, _ query: JobQuery) throws -> [[Int]] {
    var query = query, pages: [[Int]] = []
    repeat {
      let page = try #require(try store.page(query, tenant: "t"))
      pages.append(numbers(page) ?? [])
      query.after = page.next
    } while query.after != nil
    return pages
  }

  @Test(arguments: Engine.all) func conditionsAreCombined(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    var random = TestRandom("lists of jobs")
    var states: [Int: StoredState] = [:], jobs: [StoredJob] = []
    for number in 0..<200 {
      let tags = ["a", "b", "c"].filter { _ in Bool.random(using: &random) }
      let job = Self.job(number, tenant: number % 10 == 9 ? "u" : "t", model: number % 3 == 0 ? "m" : "n", tags: tags)
      try store.apply([.admit(job)])
      jobs.append(job)
      states[number] = StoredState.allCases.randomElement(using: &random)
      let image = ImageReference(job: job.id, index: 0)
      switch states[number] {
      case .succeeded: try store.apply([Sample.finish(job.id, Sample.payload(UInt64(number + 1), 4))])
      case .failed: try store.apply([.fail(image, Status(.unavailable, "no"), atMs: 2000)])
      case .cancelled: try store.apply([.fail(image, Status(.cancelled, "no"), atMs: 2000)])
      case .open, nil: break
      }
    }
    for _ in 0..<300 {
      var query = JobQuery()
      query.limit = Int.random(in: 1...30, using: &random)
      query.isAscending = Bool.random(using: &random)
      if Bool.random(using: &random) {
        query.states = query.states.filter { _ in Bool.random(using: &random) }
        if query.states.isEmpty { query.states = [.open] }
      }
      if Bool.random(using: &random) { query.model = ["m", "n", "x"].randomElement(using: &random) }
      query.tags = ["a", "b", "c"].filter { _ in Int.random(in: 0..<4, using: &random) == 0 }
      let first = Int64.random(in: 0...100, using: &random)
      query.submittedMs = first...first + Int64.random(in: 0...150, using: &random)
      var expected = jobs.filter { job in
        let number = Int(job.submittedAtMs)
        return job.tenant == "t" && query.states.contains(states[number]!)
          && query.submittedMs.contains(job.submittedAtMs)
          && query.model.map { $0 == job.model } ?? true && query.tags.allSatisfy(job.tags.contains)
      }.map { Int($0.submittedAtMs) }
      if !query.isAscending { expected.reverse() }
      let pages = try Self.pages(store, query)
      #expect(pages.flatMap { $0 } == expected, "\(query)")
      #expect(pages.allSatisfy { $0.count <= query.limit })
      #expect(pages.dropLast().allSatisfy { $0.count == query.limit })
    }
  }

  @Test(arguments: Engine.all) func theOrderIsThatOfTimeAndThenOfAdmission(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    for (number, ms) in [(0, 5), (1, 5), (2, 3), (3, 5)] { try store.apply([.admit(Self.job(number, ms: Int64(ms)))]) }
    var query = JobQuery()
    query.limit = 1
    #expect(try Self.pages(store, query) == [[3], [1], [0], [2]])
    query.isAscending = true
    #expect(try Self.pages(store, query) == [[2], [0], [1], [3]])
  }

  @Test(arguments: Engine.all) func pagesAreStableWhileJobsComeAndGo(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    var limits = JournalLimits()
    limits.retentionSeconds = 1
    let store = try journal.open(limits: limits)
    for number in 0..<6 { try store.apply([.admit(Self.job(number, tags: ["a"]))]) }
    var gone: [Int] = []
    for tags in [[], ["a"]] as [[String]] {
      var query = JobQuery()
      query.limit = 2
      query.tags = tags
      let first = try #require(try store.page(query, tenant: "t"))
      let last = try #require(first.records.last)
      let older = (0..<Int(last.job.submittedAtMs)).reversed().filter { !gone.contains($0) }
      gone.append(Int(last.job.submittedAtMs))
      // A new one, and the one that the next page begins behind is forgotten.
      let new = Int(last.job.submittedAtMs) + 10
      try store.apply([.admit(Self.job(new, tags: ["a"])), Sample.fail(last.job.id, atMs: 1)])
      #expect(try store.forgetOldJobs(nowMs: 10_000) == 1)
      query.after = first.next
      #expect(try Self.pages(store, query).flatMap { $0 } == older)
      // By its name alone its place is not known.
      query.after = JobCursor(job: last.job.id)
      #expect(try store.page(query, tenant: "t") == nil)
      query.after = JobCursor(job: "job-0")
      #expect(try store.page(query, tenant: "u") == nil)
      #expect(Self.numbers(try store.page(query, tenant: "t")) == [])
    }
    #expect(try store.problems() == [])
  }

  /// An index serves one condition; what the others leave out is looked at in portions.
  @Test(arguments: Engine.all) func theWorkForAPageIsBounded(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    let count = SQLiteJournalStore.maxListed * 2 + 10
    try store.apply((0..<count).map { .admit(Self.job($0, model: $0 < 5 ? "rare" : "m", tags: ["a"])) })
    var query = JobQuery()
    (query.tags, query.model) = (["a"], "rare")
    #expect(try Self.pages(store, query) == [[], [], [4, 3, 2, 1, 0]])
    query.tags = []
    #expect(try Self.pages(store, query) == [[4, 3, 2, 1, 0]])
  }

  @Test func tablesAreReadByTheirIndexes() throws {
    let store = try SQLiteJournalStore(path: nil)
    let queries = [
      ("jobs INDEXED BY jobs_by_time", "jobs", ""), ("jobs INDEXED BY jobs_by_state", "jobs", "AND jobs.state = 1"),
      ("jobs INDEXED BY jobs_by_model", "jobs", "AND jobs.model = 'm'"),
      ("job_tags JOIN jobs ON jobs.number = job_tags.job", "job_tags", "AND job_tags.tag = 'a'"),
    ]
    for (tables, table, condition) in queries {
      let number = table == "jobs" ? "number" : "job"
      let plan = try store.database.read {
        try Row.fetchAll(
          $0,
          sql: """
            EXPLAIN QUERY PLAN SELECT jobs.id FROM \(tables) WHERE \(table).tenant = 't' \(condition)
            AND \(table).submitted_ms <= 7 ORDER BY \(table).submitted_ms DESC, \(table).\(number) DESC
            """
        ).map { $0["detail"] as String }
      }
      #expect(plan.allSatisfy { $0.hasPrefix("SEARCH") }, "\(plan)")
    }
  }

  /// A journal of schema 2: its jobs get their model and state.
  @Test func earlierJournalsAreTakenOver() throws {
    try withFolder { folder in
      let path = folder + "/j"
      do {
        let store = try SQLiteJournalStore(path: path)
        let request = #"{"card":{"modelID":"toy/model"}}"#
        for id in ["open", "done", "failed", "cancelled", "mixed"] {
          try store.apply([.admit(Sample.job(id, images: 2, request: id == "mixed" ? "no JSON" : request))])
        }
        for index in 0..<2 {
          try store.apply([
            Sample.finish("done", index, Sample.payload(UInt64(index + 1))), Sample.fail("failed", index),
            .fail(ImageReference(job: "cancelled", index: index), Status(.cancelled, "no"), atMs: 2000),
          ])
        }
        try store.apply([
          Sample.fail("mixed", 0), .fail(ImageReference(job: "mixed", index: 1), Status(.cancelled, "no"), atMs: 2000),
        ])
        try store.database.write { db in
          for index in ["jobs_by_time", "jobs_by_state", "jobs_by_model"] { try db.execute(sql: "DROP INDEX \(index)") }
          try db.execute(
            sql: """
              DROP TRIGGER payload_object_dies;
              DROP TRIGGER input_object_dies;
              DROP TABLE dead_objects;
              DROP INDEX payloads_by_object;
              DROP INDEX inputs_by_object;
              ALTER TABLE facts DROP COLUMN objects;
              ALTER TABLE payloads DROP COLUMN object;
              ALTER TABLE payloads DROP COLUMN object_bytes;
              ALTER TABLE inputs DROP COLUMN object;
              ALTER TABLE inputs DROP COLUMN object_bytes;
              DROP TABLE deliveries;
              DROP TABLE webhooks;
              DROP TABLE job_tags;
              ALTER TABLE jobs DROP COLUMN model;
              ALTER TABLE jobs DROP COLUMN state;
              CREATE INDEX jobs_of_tenant ON jobs (tenant, number);
              DELETE FROM grdb_migrations WHERE identifier > '2';
              """)
        }
        store.close()
      }
      let store = try SQLiteJournalStore(path: path)
      defer { store.close() }
      var query = JobQuery()
      for (state, ids) in [
        (StoredState.open, ["open"]), (.succeeded, ["done"]), (.failed, ["mixed", "failed"]),
        (.cancelled, ["cancelled"]),
      ] {
        query.states = [state]
        #expect(try store.page(query, tenant: "t")?.records.map(\.job.id) == ids)
      }
      query = JobQuery()
      query.model = "toy/model"
      #expect(try store.page(query, tenant: "t")?.records.map(\.job.id) == ["cancelled", "failed", "done", "open"])
      #expect(try store.problems() == [])
    }
  }
}
