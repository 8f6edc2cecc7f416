import ClusterCore
import Foundation
import Journal

extension PostgreSQLJournalStore {
  /// As ``JournalStore`` says: the opening's own, so that those of two never meet.
  public func lastPayloadID() throws(JournalError) -> UInt64 { UInt64(epoch) << 36 }

  /// As ``JournalStore`` says.
  public func openJobs() throws(JournalError) -> OpenJobs {
    try read("read open jobs") { connection in
      let numbers = try connection.run([
        PostgresStatement(
          "SELECT number FROM jobs WHERE ended_ms IS NULL AND owner = $1 ORDER BY number", [.integer(epoch)])
      ])[0].rows.map { try $0.integer("number") }
      return try PostgresReading.openJobs(numbers, connection)
    }
  }

  /// As ``JournalStore`` says.
  public func record(of job: String, tenant: String?) throws(JournalError) -> StoredRecord? {
    try read("read a job") { connection in
      let number = try connection.run([
        PostgresStatement("SELECT number, tenant FROM jobs WHERE id = $1", [.text(job)])
      ])[0].first
      guard let number, try tenant == nil || number.text("tenant") == tenant else { return nil }
      return try PostgresReading.records([number.integer("number")], connection).first?.record.get()
    }
  }

  /// As ``JournalStore`` says.
  public func job(ofKey key: String, tenant: String) throws(JournalError) -> (job: String, digest: Data)? {
    try read("look a key up") { connection in
      let row = try connection.run([
        PostgresStatement(
          """
          SELECT id, digest FROM idempotency_keys k JOIN jobs ON job = number WHERE k.tenant = $1 AND key = $2
          """, [.text(tenant), .text(key)])
      ])[0].first
      return try row.map { (job: try $0.text("id"), digest: try $0.data("digest")) }
    }
  }

  /// As ``JournalStore`` says.
  public func result(of image: ImageReference) throws(JournalError) -> StoredPayload? {
    try read("read a result") { connection in
      try connection.run([
        PostgresStatement(
          """
          SELECT payloads.* FROM jobs JOIN images ON job = number JOIN payloads ON payloads.id = result
          WHERE jobs.id = $1 AND image = $2
          """, [.text(image.job), .integer(Int64(image.index))])
      ])[0].first.map { try PostgresReading.payload($0) }
    }
  }

  /// Ids of jobs, of one tenant or of all, the newest first.
  package func jobs(tenant: String?, before number: Int64, limit: Int) throws(JournalError) -> [String] {
    try read("list all jobs") { connection in
      try connection.run([
        PostgresStatement(
          """
          SELECT id FROM jobs WHERE number < $1 AND ($2 IS NULL OR tenant = $2) ORDER BY number DESC LIMIT $3
          """, [.integer(number), .optional(tenant), .integer(Int64(limit))])
      ])[0].rows.map { try $0.text("id") }
    }
  }

  /// As ``JournalStore`` says.
  public func counts() throws(JournalError) -> (open: Int, all: Int) {
    try read("count jobs") { connection in
      let row = try connection.run([
        PostgresStatement("SELECT count(*) AS total, count(ended_ms) AS ended FROM jobs")
      ])[0].first
      let (all, ended) = (try row?.int("total") ?? 0, try row?.int("ended") ?? 0)
      return (all - ended, all)
    }
  }
}

/// Reads rows as what was written.
enum PostgresReading {
  /// Jobs whose rows are read at a time.
  private static let groupSize = 2000

  /// Jobs that have not ended, by their numbers in order, at one instant.
  static func openJobs(_ numbers: [Int64], _ connection: PostgresConnection) throws -> OpenJobs {
    var open: OpenJobs = ([], [])
    for start in stride(from: 0, to: numbers.count, by: groupSize) {
      try read(Array(numbers[start..<min(numbers.count, start + groupSize)]), connection, &open)
    }
    return open
  }

  private static func read(_ numbers: [Int64], _ connection: PostgresConnection, _ open: inout OpenJobs) throws {
    let list = [PostgresValue.list(numbers)]
    let results = try connection.run(
      [.beginReading] + recordStatements(list) + [
        PostgresStatement("SELECT * FROM attempts WHERE job = ANY ($1::text::bigint[])", list),
        PostgresStatement("SELECT * FROM webhooks WHERE job = ANY ($1::text::bigint[]) ORDER BY job, position", list),
        PostgresStatement(
          "SELECT job, digest FROM job_inputs WHERE job = ANY ($1::text::bigint[]) ORDER BY job, digest", list),
        PostgresStatement(
          """
          SELECT * FROM inputs WHERE digest IN (SELECT digest FROM job_inputs WHERE job = ANY ($1::text::bigint[]))
          """, list),
        PostgresStatement(
          """
          SELECT job, image, task, NULL::bigint AS steps, numerics_class, payloads.* FROM outputs
            JOIN payloads ON payload = id WHERE job = ANY ($1::text::bigint[])
          UNION ALL
          SELECT job, image, task, steps, numerics_class, payloads.* FROM checkpoints
            JOIN payloads ON payload = id WHERE job = ANY ($1::text::bigint[])
          ORDER BY job, image, task
          """, list),
        .commit,
      ])
    var (attempts, webhooks, inputs, progress) = (
      Dictionary<Int64, [PostgresRow]>(), Dictionary<Int64, [PostgresRow]>(), Dictionary<Int64, [PostgresRow]>(),
      Dictionary<Int64, [PostgresRow]>()
    )
    for row in results[4].rows { attempts[try row.integer("job"), default: []].append(row) }
    for row in results[5].rows { webhooks[try row.integer("job"), default: []].append(row) }
    for row in results[6].rows { inputs[try row.integer("job"), default: []].append(row) }
    for row in results[8].rows { progress[try row.integer("job"), default: []].append(row) }
    var images: [String: StoredInput] = [:]
    // One that is damaged is missing then.
    for row in results[7].rows { if let input = try? input(row) { images[input.digest] = input } }
    for (number, found) in try records(results[1...3]) {
      do {
        var record = try found.get()
        record.job.inputs = try (inputs[number] ?? []).map { row in
          guard let input = images[try row.text("digest")] else {
            throw JournalError.corrupt(what: "an image that job \(record.job.id) begins with")
          }
          return input
        }
        record.job.webhooks = try (webhooks[number] ?? []).map { try webhook($0) }
        open.jobs.append((record, try openImages(record, progress[number] ?? [], attempts[number] ?? [])))
      } catch JournalError.corrupt(let what) {
        open.damaged.append(DamagedJob(number: number, damage: what))
      }
    }
  }

  private static func openImages(_ record: StoredRecord, _ progress: [PostgresRow], _ attempts: [PostgresRow]) throws
    -> [OpenImage]
  {
    var images = record.outcomes.indices.filter { record.outcomes[$0] == .open }.map {
      OpenImage(reference: ImageReference(job: record.job.id, index: $0), progress: [], attempts: [:])
    }
    let places: [Int: Int] = .init(uniqueKeysWithValues: images.indices.map { (images[$0].reference.index, $0) })
    for row in attempts {
      guard let place = places[try row.int("image")] else { continue }
      let task = try bounded(row.int("task"), 0..<ValueLimits.maxTasks, "task")
      images[place].attempts[task] = UInt32(clamping: try row.integer("number"))
    }
    for row in progress {
      guard let place = places[try row.int("image")] else { continue }
      // What is damaged is made again.
      let one = try? StoredProgress(
        task: bounded(row.int("task"), 0..<ValueLimits.maxTasks, "task"),
        completedSteps: row.optionalInteger("steps").map { try bounded(Int($0), 1..<ValueLimits.maxSteps, "steps") },
        payload: payload(row), numericsClass: row.text("numerics_class"))
      if let one { images[place].progress.append(one) }
    }
    return images
  }

  private static func bounded(_ value: Int, _ range: Range<Int>, _ column: String) throws -> Int {
    guard range.contains(value) else { throw JournalError.corrupt(what: "the column \(column) holds \(value)") }
    return value
  }

  // MARK: Records

  typealias Found = (number: Int64, record: Result<StoredRecord, JournalError>)

  /// Jobs by their numbers, in order of these; those that are not there are left out.
  ///
  /// - Parameter isReading: whether a transaction is open, of whose instant they are.
  static func records(_ numbers: [Int64], _ connection: PostgresConnection, isReading: Bool = false) throws -> [Found] {
    let list = [PostgresValue.list(numbers)]
    if isReading { return try records(connection.run(recordStatements(list))[...]) }
    return try records(connection.run([.beginReading] + recordStatements(list) + [.commit])[1...3])
  }

  /// What ``records(_:)-(ArraySlice)`` takes.
  private static func recordStatements(_ list: [PostgresValue]) -> [PostgresStatement] {
    [
      PostgresStatement("SELECT * FROM jobs WHERE number = ANY ($1::text::bigint[]) ORDER BY number", list),
      PostgresStatement("SELECT * FROM images WHERE job = ANY ($1::text::bigint[]) ORDER BY job, image", list),
      PostgresStatement("SELECT * FROM idempotency_keys WHERE job = ANY ($1::text::bigint[])", list),
    ]
  }

  private static func records(_ results: ArraySlice<PostgresResult>) throws -> [Found] {
    let first = results.startIndex
    let (jobs, imageRows, keyRows) = (results[first], results[first + 1], results[first + 2])
    var images: [Int64: [PostgresRow]] = [:], keys: [Int64: PostgresRow] = [:]
    for row in imageRows.rows { images[try row.integer("job"), default: []].append(row) }
    for row in keyRows.rows { keys[try row.integer("job")] = row }
    return try jobs.rows.map { row in
      let number = try row.integer("number")
      let record = Result { () throws(JournalError) in try self.record(row, images[number] ?? [], keys[number]) }
      return (number, record)
    }
  }

  private static func record(_ row: PostgresRow, _ images: [PostgresRow], _ key: PostgresRow?) throws(JournalError)
    -> StoredRecord
  {
    let id = try row.text("id")
    let request = try row.data("request")
    let imageCount = try row.int("image_count")
    guard try Int64(Checksum.of(request)) == row.integer("request_crc") else {
      throw .corrupt(what: "the request of job \(id)")
    }
    var outcomes: [StoredOutcome] = []
    for (index, image) in images.enumerated() {
      guard try image.int("image") == index else { throw .corrupt(what: "the images of job \(id)") }
      outcomes.append(try outcome(image, id))
    }
    guard (1...ValueLimits.maxImages).contains(imageCount), outcomes.count == imageCount else {
      throw .corrupt(what: "the images of job \(id)")
    }
    var name: IdempotencyKey?
    if let key { name = IdempotencyKey(text: try key.text("key"), digest: try key.data("digest")) }
    let job = StoredJob(
      id: id, tenant: try row.text("tenant"), submittedAtMs: try row.integer("submitted_ms"),
      deadlineAtMs: try row.optionalInteger("deadline_ms"), request: request, imageCount: imageCount, key: name,
      model: try row.text("model"))
    return StoredRecord(
      number: try row.integer("number"), job: job, outcomes: outcomes, endedAtMs: try row.optionalInteger("ended_ms"))
  }

  private static func outcome(_ row: PostgresRow, _ id: String) throws(JournalError) -> StoredOutcome {
    switch try row.int("state") {
    case 0: return .open
    case 1: return .finished(byteCount: try row.int("result_bytes"), promptTokens: try row.int("prompt_tokens"))
    case 2:
      let code = try row.integer("failure_code")
      return .failed(
        Status(
          StatusCode(rawValue: Int32(clamping: code)) ?? .unknown, try row.text("failure_message"),
          field: try row.optionalText("failure_field")))
    case let state: throw .corrupt(what: "an image of job \(id) has the state \(state)")
    }
  }

  // MARK: Bytes

  static func payload(_ row: PostgresRow) throws(JournalError) -> StoredPayload {
    let id = try row.integer("id")
    let text = try row.text("shape")
    let shape = text.isEmpty ? [] : text.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
    let bytes = try row.data("bytes")
    guard shape.count <= ValueLimits.maxRank, shape.allSatisfy({ ($0 ?? -1) >= 0 }),
      let dtype = Int32(exactly: try row.integer("dtype"))
    else { throw .corrupt(what: "payload \(id) has the shape \(text.prefix(80))") }
    guard try Int64(Checksum.of(bytes)) == row.integer("crc") else {
      throw .corrupt(what: "the \(bytes.count) bytes of payload \(id)")
    }
    return StoredPayload(
      id: UInt64(bitPattern: id), name: try row.text("name"), dtype: dtype, shape: shape.compactMap { $0 },
      bytes: bytes,
      object: try object(row))
  }

  static func input(_ row: PostgresRow) throws(JournalError) -> StoredInput {
    let input = StoredInput(digest: try row.text("digest"), bytes: try row.data("bytes"), object: try object(row))
    guard try Int64(Checksum.of(input.bytes)) == row.integer("crc") else {
      throw .corrupt(what: "the \(input.bytes.count) bytes of input \(input.digest.prefix(80))")
    }
    return input
  }

  static func webhook(_ row: PostgresRow) throws(JournalError) -> StoredWebhook {
    StoredWebhook(
      url: try row.text("url"), host: try row.text("host"), secret: try row.optionalText("secret"),
      events: try row.text("events").split(separator: ",").map(String.init))
  }
}
