import Foundation
import Synchronization

/// Some threads that run what they are given, in order. They are its own, so that what blocks on them holds up neither
/// tasks nor Dispatch's queues, and is not held up by those.
final class WorkerThreads: Sendable {
  private struct State {
    var waiting: [UInt64: @Sendable () -> Void] = [:]
    var (first, next): (UInt64, UInt64) = (0, 0)
    var isStopping = false
  }

  private let state = Mutex(State())
  private let wake = DispatchSemaphore(value: 0)
  private let count: Int

  /// Starts `count` threads.
  init(_ name: String, count: Int) {
    self.count = count
    for _ in 0..<count {
      let thread = Thread { [self] in run() }
      thread.name = name
      thread.stackSize = 1 << 20
      thread.start()
    }
  }

  /// Has `work` done. After ``stop()`` the caller does it.
  func submit(_ work: @escaping @Sendable () -> Void) {
    let isTooLate = state.withLock { state in
      if state.isStopping { return true }
      state.waiting[state.next] = work
      state.next += 1
      return false
    }
    if isTooLate { work() } else { wake.signal() }
  }

  /// Ends the threads when they have done what waits.
  func stop() {
    state.withLock { $0.isStopping = true }
    for _ in 0..<count { wake.signal() }
  }

  private func run() {
    while true {
      wake.wait()
      let (work, isStopping) = state.withLock { state in
        let work = state.waiting.removeValue(forKey: state.first)
        if work != nil { state.first += 1 }
        return (work, state.isStopping)
      }
      if let work { work() } else if isStopping { return }
    }
  }
}
