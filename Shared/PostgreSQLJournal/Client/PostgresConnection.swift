import CPostgreSQL
import Foundation

/// One connection to a server, in pipeline mode: all statements of a call travel in one round trip.
///
/// It is used by one thread at a time: the one that took it from a pool, or holds the lock of its slot.
final class PostgresConnection: @unchecked Sendable {
  private let pointer: OpaquePointer
  private var prepared: [String: String] = [:]
  /// Whether a statement was begun and not ended in order: nothing more can be done with it.
  private(set) var isBroken = false
  /// Warnings of the server since the last call.
  private var warningCount = 0
  private let statementSeconds: Double

  /// Prepared statements of one connection; all of them are forgotten when there are more.
  private static let maxPrepared = 200

  /// Takes over a connection that is made, and prepares the session.
  init(taking pointer: OpaquePointer, statementSeconds: Double) throws(PostgresFailure) {
    self.pointer = pointer
    self.statementSeconds = statementSeconds
    PQsetNoticeReceiver(
      pointer,
      { context, result in
        guard let context, let result else { return }
        let connection = Unmanaged<PostgresConnection>.fromOpaque(context).takeUnretainedValue()
        let severity = PQresultErrorField(result, Int32(UInt8(ascii: "V"))).map { String(cString: $0) }
        if severity == "WARNING" { connection.warningCount += 1 }
      }, Unmanaged.passUnretained(self).toOpaque())
    guard PQsetnonblocking(pointer, 1) == 0, PQenterPipelineMode(pointer) == 1 else { throw lost() }
  }

  deinit { PQfinish(pointer) }

  /// The server's version, such as 150018.
  var serverVersion: Int32 { PQserverVersion(pointer) }

  /// The server's process that serves this connection.
  var serverProcess: Int32 { PQbackendPID(pointer) }

  /// Runs `statements` in one round trip.
  ///
  /// The first that fails keeps those after it from being run; a transaction that was begun is rolled back.
  ///
  /// - Parameter warnings: set to how many warnings the server has sent.
  @discardableResult
  func run(_ statements: [PostgresStatement], warnings: UnsafeMutablePointer<Int>? = nil) throws(PostgresFailure)
    -> [PostgresResult]
  {
    warningCount = 0
    guard !isBroken else { throw lost() }
    let deadline = ContinuousClock.now + .seconds(statementSeconds * 1.2 + 1)
    do throws(PostgresFailure) {
      let results = try exchange(statements, deadline)
      warnings?.pointee = warningCount
      return results
    } catch {
      if error.isStale { isBroken = true }
      if !isBroken, PQtransactionStatus(pointer) != PQTRANS_IDLE {
        do throws(PostgresFailure) { _ = try exchange([.rollback], deadline) } catch { isBroken = true }
      }
      throw error
    }
  }

  /// Runs a text of many statements without parameters.
  func script(_ sql: String) throws(PostgresFailure) {
    guard !isBroken, PQexitPipelineMode(pointer) == 1, PQsetnonblocking(pointer, 0) == 0 else { throw lost() }
    defer { if PQsetnonblocking(pointer, 1) != 0 || PQenterPipelineMode(pointer) != 1 { isBroken = true } }
    guard let result = PQexec(pointer, sql) else { throw lost() }
    defer { PQclear(result) }
    if let failure = failure(result) { throw failure }
  }

  // MARK: Pipelines

  private enum Entry {
    case preparation(key: String, name: String)
    case execution
  }

  private func exchange(_ statements: [PostgresStatement], _ deadline: ContinuousClock.Instant)
    throws(PostgresFailure) -> [PostgresResult]
  {
    var entries: [Entry] = []
    if prepared.count > Self.maxPrepared {
      prepared = [:]
      try send(PostgresStatement("DEALLOCATE ALL"), as: nil)
      entries.append(.execution)
    }
    let skipped = entries.count
    var names: [String: String] = [:]
    for statement in statements {
      let key = statement.key
      guard let name = prepared[key] ?? names[key] else {
        let name = "s\(prepared.count + names.count)-\(UInt32.random(in: 0 ... .max))"
        try prepare(statement, as: name)
        names[key] = name
        entries += [.preparation(key: key, name: name), .execution]
        try send(statement, as: name)
        continue
      }
      try send(statement, as: name)
      entries.append(.execution)
    }
    guard PQpipelineSync(pointer) == 1 else { throw lost() }
    return Array(try receive(entries, deadline).dropFirst(skipped))
  }

  private func prepare(_ statement: PostgresStatement, as name: String) throws(PostgresFailure) {
    let types = statement.values.map(\.type)
    guard PQsendPrepare(pointer, name, statement.sql, Int32(types.count), types) == 1 else { throw lost() }
  }

  private func send(_ statement: PostgresStatement, as name: String?) throws(PostgresFailure) {
    let isSent = PostgresParameters.with(statement.values) { pointers, lengths, formats in
      if let name {
        PQsendQueryPrepared(pointer, name, Int32(lengths.count), pointers, lengths, formats, 1) == 1
      } else {
        PQsendQueryParams(pointer, statement.sql, 0, nil, nil, nil, nil, 1) == 1
      }
    }
    guard isSent else { throw lost() }
  }

  /// Reads the results of all entries, to the end of the pipeline.
  private func receive(_ entries: [Entry], _ deadline: ContinuousClock.Instant) throws(PostgresFailure)
    -> [PostgresResult]
  {
    var results: [PostgresResult] = [], first: PostgresFailure?
    var index = 0
    while true {
      try waitForResult(deadline)
      guard let result = PQgetResult(pointer) else {
        index += 1
        guard PQstatus(pointer) == CONNECTION_OK, index <= entries.count else { throw lost() }
        continue
      }
      let status = PQresultStatus(result)
      if status == PGRES_PIPELINE_SYNC {
        PQclear(result)
        break
      }
      let failure = first == nil ? failure(result) : nil
      if let failure { first = failure }
      guard failure == nil, status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK, index < entries.count else {
        PQclear(result)
        if PQstatus(pointer) != CONNECTION_OK { throw first ?? lost() }
        continue
      }
      switch entries[index] {
      case .preparation(let key, let name):
        prepared[key] = name
        PQclear(result)
      case .execution: results.append(PostgresResult(result))
      }
    }
    if let first { throw first }
    return results
  }

  /// Sends what is to be sent, until a result is there.
  private func waitForResult(_ deadline: ContinuousClock.Instant) throws(PostgresFailure) {
    while true {
      let unsent = PQflush(pointer)
      guard unsent >= 0 else { throw lost() }
      if PQisBusy(pointer) == 0 { return }
      let events = Int16(POLLIN) | (unsent > 0 ? Int16(POLLOUT) : 0)
      guard try wait(for: events, until: deadline) else {
        // What the server does with the rest of it is not known any more.
        isBroken = true
        throw PostgresFailure(kind: .lost, message: "no answer within \(Int(statementSeconds * 1.2 + 1)) s")
      }
      guard PQconsumeInput(pointer) == 1 else { throw lost() }
    }
  }

  /// - Returns: whether there is something before the deadline.
  private func wait(for events: Int16, until deadline: ContinuousClock.Instant) throws(PostgresFailure) -> Bool {
    while true {
      let left = (deadline - .now) / .milliseconds(1)
      if left <= 0 { return false }
      var descriptor = pollfd(fd: PQsocket(pointer), events: events, revents: 0)
      guard descriptor.fd >= 0 else { throw lost() }
      let count = poll(&descriptor, 1, Int32(min(left + 1, 1_000_000)))
      if count > 0 { return true }
      if count < 0, errno != EINTR { throw lost() }
    }
  }

  // MARK: Notifications

  /// Waits until the server sends something or `wake` can be read.
  ///
  /// - Returns: the notifications that are there.
  func notifications(wake: Int32, seconds: Double) throws(PostgresFailure) -> [String] {
    var descriptors = [
      pollfd(fd: PQsocket(pointer), events: Int16(POLLIN), revents: 0),
      pollfd(fd: wake, events: Int16(POLLIN), revents: 0),
    ]
    let count = poll(&descriptors, 2, Int32(seconds * 1000))
    if count < 0, errno != EINTR { throw lost() }
    guard PQconsumeInput(pointer) == 1 else { throw lost() }
    var payloads: [String] = []
    while let notification = PQnotifies(pointer) {
      payloads.append(String(cString: notification.pointee.extra))
      PQfreemem(notification)
    }
    return payloads
  }

  // MARK: Failures

  private func failure(_ result: OpaquePointer) -> PostgresFailure? {
    guard [PGRES_FATAL_ERROR, PGRES_BAD_RESPONSE].contains(PQresultStatus(result)) else { return nil }
    let message = PQresultErrorField(result, Int32(UInt8(ascii: "M"))).map { String(cString: $0) }
    guard let state = PQresultErrorField(result, Int32(UInt8(ascii: "C"))).map({ String(cString: $0) }) else {
      isBroken = true
      return PostgresFailure(kind: .lost, message: message ?? Self.text(of: pointer))
    }
    if PQstatus(pointer) != CONNECTION_OK { isBroken = true }
    return PostgresFailure(kind: .refused(state), message: message ?? "no reason was given")
  }

  private func lost() -> PostgresFailure {
    isBroken = true
    return PostgresFailure(kind: .lost, message: Self.text(of: pointer))
  }

  /// libpq's last message, which has no secrets in it once a connection was made.
  static func text(of pointer: OpaquePointer) -> String {
    let text = String(cString: PQerrorMessage(pointer)).trimmingCharacters(in: .whitespacesAndNewlines)
    return text.isEmpty ? "the connection was lost" : text.replacing("\n", with: " ")
  }
}

/// Parameters as libpq takes them.
enum PostgresParameters {
  typealias Pointers = [UnsafePointer<CChar>?]

  static func with<Result>(_ values: [PostgresValue], _ body: (Pointers, [Int32], [Int32]) -> Result) -> Result {
    with(values[...], [], [], body)
  }

  private static func with<Result>(
    _ values: ArraySlice<PostgresValue>, _ pointers: Pointers, _ lengths: [Int32],
    _ body: (Pointers, [Int32], [Int32]) -> Result
  ) -> Result {
    guard let value = values.first else {
      return body(pointers, lengths, Array(repeating: 1, count: lengths.count))
    }
    func next(_ bytes: UnsafeRawBufferPointer) -> Result {
      // An address is what tells an empty value from none.
      let start = bytes.baseAddress.map { $0.assumingMemoryBound(to: CChar.self) } ?? Self.empty
      return with(values.dropFirst(), pointers + [start], lengths + [Int32(bytes.count)], body)
    }
    switch value {
    case .null: return with(values.dropFirst(), pointers + [nil], lengths + [0], body)
    case .integer(let number): return withUnsafeBytes(of: number.bigEndian) { next($0) }
    case .bytes(let data): return data.withUnsafeBytes { next($0) }
    case .text(var text): return text.withUTF8 { next(UnsafeRawBufferPointer($0)) }
    }
  }

  private static var empty: UnsafePointer<CChar> {
    UnsafePointer(bitPattern: MemoryLayout<Int>.alignment).unsafelyUnwrapped
  }
}
