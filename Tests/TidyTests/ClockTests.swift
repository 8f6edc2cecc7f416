import Foundation
import Testing

/// Tests decide what time it is (`ManualTime`), or wait for what must come until their time limit: what they check must
/// not depend on how fast a machine is.
private enum Clocks {
  private static let reading = NSRegularExpression.known(
    #"\b(ContinuousClock|SuspendingClock|CFAbsoluteTimeGetCurrent|gettimeofday|clock_gettime|systemUptime"#
      + #"|timeIntervalSinceNow|Dispatch(Wall)?Time\.now|Date\.now|Date\(\)|time\((nil|NULL)\))"#)

  /// Lines of test suites that read a clock.
  static func findings(in files: [SourceFile], reasons: [String: String]) -> [Finding] {
    files.filter { isTest($0) && reasons[$0.path] == nil }.flatMap { file in
      CodeText.code(of: file).split(separator: "\n", omittingEmptySubsequences: false).enumerated().compactMap {
        index, line in
        reading.matches(in: String(line)).first?[0].map { text in
          Finding(
            file, line: index + 1, "\(text): tests read no clock; take a ManualTime, or wait with until(_:_:)")
        }
      }
    }
  }

  private static func isTest(_ file: SourceFile) -> Bool {
    file.kind == "swift" && file.folder.hasPrefix("Tests/") && file.folder.hasSuffix("Tests")
  }
}

@Suite("Clocks") struct ClockTests {
  @Test("are not read by tests")
  func readings() {
    expectNone(Clocks.findings(in: SourceTree.here.files, reasons: Allowances.clocks))
  }

  @Test(
    "that are read are found",
    arguments: [
      "let start = ContinuousClock.now", "let clock = ContinuousClock()", "var since: SuspendingClock.Instant?",
      "#expect(Date() < end)", "let now = Date.now", "clock_gettime(CLOCK_MONOTONIC, &time)",
      "DispatchTime.now() + 3", "ProcessInfo.processInfo.systemUptime", "_ = time(nil)",
    ])
  func planted(_ code: String) {
    let file = SourceFile("Tests/WireTests/A.swift", "\n\(code)\n")
    #expect(Clocks.findings(in: [file], reasons: [:]).map(\.line) == [2])
    #expect(Clocks.findings(in: [file], reasons: [file.path: "a reason"]).isEmpty)
  }

  @Test(
    "that tests set, and other code reads, are not",
    arguments: [
      ("Tests/WireTests/A.swift", "// ContinuousClock.now"), ("Tests/WireTests/A.swift", "let text = \"Date()\""),
      ("Tests/WireTests/A.swift", "Date(timeIntervalSince1970: 0)"),
      ("Tests/WireTests/A.swift", "let t = ManualTime()"),
      ("Tests/WireTests/A.swift", "let update = UpdateDate()"),
      ("Shared/Wire/A.swift", "let start = ContinuousClock.now"),
      ("Tests/Benchmarks/Sources/Measuring/A.swift", "let clock = ContinuousClock()"),
    ])
  func similar(_ path: String, _ code: String) {
    #expect(Clocks.findings(in: [SourceFile(path, code)], reasons: [:]).isEmpty)
  }

  @Test("allowances are for files that need them")
  func allowances() throws {
    for path in Allowances.clocks.keys {
      let file = try #require(SourceTree.here[path], "there is no \(path)")
      #expect(!Clocks.findings(in: [file], reasons: [:]).isEmpty, "\(path) reads no clock any more")
    }
  }
}
