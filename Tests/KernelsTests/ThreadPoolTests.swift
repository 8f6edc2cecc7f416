import Foundation
import Kernels
import Synchronization
import Testing

@Suite struct ThreadPoolTests {
  @Test(arguments: [1, 2, 3, 5]) func everyIndexOnce(threads: Int) {
    let pool = ThreadPool(threads: threads)
    #expect(pool.threadCount == threads)
    for count in [0, 1, 2, 7, 1000] {
      let seen = Mutex([Int](repeating: 0, count: count))
      pool.parallel(count) { index in seen.withLock { $0[index] += 1 } }
      #expect(seen.withLock { $0.allSatisfy { $0 == 1 } })
    }
  }

  @Test func threadsTakePart() {
    // Each of the two calls waits for the other one: one thread alone would never get through.
    let pool = ThreadPool(threads: 2)
    let arrived = DispatchSemaphore(value: 0), other = DispatchSemaphore(value: 0)
    pool.parallel(2) { index in
      if index == 0 {
        arrived.signal()
        other.wait()
      } else {
        other.signal()
        arrived.wait()
      }
    }
  }

  @Test func nestedCallsRunInline() {
    let pool = ThreadPool(threads: 3)
    let sum = Mutex(0)
    pool.parallel(8) { outer in pool.parallel(8) { inner in sum.withLock { $0 += outer * 8 + inner } } }
    #expect(sum.withLock { $0 } == 63 * 64 / 2)
  }

  @Test func callersAreServedOneAfterTheOther() {
    let pool = ThreadPool(threads: 2)
    let totals = Mutex([Int](repeating: 0, count: 8))
    DispatchQueue.concurrentPerform(iterations: 8) { caller in
      for _ in 0..<200 { pool.parallel(16) { index in totals.withLock { $0[caller] += index } } }
    }
    #expect(totals.withLock { $0 } == [Int](repeating: 200 * 120, count: 8))
  }

  /// Short jobs one after the other, by far more threads than processors: none may wait for a thread that looks for
  /// work while others have it. A time slice of the kernel for each of those who look would be minutes.
  @Test(.timeLimit(.minutes(1))) func manyThreadsOnFewProcessors() {
    let pool = ThreadPool(threads: 8 * AvailableProcessors.current.threadCount), jobs = 5000, count = 40
    let sums = Mutex([Int](repeating: 0, count: jobs))
    for job in 0..<jobs { pool.parallel(count) { index in sums.withLock { $0[job] += index } } }
    #expect(sums.withLock { $0.allSatisfy { $0 == count * (count - 1) / 2 } })
  }

  /// Jobs that come when the threads look, sleep, or are about to sleep.
  @Test(.timeLimit(.minutes(1)), arguments: [2, 3, 64]) func noJobIsMissed(threads: Int) {
    let pool = ThreadPool(threads: threads)
    for pause in [0, 20, 45, 50, 55, 100, 1000] as [UInt32] {
      for round in 0..<60 {
        let seen = Mutex(0), count = 2 + round % 7
        pool.parallel(count) { index in seen.withLock { $0 += index + 1 } }
        #expect(seen.withLock { $0 } == count * (count + 1) / 2)
        if pause > 0 { usleep(pause) }
      }
    }
  }
}
