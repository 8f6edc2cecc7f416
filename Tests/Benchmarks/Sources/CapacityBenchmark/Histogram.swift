import Foundation

/// The monotonic clock, in nanoseconds.
func nowNs() -> Int64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}

/// Durations in buckets of about 1.6 %, from 1 µs on: of fixed size, however many there are.
struct Histogram {
  private static let bucketsPerOctave = 44
  private var buckets = [Int](repeating: 0, count: 44 * 30)
  private(set) var count = 0
  private(set) var maxNs: Int64 = 0
  private var sumNs = 0.0

  mutating func add(_ ns: Int64) {
    let octaves = log2(max(1, Double(ns) / 1000))
    buckets[min(buckets.count - 1, Int(octaves * Double(Self.bucketsPerOctave)))] += 1
    count += 1
    maxNs = max(maxNs, ns)
    sumNs += Double(max(0, ns))
  }

  /// The upper bound of the bucket in which the quantile lies, in milliseconds; 0 without samples.
  func quantileMs(_ quantile: Double) -> Double {
    var left = Int((Double(count) * quantile).rounded(.up))
    for (index, samples) in buckets.enumerated() where samples > 0 {
      left -= samples
      if left <= 0 {
        return min(Double(maxNs) / 1e6, exp2(Double(index + 1) / Double(Self.bucketsPerOctave)) / 1000)
      }
    }
    return Double(maxNs) / 1e6
  }

  /// `{"count": …, "p50_ms": …}`
  var summary: [String: Double] {
    [
      "count": Double(count), "mean_ms": count == 0 ? 0 : sumNs / Double(count) / 1e6, "p50_ms": quantileMs(0.5),
      "p99_ms": quantileMs(0.99), "p99_9_ms": quantileMs(0.999), "max_ms": Double(maxNs) / 1e6,
    ]
  }
}
