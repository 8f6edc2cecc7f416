import Foundation

/// Threads on which stages compute: Swift's cooperative pool must never be blocked for seconds.
final class ComputeThreads: @unchecked Sendable {
  // @unchecked Sendable: `jobs` and `isStopping` are touched with `condition` locked only.
  private let condition = NSCondition()
  private var jobs: [@Sendable () -> Void] = []
  private var isStopping = false

  /// Starts `count` threads.
  init(count: Int, name: String) {
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
    condition.lock()
    defer { condition.unlock() }
    jobs.append(job)
    condition.signal()
  }

  /// Ends the threads after the jobs that they run.
  func stop() {
    condition.lock()
    defer { condition.unlock() }
    isStopping = true
    jobs = []
    condition.broadcast()
  }

  private func work() {
    while true {
      condition.lock()
      while jobs.isEmpty && !isStopping { condition.wait() }
      guard !isStopping else {
        condition.unlock()
        return
      }
      let job = jobs.removeFirst()
      condition.unlock()
      job()
    }
  }
}
