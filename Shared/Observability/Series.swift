import CoreMetrics
import Synchronization

/// One time series: a number, or a histogram.
final class Series: Sendable {
  private struct State {
    var value = 0.0
    var counts: [UInt64]
    var count: UInt64 = 0
    var sum = 0.0
  }

  private let bounds: [Double]
  private let state: Mutex<State>

  /// A histogram when `bounds` is not empty.
  init(bounds: [Double]) {
    self.bounds = bounds
    self.state = Mutex(State(counts: Array(repeating: 0, count: bounds.count)))
  }

  func set(_ value: Double) { state.withLock { $0.value = value } }

  func add(_ amount: Double) { state.withLock { $0.value += amount } }

  func observe(_ value: Double) {
    state.withLock { state in
      guard !bounds.isEmpty else {
        state.value = value
        return
      }
      if let bucket = bounds.firstIndex(where: { value <= $0 }) { state.counts[bucket] += 1 }
      state.count += 1
      state.sum += value
    }
  }

  func clear() { state.withLock { $0 = State(counts: Array(repeating: 0, count: bounds.count)) } }

  func write(_ name: String, _ labels: String, to text: inout String) {
    let state = state.withLock { $0 }
    guard !bounds.isEmpty else {
      text += "\(name)\(Self.braces(labels)) \(Self.number(state.value))\n"
      return
    }
    var cumulative: UInt64 = 0
    for (bound, count) in zip(bounds, state.counts) {
      cumulative += count
      text += "\(name)_bucket\(Self.braces(labels, "le=\"\(Self.number(bound))\"")) \(cumulative)\n"
    }
    text += "\(name)_bucket\(Self.braces(labels, "le=\"+Inf\"")) \(state.count)\n"
    text += "\(name)_sum\(Self.braces(labels)) \(Self.number(state.sum))\n"
    text += "\(name)_count\(Self.braces(labels)) \(state.count)\n"
  }

  private static func braces(_ labels: String, _ more: String = "") -> String {
    let all = [labels, more].filter { !$0.isEmpty }.joined(separator: ",")
    return all.isEmpty ? "" : "{\(all)}"
  }

  private static func number(_ value: Double) -> String {
    if value.isNaN { return "NaN" }
    if value.isInfinite { return value > 0 ? "+Inf" : "-Inf" }
    return value == value.rounded() && abs(value) < 1e15 ? String(Int64(value)) : "\(value)"
  }
}

extension Series: CounterHandler, FloatingPointCounterHandler, MeterHandler, RecorderHandler, TimerHandler {
  func increment(by amount: Int64) { add(Double(amount)) }
  /// Counters never go down, and a NaN would stay for ever.
  func increment(by amount: Double) { if amount.isFinite { add(amount) } }
  func decrement(by amount: Double) { if amount.isFinite { add(-amount) } }
  func reset() { clear() }
  func set(_ value: Int64) { set(Double(value)) }
  func record(_ value: Int64) { observe(Double(value)) }
  func record(_ value: Double) { observe(value) }
  func recordNanoseconds(_ duration: Int64) { observe(Double(duration) / 1e9) }
}
