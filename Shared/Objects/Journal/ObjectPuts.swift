import Foundation
import Journal
import Synchronization

/// Writes the bytes of changes as objects, several at a time, before the changes are made.
final class ObjectPuts: Sendable {
  /// Which bytes of the journal.
  enum Identity: Hashable, Sendable {
    case payload(UInt64)
    case input(String)
  }

  /// What has become of bytes.
  enum Outcome: Sendable {
    /// They are an object, which no row names yet.
    case object(StoredObject)
    /// They stay in their row: the journal has them already, or the object could not be written.
    case inRow
  }

  /// One writing.
  final class Put: Sendable {
    private let done = DispatchSemaphore(value: 0)
    private let outcome = Mutex<Outcome>(.inRow)
    /// Whether it was begun ahead of its change.
    let isPrepared: Bool
    /// Whether a row may name the object though that was reported to have failed.
    let isUncertain = Mutex(false)

    init(isPrepared: Bool) { self.isPrepared = isPrepared }

    func end(_ value: Outcome) {
      outcome.withLock { $0 = value }
      done.signal()
    }

    func wait() -> Outcome {
      done.wait()
      done.signal()
      return outcome.withLock { $0 }
    }
  }

  private let base: any ObjectNamingJournalStore
  private let objects: any ObjectStore
  private let breaker: PutBreaker
  private let threads: WorkerThreads
  private let puts = Mutex<[Identity: Put]>([:])
  /// Bytes of objects that were written.
  private let wrote: @Sendable (Int) -> Void

  init(
    _ base: any ObjectNamingJournalStore, _ objects: any ObjectStore, maxTransfers: Int, _ breaker: PutBreaker,
    wrote: @escaping @Sendable (Int) -> Void
  ) {
    self.base = base
    self.objects = objects
    self.breaker = breaker
    self.wrote = wrote
    threads = WorkerThreads("object-writer", count: maxTransfers)
  }

  /// Begins writing what is not being written yet.
  func begin(_ candidates: [(identity: Identity, bytes: Data)], isPrepared: Bool) -> [Identity: Put] {
    var begun: [(Put, Identity, Data)] = []
    let all = puts.withLock { puts in
      var all: [Identity: Put] = [:]
      for (identity, bytes) in candidates {
        if puts[identity] == nil {
          let put = Put(isPrepared: isPrepared)
          puts[identity] = put
          begun.append((put, identity, bytes))
        }
        all[identity] = puts[identity]
      }
      return all
    }
    for (put, identity, bytes) in begun {
      threads.submit { [self] in put.end(write(bytes, identity)) }
    }
    return all
  }

  /// Ends the threads. Nothing may begin any more.
  func stop() { threads.stop() }

  /// Forgets writings, so that the next one of the same bytes makes an object of its own.
  func remove(_ all: [Identity: Put]) {
    puts.withLock { puts in
      for (identity, put) in all where puts[identity] === put { puts[identity] = nil }
    }
  }

  /// Those of them that are known.
  func known(_ identities: [Identity]) -> [Identity: Put] {
    puts.withLock { puts in
      identities.reduce(into: [:]) { if let put = puts[$1] { $0[$1] = put } }
    }
  }

  private func write(_ bytes: Data, _ identity: Identity) -> Outcome {
    // Written again, it would write nothing; should it be gone by then, its bytes are there to be put into the row.
    let isThere =
      switch identity {
      case .payload(let id): try? base.hasPayload(id)
      case .input(let digest): try? base.hasInput(digest)
      }
    guard isThere != true, breaker.admits() else { return .inRow }
    let key = ObjectKey(of: bytes)
    do throws(ObjectError) {
      try objects.put(bytes, as: key)
    } catch {
      breaker.failed(error)
      return .inRow
    }
    breaker.succeeded()
    wrote(bytes.count)
    return .object(StoredObject(name: key.name, byteCount: bytes.count))
  }
}

/// Keeps a store that fails from being waited for again and again: after a failure nothing is written for some seconds,
/// then one object is tried.
final class PutBreaker: Sendable {
  private struct State {
    var pause = PutBreaker.firstPause
    var pausedUntil: ContinuousClock.Instant?
    var isTrying = false
  }

  private static let firstPause = Duration.seconds(2)
  private static let longestPause = Duration.seconds(60)

  private let state = Mutex(State())
  private let report: @Sendable (ObjectEvent) -> Void

  init(report: @escaping @Sendable (ObjectEvent) -> Void) { self.report = report }

  /// Whether an object may be written now.
  func admits() -> Bool {
    state.withLock { state in
      guard let end = state.pausedUntil else { return true }
      guard !state.isTrying, ContinuousClock.now >= end else { return false }
      state.isTrying = true
      return true
    }
  }

  func succeeded() {
    let wasPaused = state.withLock { state in
      defer { state = State() }
      return state.pausedUntil != nil
    }
    if wasPaused { report(.available) }
  }

  func failed(_ error: ObjectError) {
    let isFirst = state.withLock { state in
      let isFirst = state.pausedUntil == nil
      // Those that were being written at the same time fail for the same reason.
      if isFirst || state.isTrying {
        state.pausedUntil = .now + state.pause
        state.pause = min(state.pause * 2, Self.longestPause)
        state.isTrying = false
      }
      return isFirst
    }
    if isFirst { report(.unavailable(error)) }
  }
}
