import Foundation
import StageSupport
import Synchronization
import Testing

@Suite struct BatcherTests {
  /// Calls `body` with every number in `items`, each on a thread of its own, and returns what it gave in the same order.
  private static func onThreads<Result: Sendable>(_ items: [Int], _ body: @escaping @Sendable (Int) -> Result)
    -> [Result?]
  {
    let results = Mutex([Result?](repeating: nil, count: items.count)), group = DispatchGroup()
    for (index, item) in items.enumerated() {
      group.enter()
      let thread = Thread {
        let result = body(item)
        results.withLock { $0[index] = result }
        group.leave()
      }
      thread.start()
    }
    group.wait()
    return results.withLock { $0 }
  }

  private final class Batches: Sendable {
    let sizes = Mutex([[Int]]())
  }

  private func batcher(_ limits: BatchLimits, _ batches: Batches, seconds: Double = 0) -> Batcher<Int, String> {
    Batcher(limits) { items in
      batches.sizes.withLock { $0.append(items) }
      Thread.sleep(forTimeInterval: seconds)
      return items.map { "\($0)!" }
    }
  }

  @Test func everyCallerGetsTheOutputOfItsItem() {
    let batches = Batches(),
      encode = batcher(BatchLimits(maxItems: 5, maxWeight: 1000, wait: .milliseconds(1)), batches)
    let items = Array(0..<64), outputs = Self.onThreads(items) { encode($0, weight: 1) }
    #expect(outputs == items.map { "\($0)!" })
    let computed = batches.sizes.withLock { $0 }
    #expect(computed.flatMap { $0 }.sorted() == items && computed.allSatisfy { (1...5).contains($0.count) })
  }

  /// A full batch does not wait, and nothing waits longer than it must.
  @Test(.timeLimit(.minutes(1))) func aFullBatchBeginsAtOnce() {
    let batches = Batches(), encode = batcher(BatchLimits(maxItems: 3, maxWeight: 1000, wait: .seconds(3600)), batches)
    _ = Self.onThreads([1, 2, 3]) { encode($0, weight: 1) }
    #expect(batches.sizes.withLock { $0.map { $0.sorted() } } == [[1, 2, 3]])
    let heavy = batcher(BatchLimits(maxItems: 9, maxWeight: 10, wait: .seconds(3600)), batches)
    #expect(heavy(7, weight: 11) == "7!")
  }

  @Test func weightsAreLimited() {
    let batches = Batches(),
      encode = batcher(BatchLimits(maxItems: 100, maxWeight: 10, wait: .milliseconds(50)), batches)
    _ = Self.onThreads([6, 6, 4, 4, 2, 12]) { encode($0, weight: $0) }
    let computed = batches.sizes.withLock { $0 }
    #expect(computed.flatMap { $0 }.sorted() == [2, 4, 4, 6, 6, 12])
    #expect(computed.allSatisfy { $0.count == 1 || $0.reduce(0, +) <= 10 })
  }

  /// Those who ask again and again are computed together, without waiting, and go on when others leave.
  @Test(.timeLimit(.minutes(1))) func participantsStayTogether() {
    let batches = Batches(),
      predict = batcher(BatchLimits(maxItems: 100, maxWeight: 1000, wait: .seconds(3600)), batches)
    let entered = DispatchSemaphore(value: 0), go = DispatchSemaphore(value: 0)
    DispatchQueue.global().async {
      for _ in 0..<3 { entered.wait() }
      for _ in 0..<3 { go.signal() }
    }
    let outputs = Self.onThreads([1, 2, 3]) { item in
      predict.participating {
        entered.signal()
        go.wait()
        return (0..<item * 4).map { _ in predict(item, weight: 1) }
      }
    }
    #expect(outputs == [1, 2, 3].map { Array(repeating: "\($0)!", count: $0 * 4) })
    let sizes = batches.sizes.withLock { $0.map { $0.sorted() } }
    #expect(
      sizes == Array(repeating: [1, 2, 3], count: 4) + Array(repeating: [2, 3], count: 4)
        + Array(repeating: [3], count: 4))
  }

  @Test func whoComesMeanwhileMakesTheNextBatch() {
    let batches = Batches(),
      encode = batcher(BatchLimits(maxItems: 8, maxWeight: 1000, wait: .zero), batches, seconds: 0.3)
    _ = Self.onThreads([0, 1, 2, 3]) { item in
      Thread.sleep(forTimeInterval: item == 0 ? 0 : 0.1)
      return encode(item, weight: 1)
    }
    let computed = batches.sizes.withLock { $0 }
    #expect(computed.count <= 3 && computed.flatMap { $0 }.sorted() == [0, 1, 2, 3])
  }
}
