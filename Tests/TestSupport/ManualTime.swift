import ClusterCore
import Synchronization

/// A clock that stands still until a test moves it.
///
/// ```swift
/// let time = ManualTime()
/// let worker = Worker(stage: stage, configuration: configuration, time: time)
/// try await time.untilAsleep(for: .milliseconds(10))
/// time.advance(by: .milliseconds(10))
/// ```
public final class ManualTime: TimeSource {
  private typealias Waiter = CheckedContinuation<Void, any Error>

  private struct Sleeper {
    let duration: Duration
    let wakesAt: Duration
    let waiter: Waiter
  }

  private struct State {
    var elapsed = Duration.zero
    var lastID = 0
    var sleepers: [Int: Sleeper] = [:]
    /// Who waits until somebody sleeps for a duration.
    var watchers: [Int: (duration: Duration, waiter: Waiter)] = [:]

    mutating func nextID() -> Int {
      lastID += 1
      return lastID
    }
  }

  private let state = Mutex(State())
  private let startUnixMs: Int64

  /// A clock that shows `unixMs`, by default an hour of November 2023, and no time elapsed.
  public init(unixMs: Int64 = 1_700_000_000_000) { startUnixMs = unixMs }

  /// The sum of all ``advance(by:)``.
  public var elapsed: Duration { state.withLock { $0.elapsed } }

  /// The start, and the elapsed time.
  public var unixMs: Int64 { startUnixMs + Int64(elapsed / .milliseconds(1)) }

  /// Moves the time, then wakes who has slept long enough, in the order of their times.
  ///
  /// Returns before they have done anything; who sleeps again counts from the new time.
  public func advance(by duration: Duration) {
    precondition(duration >= .zero, "time does not go back")
    let due = state.withLock { state in
      state.elapsed += duration
      let due = state.sleepers.filter { $0.value.wakesAt <= state.elapsed }
      for id in due.keys { state.sleepers[id] = nil }
      return due.sorted { ($0.value.wakesAt, $0.key) < ($1.value.wakesAt, $1.key) }
    }
    for (_, sleeper) in due { sleeper.waiter.resume() }
  }

  /// Returns when ``advance(by:)`` has moved the time by `duration`.
  ///
  /// - Throws: `CancellationError`, at once, when the task is cancelled.
  public func sleep(for duration: Duration) async throws {
    try Task.checkCancellation()
    guard duration > .zero else { return }
    try await suspend { state, id, waiter in
      state.sleepers[id] = Sleeper(duration: duration, wakesAt: state.elapsed + duration, waiter: waiter)
      let noticed = state.watchers.filter { $0.value.duration == duration }
      for id in noticed.keys { state.watchers[id] = nil }
      return noticed.values.map(\.waiter)
    }
  }

  /// Returns when a task sleeps that asked for exactly `duration`: it has done what it does between two sleeps.
  ///
  /// - Throws: `CancellationError` when the task is cancelled, as by the test's time limit.
  public func untilAsleep(for duration: Duration) async throws {
    try await suspend { state, id, waiter in
      if state.sleepers.values.contains(where: { $0.duration == duration }) { return [waiter] }
      state.watchers[id] = (duration, waiter)
      return []
    }
  }

  /// Moves the time by `duration`, `count` times, each time when a task sleeps that asked for exactly that.
  ///
  /// - Throws: `CancellationError` when the task is cancelled, as by the test's time limit.
  public func advance(by duration: Duration, times count: Int) async throws {
    for _ in 0..<count {
      try await untilAsleep(for: duration)
      advance(by: duration)
    }
  }

  /// Suspends the task. `register` keeps its waiter under a number, and returns the waiters that are to be resumed.
  private func suspend(_ register: @Sendable (inout State, Int, Waiter) -> [Waiter]) async throws {
    let id = state.withLock { $0.nextID() }
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { (waiter: Waiter) in
        let resumed: [Waiter]? = state.withLock { state in
          // Cancelled before this: nothing would ever resume it.
          Task.isCancelled ? nil : register(&state, id, waiter)
        }
        guard let resumed else { return waiter.resume(throwing: CancellationError()) }
        for other in resumed { other.resume() }
      }
    } onCancel: {
      let waiter = state.withLock { state in
        state.sleepers.removeValue(forKey: id)?.waiter ?? state.watchers.removeValue(forKey: id)?.waiter
      }
      waiter?.resume(throwing: CancellationError())
    }
  }
}
