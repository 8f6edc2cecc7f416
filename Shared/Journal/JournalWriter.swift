import Foundation
import Synchronization

/// Writes changes on a thread of its own, as many as are waiting in one transaction, so that one sync of the disk
/// serves them all.
public final class JournalWriter: Sendable {
  /// Changes that are made together or not at all.
  public struct Batch: Sendable {
    /// Greater than that of the batch before that has one; nil: its outcome is not reported.
    public var sequence: UInt64?
    /// What to change.
    public var changes: [JournalChange]
    /// Called on the writer's thread when it is on the disk, or with the reason why it was refused.
    public var completion: (@Sendable (JournalError?) -> Void)?

    /// A batch under a number of the caller's.
    public init(sequence: UInt64, changes: [JournalChange]) {
      self.sequence = sequence
      self.changes = changes
    }

    /// A batch with an outcome of its own.
    public init(changes: [JournalChange], completion: @escaping @Sendable (JournalError?) -> Void) {
      self.changes = changes
      self.completion = completion
    }
  }

  /// A transaction that has been tried.
  public struct Transaction: Hashable, Sendable {
    /// How long it took, until it was on the disk or refused.
    public var duration: Duration
    /// What it was to change.
    public var changeCount: Int
    /// Of payloads and requests in it.
    public var byteCount: Int
    /// Why nothing was written; nil: it was.
    public var failure: JournalError?
  }

  /// What became of batches, reported in the order of their numbers.
  public enum Outcome: Hashable, Sendable {
    /// The batches up to this number are on the disk, but for those that were refused.
    case durable(through: UInt64)
    /// The batch was not written and has changed nothing.
    case refused(UInt64, JournalError)
  }

  private struct State {
    var waiting: [Batch] = []
    var isStopping = false
    var hasStopped = false
  }

  /// At most so many bytes in one transaction, which bounds the write-ahead log.
  private static let maxGroupBytes = 32 << 20

  private let store: any JournalStore
  private let preparing: (any PreparingJournalStore)?
  private let state = Mutex(State())
  private let wake = DispatchSemaphore(value: 0)
  private let stopped = DispatchSemaphore(value: 0)
  private let report: @Sendable (Outcome) -> Void
  private let observe: @Sendable (Transaction) -> Void

  /// Starts the thread.
  ///
  /// - Parameters:
  ///   - store: where to write; this writer must be the only one.
  ///   - report: called on the writer's thread.
  ///   - observe: called there after every transaction.
  public init(
    _ store: any JournalStore, report: @escaping @Sendable (Outcome) -> Void,
    observe: @escaping @Sendable (Transaction) -> Void = { _ in }
  ) {
    self.store = store
    self.observe = observe
    self.report = report
    preparing = store as? any PreparingJournalStore
    let thread = Thread { [self] in run() }
    thread.name = "journal"
    thread.stackSize = 4 << 20
    thread.start()
  }

  /// Hands a batch over. Never blocks; how much waits is bounded by what the caller leaves unconfirmed.
  public func enqueue(_ batch: Batch) {
    let isTooLate = state.withLock { state in
      if state.isStopping, batch.completion != nil { return true }
      // In the order of the batches; it does not block.
      preparing?.prepare(batch.changes)
      state.waiting.append(batch)
      return false
    }
    if isTooLate { batch.completion?(.failed(operation: "write", reason: "it is being closed")) }
    wake.signal()
  }

  /// Writes what waits, then ends the thread. Blocks until then.
  public func stop() {
    state.withLock { $0.isStopping = true }
    wake.signal()
    stopped.wait()
    stopped.signal()
  }

  private func run() {
    var lastTidied = Date.distantPast
    while true {
      _ = wake.wait(timeout: .now() + .seconds(10))
      let (batches, isStopping) = state.withLock { state in
        defer { state.waiting = [] }
        return (state.waiting, state.isStopping)
      }
      for group in Self.groups(batches) { write(group) }
      if isStopping, batches.isEmpty { break }
      if -lastTidied.timeIntervalSinceNow > 10 {
        lastTidied = Date()
        _ = try? store.forgetOldJobs(nowMs: Int64(lastTidied.timeIntervalSince1970 * 1000))
      }
      // A signal may have been for several batches; those that follow find nothing and wait again.
      if isStopping { wake.signal() }
    }
    stopped.signal()
  }

  private func write(_ group: ArraySlice<Batch>) {
    guard let last = group.last else { return }
    do throws(JournalError) {
      try persist(group.flatMap(\.changes))
      if let sequence = group.last(where: { $0.sequence != nil })?.sequence { report(.durable(through: sequence)) }
      for batch in group { batch.completion?(nil) }
    } catch {
      if group.count == 1 {
        preparing?.discard(last.changes)
        if let sequence = last.sequence {
          report(.refused(sequence, error))
          report(.durable(through: sequence))
        }
        last.completion?(error)
      } else {
        // One that is refused must not take the others with it.
        for index in group.indices { write(group[index...index]) }
      }
    }
  }

  /// Applies changes, again and again while the engine cannot be reached: what has happened must not be lost, and no
  /// client knows of it yet. Gives up when the writer is to stop.
  private func persist(_ changes: [JournalChange]) throws(JournalError) {
    var pause = 0.1
    while true {
      do throws(JournalError) {
        return try apply(changes)
      } catch {
        guard case .unavailable = error, !state.withLock({ $0.isStopping }) else { throw error }
        Thread.sleep(forTimeInterval: pause)
        pause = min(pause * 2, 2)
      }
    }
  }

  private func apply(_ changes: [JournalChange]) throws(JournalError) {
    let start = ContinuousClock.now
    var transaction = Transaction(
      duration: .zero, changeCount: changes.count, byteCount: changes.reduce(0) { $0 + $1.byteCount })
    defer {
      transaction.duration = ContinuousClock.now - start
      observe(transaction)
    }
    do throws(JournalError) { try store.apply(changes) } catch {
      transaction.failure = error
      throw error
    }
  }

  /// Divides what waits into transactions.
  private static func groups(_ batches: [Batch]) -> [ArraySlice<Batch>] {
    var groups: [ArraySlice<Batch>] = []
    var (start, bytes) = (0, 0)
    for (index, batch) in batches.enumerated() {
      let size = batch.changes.reduce(0) { $0 + $1.byteCount }
      if index > start, bytes + size > maxGroupBytes {
        groups.append(batches[start..<index])
        (start, bytes) = (index, 0)
      }
      bytes += size
    }
    if start < batches.count { groups.append(batches[start...]) }
    return groups
  }
}

extension JournalChange {
  /// The payload's or request's size.
  fileprivate var byteCount: Int {
    switch self {
    case .admit(let job): job.request.count
    case .progress(_, let progress): progress.payload.bytes.count
    case .finish(_, let result, _, _): result.bytes.count
    case .fail, .attempt, .announce, .attempted: 0
    }
  }
}
