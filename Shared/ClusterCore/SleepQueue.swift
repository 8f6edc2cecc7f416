import Dispatch
import HeapModule
import Synchronization

/// Sleeps of which most are cancelled, as time limits are: one that is cancelled leaves nothing but a number behind.
/// The runtime keeps some 750 bytes of a cancelled `Task.sleep` until its time has come.
package final class SleepQueue: Sendable {
  private struct Sleeper: Comparable {
    let end: ContinuousClock.Instant
    let number: UInt64

    static func < (one: Sleeper, other: Sleeper) -> Bool { (one.end, one.number) < (other.end, other.number) }
  }

  private struct State {
    /// With those that were cancelled, until their time has come or they are the most.
    var sleepers = Heap<Sleeper>()
    var continuations: [UInt64: CheckedContinuation<Void, any Error>] = [:]
    var lastNumber: UInt64 = 0
    /// When it looks who is to wake, the next time last: each was planned because it was earlier than all others. What
    /// is planned cannot be taken back, so nothing is planned that is planned already.
    var looks: [ContinuousClock.Instant] = []
  }

  private let state = Mutex(State())
  private let queue = DispatchQueue(label: "sleep")
  /// Between two looks, at most; far ends need no large numbers.
  private static let longestNap = Duration.seconds(3600)

  package init() {}

  /// Entries that take memory.
  package var entryCount: Int { state.withLock { $0.sleepers.count } }
  /// Looks that are planned.
  package var plannedCount: Int { state.withLock { $0.looks.count } }

  /// Returns when `duration` has passed.
  ///
  /// - Throws: `CancellationError`, at once, when the task is cancelled.
  package func sleep(for duration: Duration) async throws {
    try Task.checkCancellation()
    guard duration > .zero else { return await Task.yield() }
    let number = state.withLock { state in
      state.lastNumber += 1
      return state.lastNumber
    }
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        enter(Sleeper(end: .now + duration, number: number), continuation)
        // The handler may have run before there was anything to cancel.
        if Task.isCancelled { cancel(number) }
      }
    } onCancel: {
      cancel(number)
    }
  }

  private func enter(_ sleeper: Sleeper, _ continuation: CheckedContinuation<Void, any Error>) {
    state.withLock { state in
      state.sleepers.insert(sleeper)
      state.continuations[sleeper.number] = continuation
      planLook(&state)
    }
  }

  private func cancel(_ number: UInt64) {
    let continuation = state.withLock { state in
      let continuation = state.continuations.removeValue(forKey: number)
      if state.sleepers.count > 2 * state.continuations.count + 64 {
        state.sleepers = Heap(state.sleepers.unordered.filter { state.continuations[$0.number] != nil })
      }
      return continuation
    }
    continuation?.resume(throwing: CancellationError())
  }

  /// Plans to look when the first one is to wake, unless that is planned already.
  private func planLook(_ state: inout State) {
    guard let first = state.sleepers.min else { return }
    let now = ContinuousClock.now, end = min(first.end, now + Self.longestNap)
    if let next = state.looks.last, next <= end { return }
    state.looks.append(end)
    let nanoseconds = max(.zero, end - now) / .nanoseconds(1)
    queue.asyncAfter(deadline: .now() + .nanoseconds(Int(nanoseconds.rounded(.up)))) { [weak self] in self?.look(end) }
  }

  /// - Parameter plan: when it was to look.
  private func look(_ plan: ContinuousClock.Instant) {
    let due = state.withLock { state in
      let now = ContinuousClock.now
      var due: [CheckedContinuation<Void, any Error>] = []
      while let first = state.sleepers.min, first.end <= now {
        state.sleepers.removeMin()
        if let continuation = state.continuations.removeValue(forKey: first.number) { due.append(continuation) }
      }
      state.looks.removeAll { $0 == plan }
      planLook(&state)
      return due
    }
    for continuation in due { continuation.resume() }
  }
}
