import ClusterCore
import Testing

@Suite("Sleeps", .timeLimit(.minutes(1)))
struct SleepQueueTests {
  private func sleepers(_ queue: SleepQueue, _ count: Int, for duration: Duration) async -> [Task<Bool, Never>] {
    let before = queue.entryCount
    let tasks = (0..<count).map { _ in
      Task {
        do { try await queue.sleep(for: duration) } catch { return error is CancellationError }
        return false
      }
    }
    while queue.entryCount < before + count { await Task.yield() }
    return tasks
  }

  @Test("end in the order of their times, whatever the order of their beginnings")
  func order() async throws {
    let queue = SleepQueue()
    let ended = try await withThrowingTaskGroup(of: Int.self) { group in
      for milliseconds in [1500, 500, 1000, 1] {
        group.addTask {
          try await queue.sleep(for: .milliseconds(milliseconds))
          return milliseconds
        }
      }
      return try await group.reduce(into: []) { $0.append($1) }
    }
    #expect(ended == [1, 500, 1000, 1500])
    #expect(queue.entryCount == 0)
  }

  @Test("that are cancelled end at once and take no memory, and the others sleep on")
  func cancelled() async throws {
    let queue = SleepQueue()
    let first = await sleepers(queue, 1, for: .milliseconds(500))
    for _ in 0..<10 {
      let tasks = await sleepers(queue, 1000, for: .seconds(3600))
      for task in tasks { task.cancel() }
      for task in tasks { #expect(await task.value) }
      #expect(queue.entryCount <= 66)
    }
    #expect(await first[0].value == false)
  }

  @Test("that are short cost nothing more beside long ones")
  func ticks() async throws {
    let queue = SleepQueue()
    let long = await sleepers(queue, 2, for: .seconds(3600)) + sleepers(queue, 2, for: .seconds(7200))
    for _ in 0..<200 {
      try await queue.sleep(for: .milliseconds(1))
      #expect(queue.plannedCount <= 3)
    }
    for task in long { task.cancel() }
    for task in long { #expect(await task.value) }
  }

  @Test("begin only in tasks that are not cancelled, and end at once if they take no time")
  func noSleep() async throws {
    let queue = SleepQueue()
    let task = Task {
      withUnsafeCurrentTask { $0?.cancel() }
      try await queue.sleep(for: .seconds(3600))
    }
    await #expect(throws: CancellationError.self) { try await task.value }
    try await queue.sleep(for: .zero)
    try await queue.sleep(for: .seconds(-1))
    #expect(queue.entryCount == 0)
  }

  @Test("that are cancelled as they begin end")
  func race() async {
    let queue = SleepQueue()
    for _ in 0..<2000 {
      let task = Task { try? await queue.sleep(for: .seconds(3600)) }
      await Task.yield()
      task.cancel()
      await task.value
    }
    #expect(queue.entryCount <= 66)
  }
}
