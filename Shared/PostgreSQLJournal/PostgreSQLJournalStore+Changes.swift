import ClusterCore
import Foundation
import Journal
import Synchronization

/// What is known of this opening's writes. A write has a number, which the transaction leaves in the database: after a
/// connection was lost during a commit, it says whether the commit was made.
struct WriteState: Sendable {
  /// The last number that was used.
  var number: Int64 = 0
  /// A write whose outcome is not known.
  var unknown: (number: Int64, changes: [JournalChange])?
  /// Changes that turned out to be made after their `apply` had thrown: they are not made again when they come again.
  var made: ArraySlice<JournalChange> = []
}

extension PostgreSQLJournalStore {
  /// As ``JournalStore`` says.
  ///
  /// After `unavailable` the same changes may be applied again, with others behind them: what turns out to have been
  /// made of them in the meantime is not made twice.
  public func apply(_ changes: [JournalChange]) throws(JournalError) {
    for change in changes { try change.check() }
    try write("write", changes) { try self.statements(changes) }
  }

  /// As ``JournalStore`` says.
  public func fail(_ damaged: [DamagedJob], code: StatusCode, atMs: Int64) throws(JournalError) {
    guard !damaged.isEmpty else { return }
    try write("fail damaged jobs", []) {
      damaged.map { job in
        PostgresStatement(
          "SELECT fail_job($1, $2, $3, $4, $5)",
          [
            .integer(epoch), .integer(job.number), .integer(Int64(code.rawValue)),
            .text("\(JournalError.corrupt(what: job.damage))"), .integer(atMs),
          ])
      }
    }
  }

  /// Makes a transaction, and again while the server cannot be reached and for as long as the settings allow.
  ///
  /// - Parameters:
  ///   - changes: those that `statements` are for; empty: making the statements twice does no harm.
  ///   - statements: of what has not been made.
  func write(_ operation: String, _ changes: [JournalChange], _ statements: () throws -> [PostgresStatement])
    throws(JournalError)
  {
    let deadline = ContinuousClock.now + .seconds(server.settings.patienceSeconds)
    try JournalError.wrapPostgres(operation) {
      // One write at a time: the state is of the last one.
      var outcome: Result<Void, any Error> = .success(())
      writes.withLock { state in
        outcome = Result {
          while true {
            do {
              return try attempt(&state, changes, statements)
            } catch let failure as PostgresFailure where failure.isUnavailable || failure.isTransient || failure.isStale
            {
              if ContinuousClock.now >= deadline { throw failure }
              Thread.sleep(forTimeInterval: failure.isTransient ? 0.01 : 0.1)
            }
          }
        }
      }
      try outcome.get()
    }
  }

  private func attempt(
    _ state: inout WriteState, _ changes: [JournalChange], _ statements: () throws -> [PostgresStatement]
  ) throws {
    try resolve(&state)
    var left = changes[...]
    while let made = state.made.first, made == left.first {
      state.made.removeFirst()
      left.removeFirst()
    }
    state.made = []
    if left.isEmpty, !changes.isEmpty { return }
    let todo = try left.count == changes.count ? statements() : self.statements(Array(left))
    if todo.isEmpty { return }
    state.number += 1
    let number = state.number
    let all =
      [
        .begin,
        PostgresStatement("SELECT begin_write($1, $2, $3)", [.integer(epoch), .integer(token), .integer(number)]),
      ] + todo + [.commit]
    var warnings = 0
    do {
      try writer.use { _ = try $0.run(all, warnings: &warnings) }
    } catch let failure as PostgresFailure where failure.isOpen {
      state.unknown = (number, Array(left))
      throw failure
    }
    // A commit that was not to wait for its replica any more says so. One that is confirmed confirms those before it.
    if warnings > 0 {
      state.unknown = (number, Array(left))
      try resolve(&state)
      state.made = []
    }
  }

  /// Finds out what has become of a write whose outcome is not known. If it was not made, it never will be.
  private func resolve(_ state: inout WriteState) throws {
    guard let unknown = state.unknown else { return }
    var warnings = 0
    let results = try writer.use { connection in
      // Waits for the end of that write, if the server is still at it.
      try connection.run(
        [
          PostgresStatement(
            "UPDATE writes SET given_up = $2 WHERE epoch = $1 RETURNING number",
            [.integer(epoch), .integer(unknown.number)])
        ], warnings: &warnings)
    }
    if warnings > 0 { throw PostgresFailure(kind: .lost, message: "a replica has not confirmed") }
    guard let number = try results[0].first?.integer("number") else {
      throw PostgresFailure(kind: .refused("QI001"), message: "opening \(epoch) is not there")
    }
    state.unknown = nil
    if number == unknown.number { state.made = unknown.changes[...] }
  }

  // MARK: Statements

  private func statements(_ changes: [JournalChange]) throws -> [PostgresStatement] {
    var statements: [PostgresStatement] = []
    let admitted = changes.compactMap { if case .admit(let job) = $0 { job } else { nil } }
    if !admitted.isEmpty, limits.maxBytes > 0 { statements.append(try spaceCheck(admitted)) }
    for change in changes { statements += try self.statements(change) }
    return statements + Self.settling(changes)
  }

  /// Refuses jobs while there is still space left for those that run.
  private func spaceCheck(_ jobs: [StoredJob]) throws -> PostgresStatement {
    var sizes: [String: Int] = [:]
    for input in jobs.flatMap(\.inputs) { sizes[input.digest] = input.bytes.count }
    return PostgresStatement(
      "SELECT check_space($1, $2, $3::text::jsonb, $4::text::jsonb)",
      [
        .integer(limits.maxBytes), .integer(limits.reserveBytes), try .json(Array(sizes.keys)),
        try .json(sizes.values.map(String.init)),
      ])
  }

  private func statements(_ change: JournalChange) throws -> [PostgresStatement] {
    switch change {
    case .admit(let job): return try admission(job)
    case .attempt(let image, let task, let number):
      return [
        PostgresStatement(
          "SELECT keep_attempt($1, $2, $3, $4, $5)",
          image.values(epoch) + [.integer(Int64(task)), .integer(Int64(number))])
      ]
    case .progress(let image, let progress):
      return [
        PostgresStatement(
          "SELECT keep_progress($1, $2, $3, $4, $5::bigint, $6, $7, $8, $9, $10, $11, $12, $13::text, $14)",
          image.values(epoch)
            + [
              .integer(Int64(progress.task)), .optional(progress.completedSteps.map { Int64($0) }),
              .text(progress.numericsClass),
            ] + progress.payload.values)
      ]
    case .finish(let image, let result, let promptTokens, let atMs):
      return [
        PostgresStatement(
          "SELECT finish_image($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::text, $13)",
          image.values(epoch) + [.integer(Int64(promptTokens)), .integer(atMs)] + result.values)
      ]
    case .fail(let image, let failure, let atMs):
      return [
        PostgresStatement(
          "SELECT fail_image($1, open_image($1, $2, $3), $3, $4, $5, $6, $7)",
          image.values(epoch) + [
            .integer(Int64(failure.code.rawValue)), .readable(failure.message, 2000),
            failure.field.map { .readable($0, 2000) } ?? .null, .integer(atMs),
          ])
      ]
    case .announce(let job, let event, let percent, let atMs):
      return [
        PostgresStatement(
          "SELECT announce_open($1, $2, $3, $4)",
          [.text(job), .text(event), .integer(Int64(percent)), .integer(atMs)])
      ]
    case .attempted(let attempt): return [Self.delivery(attempt)]
    }
  }

  private func admission(_ job: StoredJob) throws -> [PostgresStatement] {
    let webhooks: [[String?]] = job.webhooks.map { [$0.url, $0.host, $0.secret, $0.events.joined(separator: ",")] }
    var values: [PostgresValue] = [.integer(epoch), .text(job.id), .text(job.tenant), .integer(job.submittedAtMs)]
    values += [.optional(job.deadlineAtMs), .integer(Int64(job.imageCount)), .bytes(job.request)]
    values += [.integer(Int64(Checksum.of(job.request))), .text(job.model)]
    values += [try .json(job.tags), try .json(webhooks)]
    if let key = job.key { values += [.text(key.text), .bytes(key.digest)] }
    let admit = PostgresStatement(
      """
      SELECT admit($1, $2, $3, $4, $5::bigint, $6, $7, $8, $9, $10::text::jsonb, $11::text::jsonb, \(
        job.key == nil ? "NULL, NULL" : "$12, $13"))
      """, values)
    let inputs = job.inputs.sorted { $0.digest < $1.digest }.map { input in
      PostgresStatement(
        "SELECT add_input($1, $2, $3, $4, $5, $6::text, $7)",
        [
          .integer(epoch), .text(job.id), .text(input.digest), .integer(Int64(Checksum.of(input.bytes))),
          .bytes(input.bytes), .name(of: input.object), .integer(Int64(input.object?.byteCount ?? 0)),
        ])
    }
    return [admit] + inputs
  }
}

extension PostgresFailure {
  /// Whether a transaction that fails so may have been committed.
  fileprivate var isOpen: Bool {
    guard let state else { return kind == .lost }
    // The server says these as well when it ends a connection; and with the last, that it does not know itself.
    return ["57P01", "57P02", "57P03", "08006", "08007", "40003"].contains(state)
  }
}

extension PostgresValue {
  /// A text for people: without the character that the server cannot keep.
  static func readable(_ text: String, _ limit: Int) -> PostgresValue {
    .text(String(text.prefix(limit)).replacing("\0", with: "\u{FFFD}"))
  }

  /// The name of an object, if there is one.
  static func name(of object: StoredObject?) -> PostgresValue { object.map { .text($0.name) } ?? .null }

  static func json(_ value: some Encodable) throws -> PostgresValue {
    .text(String(decoding: try JSONEncoder().encode(value), as: UTF8.self))
  }
}

extension ImageReference {
  fileprivate func values(_ epoch: Int64) -> [PostgresValue] {
    [.integer(epoch), .text(job), .integer(Int64(index))]
  }
}

extension StoredPayload {
  /// In the order of the functions' parameters.
  var values: [PostgresValue] {
    [
      .integer(Int64(bitPattern: id)), .text(name), .integer(Int64(dtype)),
      .text(shape.map(String.init).joined(separator: ",")), .integer(Int64(Checksum.of(bytes))), .bytes(bytes),
      .name(of: object), .integer(Int64(object?.byteCount ?? 0)),
    ]
  }
}
