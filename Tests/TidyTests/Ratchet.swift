/// Faults that are counted per folder while the sources are brought in order: each number may only go down.
struct Ratchet: Sendable {
  let name: String
  /// The number of findings that each folder may have; others: none.
  let limits: [String: Int]

  /// A finding for every folder whose number is not the limit, and the table as it should be.
  func findings(_ found: [Finding]) -> [Finding] {
    var places: [String: [Finding]] = [:]
    for finding in found { places[SourceFile(finding.path, "").folder, default: []].append(finding) }
    let changed = Set(places.keys).union(limits.keys).sorted().filter {
      places[$0, default: []].count != limits[$0] ?? 0
    }
    guard !changed.isEmpty else { return [] }
    let reports = changed.map { folder in
      let found = places[folder, default: []], limit = limits[folder] ?? 0
      return found.count > limit
        ? Finding(
          path: folder, "\(name): \(found.count), and \(limit) are allowed; correct what is new among\(found.lines)")
        : Finding(path: folder, "\(name): \(found.count) left of \(limit): lower the number, so that it stays so")
    }
    let table = places.keys.sorted().map { "\n    \"\($0)\": \(places[$0, default: []].count)," }.joined()
    return reports + [Finding(path: "Tests/TidyTests/Allowances.swift", "\(name) are now:\(table)")]
  }
}

extension [Finding] {
  /// One on each line.
  var lines: String { map { "\n\($0)" }.joined() }
}
