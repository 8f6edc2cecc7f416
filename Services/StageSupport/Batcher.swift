import ClusterCore
import Foundation

/// Gathers what several threads want computed and computes it together.
///
/// The first thread that comes waits a moment for others, computes for all that have come, and wakes them. Who comes
/// meanwhile makes the next batch, which waits no longer than a moment after them and after the last batch.
public final class Batcher<Item: Sendable, Output: Sendable>: @unchecked Sendable {
  // @unchecked Sendable: everything that changes is touched with `condition` locked only.
  private final class Entry {
    let item: Item
    let weight: Int
    let arrivedAt: Duration
    var output: Output?

    init(_ item: Item, weight: Int, arrivedAt: Duration) {
      self.item = item
      self.weight = weight
      self.arrivedAt = arrivedAt
    }
  }

  private let limits: BatchLimits
  private let time: any TimeSource
  private let compute: @Sendable ([Item]) -> [Output]
  private let condition = NSCondition()
  private var waiting: [Entry] = []
  private var isComputing = false
  /// When the last batch was computed; nil: there was none.
  private var lastEnd: Duration?
  /// The number of the batch whose items have waited long enough; batches are counted from 1.
  private var dueBatch: UInt64 = 0
  private var batches: UInt64 = 0
  private var participants = 0

  /// A batcher around `compute`, which gives as many outputs as it gets items, in their order; one call of it runs at a
  /// time.
  ///
  /// - Parameter time: the clock of ``BatchLimits/wait``.
  public init(
    _ limits: BatchLimits, time: any TimeSource = SystemTime(), compute: @escaping @Sendable ([Item]) -> [Output]
  ) {
    self.limits = limits
    self.time = time
    self.compute = compute
  }

  /// The output for `item`; blocks until it is computed.
  ///
  /// - Parameter weight: what the item counts for towards ``BatchLimits/maxWeight``.
  public func callAsFunction(_ item: Item, weight: Int) -> Output {
    condition.lock()
    defer { condition.unlock() }
    let entry = Entry(item, weight: weight, arrivedAt: time.elapsed)
    waiting.append(entry)
    condition.broadcast()
    while true {
      if let output = entry.output { return output }
      if isComputing { condition.wait() } else { computeBatch() }
    }
  }

  /// Calls `body`, which asks again and again: a batch is not waited for once all participants have asked.
  public func participating<Result>(_ body: () throws -> Result) rethrows -> Result {
    count(1)
    defer { count(-1) }
    return try body()
  }

  private func count(_ change: Int) {
    condition.lock()
    defer { condition.unlock() }
    participants += change
    condition.broadcast()
  }

  /// How many items wait for a batch.
  package var waitingCount: Int {
    condition.lock()
    defer { condition.unlock() }
    return waiting.count
  }

  private var isFull: Bool {
    waiting.count >= limits.maxItems || participants > 0 && waiting.count >= participants
      || waiting.reduce(0) { $0 + $1.weight } >= limits.maxWeight
  }

  /// Called with the lock held, which is released while the batch is gathered and computed.
  private func computeBatch() {
    isComputing = true
    gather()
    let batch = takeBatch()
    condition.unlock()
    let outputs = compute(batch.map(\.item))
    precondition(outputs.count == batch.count, "\(outputs.count) outputs for \(batch.count) items")
    condition.lock()
    for (entry, output) in zip(batch, outputs) { entry.output = output }
    lastEnd = time.elapsed
    isComputing = false
    condition.broadcast()
  }

  /// Returns when the batch is full or its first item has waited long enough. The condition itself cannot wait on a
  /// clock that tests provide, so a task does, which wakes it.
  private func gather() {
    batches += 1
    // Who was in the last batch may be back in a moment.
    let since = max(waiting[0].arrivedAt, lastEnd ?? waiting[0].arrivedAt)
    let remaining = since + limits.wait - time.elapsed
    guard !isFull, remaining > .zero else { return }
    let alarm = Task { [self, time, batches] in
      if (try? await time.sleep(for: remaining)) != nil { expire(batches) }
    }
    while !isFull, dueBatch < batches { condition.wait() }
    alarm.cancel()
  }

  private func expire(_ batch: UInt64) {
    condition.lock()
    defer { condition.unlock() }
    dueBatch = max(dueBatch, batch)
    condition.broadcast()
  }

  /// The oldest items within the limits; the first one whatever its weight.
  private func takeBatch() -> [Entry] {
    var count = 1, weight = waiting[0].weight
    while count < min(waiting.count, limits.maxItems), weight + waiting[count].weight <= limits.maxWeight {
      weight += waiting[count].weight
      count += 1
    }
    defer { waiting.removeFirst(count) }
    return Array(waiting.prefix(count))
  }
}

/// What a batch may be.
public struct BatchLimits: Sendable {
  /// Items at most, at least 1.
  public var maxItems: Int
  /// Weight at most; a single item may have more.
  public var maxWeight: Int
  /// How long the first item waits for others.
  public var wait: Duration

  /// See the properties.
  public init(maxItems: Int, maxWeight: Int, wait: Duration) {
    self.maxItems = maxItems
    self.maxWeight = maxWeight
    self.wait = wait
  }
}
