import Dispatch
import Foundation
import Synchronization

/// Threads on which stages compute: Swift's cooperative pool must never be blocked for seconds.
final class ComputeThreads: Sendable {
  private struct State {
    var jobs: [@Sendable () -> Void] = []
    var isStopping = false
  }

  private let state = Mutex(State())
  /// Counts the jobs that wait; after ``stop()`` also wakes every thread once.
  private let wakeUps = DispatchSemaphore(value: 0)
  private let count: Int

  /// Starts `count` threads.
  init(count: Int, name: String) {
    self.count = count
    for index in 0..<count {
      let thread = Thread { [self] in work() }
      thread.name = "\(name)-\(index)"
      // Models nest deeper than half a megabyte, the default of threads on some systems.
      thread.stackSize = 8 << 20
      thread.start()
    }
  }

  /// Runs `job` on the next free thread.
  func submit(_ job: @escaping @Sendable () -> Void) {
    state.withLock { $0.jobs.append(job) }
    wakeUps.signal()
  }

  /// Ends the threads after the jobs that they run.
  func stop() {
    state.withLock {
      $0.isStopping = true
      $0.jobs = []
    }
    for _ in 0..<count { wakeUps.signal() }
  }

  private func work() {
    while true {
      wakeUps.wait()
      let (job, isStopping) = state.withLock { state in
        (state.jobs.isEmpty ? nil : state.jobs.removeFirst(), state.isStopping)
      }
      if isStopping { return }
      job?()
    }
  }
}
