import Foundation
import Journal
import Synchronization

/// Waits for messages of other owners on a thread and a connection of its own.
final class PostgresListener: Sendable {
  /// As ``SharedJournalStore`` says.
  let messages: AsyncStream<OwnerMessage>

  private struct State {
    /// Whether a message was lost that the consumer does not know of.
    var hasLost = false
    var isClosed = false
  }

  private let server: PostgresServer
  private let epoch: Int64
  private let continuation: AsyncStream<OwnerMessage>.Continuation
  private let state = Mutex(State())
  private let wake: (read: Int32, write: Int32)
  private let stopped = DispatchSemaphore(value: 0)

  /// Messages that wait for their consumer, at most.
  static let maxWaiting = 4096

  /// Starts the thread.
  init(_ server: PostgresServer, epoch: Int64) {
    (self.server, self.epoch) = (server, epoch)
    (messages, continuation) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(Self.maxWaiting))
    var descriptors: [Int32] = [-1, -1]
    _ = pipe(&descriptors)
    for descriptor in descriptors { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
    wake = (descriptors[0], descriptors[1])
    let thread = Thread { [self] in run() }
    thread.name = "journal messages"
    thread.stackSize = 1 << 20
    thread.start()
  }

  /// Ends the thread and the messages.
  func close() {
    let wasClosed = state.withLock { state in
      defer { state.isClosed = true }
      return state.isClosed
    }
    if wasClosed { return }
    _ = Foundation.write(wake.write, [1], 1)
    stopped.wait()
    continuation.finish()
    Foundation.close(wake.read)
    Foundation.close(wake.write)
  }

  /// Hands a message over; when there is no space for it, says that it was lost as soon as there is.
  func yield(_ message: OwnerMessage) {
    state.withLock { state in
      if state.hasLost, message != .lookForJobs, case .enqueued = continuation.yield(.lookForJobs) {
        state.hasLost = false
      }
      if case .dropped = continuation.yield(message) { state.hasLost = true }
    }
  }

  private func run() {
    defer { stopped.signal() }
    var isFirst = true
    while !state.withLock({ $0.isClosed }) {
      do {
        let connection = try server.connect()
        try connection.run([
          PostgresStatement("LISTEN \(Self.channel(server.settings.schema))"),
          PostgresStatement("LISTEN \(Self.channel(server.settings.schema))_\(epoch)"),
        ])
        // Whatever was sent while there was no connection is lost.
        if !isFirst { yield(.lookForJobs) }
        isFirst = false
        while !state.withLock({ $0.isClosed }) {
          for payload in try connection.notifications(wake: wake.read, seconds: 60) { receive(payload) }
        }
      } catch {
        var descriptor = pollfd(fd: wake.read, events: Int16(POLLIN), revents: 0)
        _ = poll(&descriptor, 1, 200)
      }
    }
  }

  private func receive(_ payload: String) {
    if payload == "jobs" { return yield(.lookForJobs) }
    let parts = payload.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts.count == 2, let sender = Int64(parts[0]), sender != epoch,
      let message = Data(base64Encoded: String(parts[1]))
    else { return }
    yield(.message(from: sender, message))
  }

  /// Channels are the whole database's.
  static func channel(_ schema: String) -> String { "qwen_image_\(schema)" }
}
