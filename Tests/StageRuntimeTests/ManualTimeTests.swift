import ClusterCore
import Synchronization
import TestSupport
import Testing

/// The clock that these tests rely on.
@Suite(.timeLimit(.minutes(2))) struct ManualTimeTests {
  @Test func sleepersWakeWhenTheirTimeHasCome() async throws {
    let time = ManualTime(unixMs: 5000), woken = Counter()
    func sleeper(_ milliseconds: Int) -> Task<Void, any Error> {
      Task {
        try await time.sleep(for: .milliseconds(milliseconds))
        woken.increment()
      }
    }
    let short = sleeper(10), long = sleeper(30)
    try await time.untilAsleep(for: .milliseconds(10))
    try await time.untilAsleep(for: .milliseconds(30))
    time.advance(by: .milliseconds(10))
    try await short.value
    #expect(woken.value == 1)
    // The second one counts from now.
    let late = sleeper(20)
    try await time.untilAsleep(for: .milliseconds(20))
    time.advance(by: .milliseconds(19))
    try await time.untilAsleep(for: .milliseconds(20))
    time.advance(by: .milliseconds(1))
    try await long.value
    try await late.value
    #expect(time.elapsed == .milliseconds(30) && time.unixMs == 5030)
    try await time.sleep(for: .zero)
  }

  @Test func cancellationEndsEveryWait() async throws {
    let time = ManualTime()
    let sleeper = Task { try await time.sleep(for: .seconds(1)) }
    let watcher = Task { try await time.untilAsleep(for: .seconds(2)) }
    try await time.untilAsleep(for: .seconds(1))
    for task in [sleeper, watcher] {
      task.cancel()
      await #expect(throws: CancellationError.self) { try await task.value }
    }
    // One that is over is not woken.
    time.advance(by: .seconds(5))
    let early = Task {
      withUnsafeCurrentTask { $0?.cancel() }
      try await time.sleep(for: .zero)
    }
    await #expect(throws: CancellationError.self) { try await early.value }
  }

  @Test func conditionsAreWaitedForUntilTheTestEnds() async throws {
    let count = Mutex(0)
    try await until("the third look") {
      count.withLock { count in
        count += 1
        return count == 3
      }
    }
    let inVain = Task { try await until("never") { false } }
    inVain.cancel()
    let error = await #expect(throws: WaitedInVain.self) { try await inVain.value }
    #expect(error?.description == "waited in vain until never")
  }
}
