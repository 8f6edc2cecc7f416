import Foundation

/// Gathers what several threads want computed and computes it together.
///
/// The first thread that comes waits a moment for others, computes for all that have come, and wakes them. Who comes
/// meanwhile makes the next batch, which waits no longer than a moment after them and after the last batch.
public final class Batcher<Item: Sendable, Output: Sendable>: @unchecked Sendable {
  // @unchecked Sendable: `waiting` and `isComputing` are touched with `condition` locked only.
  private final class Entry {
    let item: Item
    let weight: Int
    let arrivedAt = Date()
    var output: Output?

    init(_ item: Item, weight: Int) {
      self.item = item
      self.weight = weight
    }
  }

  private let limits: BatchLimits
  private let compute: @Sendable ([Item]) -> [Output]
  private let condition = NSCondition()
  private var waiting: [Entry] = []
  private var isComputing = false
  private var lastEnd = Date.distantPast
  private var participants = 0

  /// A batcher around `compute`, which gives as many outputs as it gets items, in their order; one call of it runs at a
  /// time.
  public init(_ limits: BatchLimits, compute: @escaping @Sendable ([Item]) -> [Output]) {
    self.limits = limits
    self.compute = compute
  }

  /// The output for `item`; blocks until it is computed.
  ///
  /// - Parameter weight: what the item counts for towards ``BatchLimits/maxWeight``.
  public func callAsFunction(_ item: Item, weight: Int) -> Output {
    let entry = Entry(item, weight: weight)
    condition.lock()
    defer { condition.unlock() }
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

  private var isFull: Bool {
    waiting.count >= limits.maxItems || participants > 0 && waiting.count >= participants
      || waiting.reduce(0) { $0 + $1.weight } >= limits.maxWeight
  }

  /// Called with the lock held, which is released while the batch is gathered and computed.
  private func computeBatch() {
    isComputing = true
    // Who was in the last batch may be back in a moment.
    let deadline = max(waiting[0].arrivedAt, lastEnd) + limits.wait / .seconds(1)
    while !isFull, condition.wait(until: deadline) {}
    let batch = takeBatch()
    condition.unlock()
    let outputs = compute(batch.map(\.item))
    precondition(outputs.count == batch.count, "\(outputs.count) outputs for \(batch.count) items")
    condition.lock()
    for (entry, output) in zip(batch, outputs) { entry.output = output }
    lastEnd = Date()
    isComputing = false
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
