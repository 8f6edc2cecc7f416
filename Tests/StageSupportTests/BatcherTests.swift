import ClusterCore
import Foundation
import StageSupport
import Synchronization
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(2))) struct BatcherTests {
  /// Threads that each call `body` with a number of `items`.
  private struct Threads<Result: Sendable>: Sendable {
    private let results: AsyncStream<(Int, Result)>
    private let count: Int

    init(_ items: [Int], _ body: @escaping @Sendable (Int) -> Result) {
      let (results, result) = AsyncStream.makeStream(of: (Int, Result).self)
      self.results = results
      count = items.count
      for (index, item) in items.enumerated() { Thread { result.yield((index, body(item))) }.start() }
    }

    /// What `body` gave, in the order of the items; fewer when the test's time is over.
    var outputs: [Result] {
      get async {
        var found: [Int: Result] = [:]
        for await (index, result) in results.prefix(count) { found[index] = result }
        return found.sorted { $0.key < $1.key }.map(\.value)
      }
    }
  }

  /// What was computed together, batch by batch.
  private final class Batches: Sendable {
    private let kept = Mutex([[Int]]())

    var items: [[Int]] { kept.withLock { $0 } }
    var sortedItems: [[Int]] { items.map { $0.sorted() } }
    func append(_ batch: [Int]) { kept.withLock { $0.append(batch) } }
  }

  private func batcher(
    _ limits: BatchLimits, _ batches: Batches, time: any TimeSource = SystemTime(),
    _ compute: @escaping @Sendable () -> Void = {}
  ) -> Batcher<Int, String> {
    Batcher(limits, time: time) { items in
      batches.append(items)
      compute()
      return items.map { "\($0)!" }
    }
  }

  @Test func everyCallerGetsTheOutputOfItsItem() async {
    let batches = Batches(),
      encode = batcher(BatchLimits(maxItems: 5, maxWeight: 1000, wait: .milliseconds(1)), batches)
    let items = Array(0..<64), outputs = await Threads(items) { encode($0, weight: 1) }.outputs
    #expect(outputs == items.map { "\($0)!" })
    #expect(batches.items.flatMap { $0 }.sorted() == items && batches.items.allSatisfy { (1...5).contains($0.count) })
  }

  /// A full batch does not wait: this clock stands still.
  @Test func aFullBatchBeginsAtOnce() async {
    let batches = Batches(), limits = BatchLimits(maxItems: 3, maxWeight: 1000, wait: .seconds(3600))
    let encode = batcher(limits, batches, time: ManualTime())
    _ = await Threads([1, 2, 3]) { encode($0, weight: 1) }.outputs
    #expect(batches.sortedItems == [[1, 2, 3]])
    let heavy = batcher(BatchLimits(maxItems: 9, maxWeight: 10, wait: .seconds(3600)), batches, time: ManualTime())
    #expect(heavy(7, weight: 11) == "7!")
  }

  @Test func aBatchThatIsNotFullWaitsForItsTime() async throws {
    let batches = Batches(), time = ManualTime(), wait = Duration.milliseconds(50)
    let encode = batcher(BatchLimits(maxItems: 3, maxWeight: 1000, wait: wait), batches, time: time)
    let first = Threads([1]) { encode($0, weight: 1) }
    try await time.untilAsleep(for: wait)
    time.advance(by: .milliseconds(49))
    let second = Threads([2]) { encode($0, weight: 1) }
    try await until("the second item waits, too") { encode.waitingCount == 2 }
    #expect(batches.items.isEmpty)
    time.advance(by: .milliseconds(1))
    #expect(await first.outputs + second.outputs == ["1!", "2!"])
    #expect(batches.items == [[1, 2]])
  }

  @Test func weightsAreLimited() async throws {
    let batches = Batches(), time = ManualTime(), wait = Duration.milliseconds(50), weights = [6, 6, 4, 4, 2, 12]
    // All wait for the end of a first batch, which is full.
    let (began, end) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
    let encode = batcher(BatchLimits(maxItems: 100, maxWeight: 10, wait: wait), batches, time: time) {
      began.signal()
      end.wait()
    }
    let first = Threads([11]) { encode($0, weight: $0) }
    _ = await Threads([0]) { _ in began.wait() }.outputs
    let others = Threads(weights) { encode($0, weight: $0) }
    try await until("all wait") { encode.waitingCount == weights.count }
    for _ in 0...weights.count { end.signal() }
    // What is left of them is less than a batch.
    let rest = Task {
      while true {
        try await time.untilAsleep(for: wait)
        time.advance(by: wait)
      }
    }
    _ = await first.outputs + others.outputs
    rest.cancel()
    #expect(batches.items.first == [11])
    #expect(batches.items.flatMap { $0 }.sorted() == [2, 4, 4, 6, 6, 11, 12])
    #expect(batches.items.allSatisfy { $0.count == 1 || $0.reduce(0, +) <= 10 })
    #expect(batches.items.contains { $0.count > 1 })
  }

  /// Those who ask again and again are computed together, without waiting, and continue when others leave.
  @Test func participantsStayTogether() async {
    let batches = Batches(), limits = BatchLimits(maxItems: 100, maxWeight: 1000, wait: .seconds(3600))
    let predict = batcher(limits, batches, time: ManualTime())
    let entered = DispatchSemaphore(value: 0), go = DispatchSemaphore(value: 0)
    Thread {
      for _ in 0..<3 { entered.wait() }
      for _ in 0..<3 { go.signal() }
    }.start()
    let outputs = await Threads([1, 2, 3]) { item in
      predict.participating {
        entered.signal()
        go.wait()
        return (0..<item * 4).map { _ in predict(item, weight: 1) }
      }
    }.outputs
    #expect(outputs == [1, 2, 3].map { Array(repeating: "\($0)!", count: $0 * 4) })
    #expect(
      batches.sortedItems == Array(repeating: [1, 2, 3], count: 4) + Array(repeating: [2, 3], count: 4)
        + Array(repeating: [3], count: 4))
  }

  /// Their moment begins when the batch before has ended, not when they came.
  @Test func whoComesMeanwhileMakesTheNextBatch() async throws {
    let batches = Batches(), time = ManualTime(), wait = Duration.milliseconds(50)
    let (began, end) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
    let encode = batcher(BatchLimits(maxItems: 8, maxWeight: 1000, wait: wait), batches, time: time) {
      began.signal()
      end.wait()
    }
    let first = Threads([0]) { encode($0, weight: 1) }
    try await time.untilAsleep(for: wait)
    time.advance(by: wait)
    _ = await Threads([0]) { _ in began.wait() }.outputs
    let others = Threads([1, 2, 3]) { encode($0, weight: 1) }
    try await until("they wait") { encode.waitingCount == 3 }
    time.advance(by: .seconds(1))
    for _ in 0..<2 { end.signal() }
    #expect(await first.outputs == ["0!"])
    try await time.untilAsleep(for: wait)
    #expect(batches.items == [[0]])
    time.advance(by: wait)
    #expect(await others.outputs == ["1!", "2!", "3!"])
    #expect(batches.sortedItems == [[0], [1, 2, 3]])
  }
}
