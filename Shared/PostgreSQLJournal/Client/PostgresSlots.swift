import Foundation
import Synchronization

/// One connection that is made when it is needed, and made again when it was lost; used by one thread at a time.
final class PostgresSlot: Sendable {
  private let server: PostgresServer
  private let connection = Mutex<PostgresConnection?>(nil)
  private let isClosed = Mutex(false)

  private let prepare: @Sendable (PostgresConnection) throws -> Void

  /// - Parameter prepare: called with every new connection.
  init(_ server: PostgresServer, prepare: @escaping @Sendable (PostgresConnection) throws -> Void = { _ in }) {
    (self.server, self.prepare) = (server, prepare)
  }

  /// Runs `body` with the connection. Nothing is tried again.
  func use<Result>(_ body: (PostgresConnection) throws -> Result) throws -> Result {
    // `withLock` cannot hand on what is not Sendable.
    var outcome: Swift.Result<Result, any Error>?
    connection.withLock { current in
      do {
        if current?.isBroken ?? true { current = nil }
        if isClosed.withLock({ $0 }) { throw PostgresFailure(kind: .lost, message: "the journal is closed") }
        let open: PostgresConnection
        if let current {
          open = current
        } else {
          open = try server.connect()
          try prepare(open)
          current = open
        }
        defer { if open.isBroken { current = nil } }
        outcome = .success(try body(open))
      } catch {
        outcome = .failure(error)
      }
    }
    guard let outcome else { throw PostgresFailure(kind: .unexpected, message: "nothing was done") }
    return try outcome.get()
  }

  /// Lets go of the connection; waits for the thread that uses it.
  func close() {
    isClosed.withLock { $0 = true }
    connection.withLock { $0 = nil }
  }
}

/// A bounded number of connections for reading.
final class PostgresPool: Sendable {
  private struct State {
    var idle: [PostgresConnection] = []
    var isClosed = false
  }

  private let server: PostgresServer
  private let permits: DispatchSemaphore
  private let state = Mutex(State())

  init(_ server: PostgresServer) {
    self.server = server
    permits = DispatchSemaphore(value: server.settings.maxReaders)
  }

  /// Runs `body`, which only reads; once more when a connection turns out to have been lost while it was idle.
  func read<Result>(_ body: (PostgresConnection) throws -> Result) throws -> Result {
    guard permits.wait(timeout: .now() + server.settings.statementSeconds) == .success else {
      throw PostgresFailure(
        kind: .lost, message: "all \(server.settings.maxReaders) connections for reading are in use")
    }
    defer { permits.signal() }
    while true {
      let (idle, isClosed) = state.withLock { ($0.idle.popLast(), $0.isClosed) }
      if isClosed { throw PostgresFailure(kind: .lost, message: "the journal is closed") }
      let connection = try idle ?? server.connect()
      do {
        let result = try body(connection)
        keep(connection)
        return result
      } catch {
        keep(connection)
        guard idle != nil, connection.isBroken else { throw error }
      }
    }
  }

  private func keep(_ connection: PostgresConnection) {
    guard !connection.isBroken else { return }
    state.withLock { if !$0.isClosed { $0.idle.append(connection) } }
  }

  func close() {
    state.withLock { $0 = State(isClosed: true) }
  }
}
