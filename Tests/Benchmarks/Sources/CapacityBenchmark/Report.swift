import Foundation

/// What was measured, in the order in which it was.
struct Report {
  private var rows: [(name: String, value: Double)] = []
  /// What must not be.
  var failures: [String] = []

  /// Shown at once: later phases may take long, or fail.
  mutating func add(_ name: String, _ value: Double) {
    rows.append((name, value))
    FileHandle.standardError.write(Data("\(name) \(Self.text(value))\n".utf8))
  }

  mutating func add(_ name: String, _ histogram: Histogram) {
    for (key, value) in histogram.summary.sorted(by: { $0.key < $1.key }) { add("\(name)_\(key)", value) }
  }

  private static func text(_ value: Double) -> String {
    let rounded = (value * 1000).rounded() / 1000
    return rounded == rounded.rounded() && abs(rounded) < 1e15 ? "\(Int(rounded))" : "\(rounded)"
  }

  var values: [String: Any] {
    var values: [String: Any] = Dictionary(rows.map { ($0.name, $0.value) }) { $1 }
    values["failures"] = failures
    return values
  }

  var table: String {
    let width = rows.map(\.name.count).max() ?? 0
    let lines = rows.map { name, value in
      name + String(repeating: " ", count: width + 2 - name.count) + Self.text(value)
    }
    return (lines + failures.map { "FAILED: \($0)" }).joined(separator: "\n")
  }
}
