import Foundation

/// What one request of a benchmark took.
package struct BenchSample: Hashable, Sendable {
  /// From the request to the image, in seconds.
  package var latencySeconds: Double
  /// From the request to the beginning of its denoising; nil: it was not seen.
  package var queueSeconds: Double?
  /// Of one denoising step; nil: no two steps were seen.
  package var stepSeconds: Double?
  /// Denoising steps; nil: none was seen.
  package var steps: Int?
  /// WIDTHxHEIGHT, as the gateway says it.
  package var size: String?
}

/// Measures one request by the events of its stream.
package struct BenchTrace {
  private var began: (step: Int, seconds: Double)?
  private var last: (step: Int, seconds: Double)?
  private var steps: Int?

  package init() {}

  /// Takes note of an event that came `seconds` after the request was sent.
  package mutating func note(stage: String, step: Int, steps: Int, queuePosition: Int?, seconds: Double) {
    guard queuePosition == nil, stage == "denoiser" else { return }
    self.steps = steps
    if began == nil { began = (step, seconds) }
    if step > last?.step ?? -1 { last = (step, seconds) }
  }

  /// The measurement of a request whose image came after `seconds`.
  package func sample(seconds: Double, size: String?) -> BenchSample {
    var sample = BenchSample(latencySeconds: seconds, queueSeconds: began?.seconds, steps: steps, size: size)
    if let began, let last, last.step > began.step {
      sample.stepSeconds = (last.seconds - began.seconds) / Double(last.step - began.step)
    }
    return sample
  }
}

/// What a benchmark has measured.
package struct BenchReport: Encodable, Equatable {
  /// How one quantity is distributed, in seconds. Percentiles are values that were measured (nearest rank).
  package struct Distribution: Encodable, Equatable {
    package var mean: Double
    package var p50: Double
    package var p90: Double
    package var p99: Double
    package var max: Double

    /// nil: there are no values.
    package init?(_ values: [Double]) {
      guard !values.isEmpty else { return nil }
      let sorted = values.sorted()
      func percentile(_ percent: Int) -> Double { sorted[Swift.max(0, (sorted.count * percent + 99) / 100 - 1)] }
      mean = sorted.reduce(0, +) / Double(sorted.count)
      (p50, p90, p99) = (percentile(50), percentile(90), percentile(99))
      max = sorted[sorted.count - 1]
    }
  }

  /// Requests that failed for one reason.
  package struct Failure: Encodable, Equatable {
    package var reason: String
    package var count: Int
  }

  /// Different reasons that are listed; requests that fail for others are only counted.
  package static let maxReasons = 20

  /// Requests that were sent after those to warm up.
  package var requests: Int
  package var failed: Int
  package var concurrency: Int
  package var warmUp: Int
  /// From the first request to the last answer.
  package var seconds: Double
  package var imagesPerSecond: Double
  /// Of the first image; sizes and steps of all are those of the request.
  package var size: String?
  package var steps: Int?
  package var latencySeconds: Distribution?
  package var queueSeconds: Distribution?
  package var stepSeconds: Distribution?
  /// The most frequent first.
  package var failures: [Failure]

  /// - Parameters:
  ///   - samples: of the requests that succeeded.
  ///   - failures: the reasons of the others.
  ///   - concurrency: requests at a time.
  ///   - warmUp: requests before the first that counts.
  ///   - seconds: from the first request to the last answer.
  package init(
    samples: [BenchSample], failures: [String], concurrency: Int, warmUp: Int, seconds: Double
  ) {
    requests = samples.count + failures.count
    failed = failures.count
    (self.concurrency, self.warmUp, self.seconds) = (concurrency, warmUp, seconds)
    imagesPerSecond = seconds > 0 ? Double(samples.count) / seconds : 0
    (size, steps) = (samples.first?.size, samples.first?.steps)
    latencySeconds = Distribution(samples.map(\.latencySeconds))
    queueSeconds = Distribution(samples.compactMap(\.queueSeconds))
    stepSeconds = Distribution(samples.compactMap(\.stepSeconds))
    let counts = Dictionary(failures.map { ($0, 1) }, uniquingKeysWith: +)
    self.failures = counts.map { Failure(reason: $0, count: $1) }
      .sorted { ($1.count, $0.reason) < ($0.count, $1.reason) }
      .prefix(Self.maxReasons).map { $0 }
  }

  /// One line for each fact.
  package var lines: [String] {
    let what = [size, steps.map { "\($0) steps" }].compactMap { $0 }.joined(separator: ", ")
    var lines = [
      "\(requests) requests, \(concurrency) at a time, after \(warmUp) to warm up" + (what.isEmpty ? "" : ": \(what)"),
      "images/s  \(Self.text(imagesPerSecond)) (\(requests - failed) in \(Self.text(seconds)) s)",
    ]
    for (name, distribution) in [("latency", latencySeconds), ("queue", queueSeconds), ("step", stepSeconds)] {
      guard let distribution else { continue }
      let values = [
        ("mean", distribution.mean), ("p50", distribution.p50), ("p90", distribution.p90), ("p99", distribution.p99),
        ("max", distribution.max),
      ]
      lines.append(name.padded(to: 8) + values.map { "  \($0) \(Self.text($1)) s" }.joined())
    }
    lines.append("failed    \(failed)")
    return lines + failures.map { "          \($0.count) × \($0.reason)" }
  }

  /// Three digits, whatever the size.
  private static func text(_ value: Double) -> String {
    switch abs(value) {
    case ..<1: String(format: "%.3f", value)
    case ..<10: String(format: "%.2f", value)
    case ..<100: String(format: "%.1f", value)
    default: String(format: "%.0f", value)
    }
  }
}
