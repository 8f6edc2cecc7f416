import Testing

/// Records one issue with all findings, one on each line.
func expectNone(_ findings: [Finding], sourceLocation: SourceLocation = #_sourceLocation) {
  guard !findings.isEmpty else { return }
  Issue.record("\(findings.count) findings:\(findings.lines)", sourceLocation: sourceLocation)
}

extension [Finding] {
  /// One on each line.
  var lines: String { map { "\n\($0)" }.joined() }
}
