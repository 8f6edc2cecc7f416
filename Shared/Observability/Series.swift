import CoreMetrics
import Foundation
import Synchronization
import Tracing

/// One time series: a number, or a histogram.
final class Series: Sendable {
  private struct State {
    var value = 0.0
    var counts: [UInt64]
    var count: UInt64 = 0
    var sum = 0.0
    /// The newest of each bucket, of the one without a bound last; empty until there is one.
    var exemplars: [Exemplar?] = []
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
    let exemplar = bounds.isEmpty ? nil : Exemplar(value)
    state.withLock { state in
      guard !bounds.isEmpty else {
        state.value = value
        return
      }
      let bucket = bounds.firstIndex { value <= $0 }
      if let bucket { state.counts[bucket] += 1 }
      state.count += 1
      state.sum += value
      if let exemplar {
        if state.exemplars.isEmpty { state.exemplars = Array(repeating: nil, count: bounds.count + 1) }
        state.exemplars[bucket ?? bounds.count] = exemplar
      }
    }
  }

  func clear() { state.withLock { $0 = State(counts: Array(repeating: 0, count: bounds.count)) } }

  func write(_ name: String, _ labels: String, _ format: ExpositionFormat, to text: inout String) {
    let state = state.withLock { $0 }
    guard !bounds.isEmpty else {
      text += "\(name)\(Self.braces(labels)) \(Self.number(state.value))\n"
      return
    }
    var cumulative: UInt64 = 0
    for (index, bound) in (bounds + [.infinity]).enumerated() {
      cumulative = index < bounds.count ? cumulative + state.counts[index] : state.count
      text += "\(name)_bucket\(Self.braces(labels, "le=\"\(format.bound(bound))\"")) \(cumulative)"
      if format == .openMetrics, let exemplar = state.exemplars.isEmpty ? nil : state.exemplars[index] {
        text += exemplar.text
      }
      text += "\n"
    }
    text += "\(name)_sum\(Self.braces(labels)) \(Self.number(state.sum))\n"
    text += "\(name)_count\(Self.braces(labels)) \(state.count)\n"
  }

  private static func braces(_ labels: String, _ more: String = "") -> String {
    let all = [labels, more].filter { !$0.isEmpty }.joined(separator: ",")
    return all.isEmpty ? "" : "{\(all)}"
  }

  static func number(_ value: Double) -> String {
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
