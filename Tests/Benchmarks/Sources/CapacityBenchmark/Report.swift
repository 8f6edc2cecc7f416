/// What was measured, in the order in which it was.
struct Report {
  private var rows: [(name: String, value: Double)] = []
  /// What must not be.
  var failures: [String] = []

  mutating func add(_ name: String, _ value: Double) { rows.append((name, value)) }

  mutating func add(_ name: String, _ histogram: Histogram) {
    for (key, value) in histogram.summary.sorted(by: { $0.key < $1.key }) { add("\(name)_\(key)", value) }
  }

  subscript(_ name: String) -> Double { rows.last { $0.name == name }?.value ?? 0 }

  var values: [String: Any] {
    var values: [String: Any] = Dictionary(rows.map { ($0.name, $0.value) }) { $1 }
    values["failures"] = failures
    return values
  }

  var table: String {
    let width = rows.map(\.name.count).max() ?? 0
    let lines = rows.map { name, value in
      let rounded = (value * 1000).rounded() / 1000
      return name + String(repeating: " ", count: width + 2 - name.count)
        + (rounded == rounded.rounded() && abs(rounded) < 1e15 ? "\(Int(rounded))" : "\(rounded)")
    }
    return (lines + failures.map { "FAILED: \($0)" }).joined(separator: "\n")
  }
}
