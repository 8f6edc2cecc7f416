import Foundation
import Testing

/// `what-is-promised.md` names a test for every promise: each must be there.
@Suite struct PromisesTests {
  @Test func everyTestThatThePageNamesIsThere() throws {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let page = try String(contentsOf: root.appending(path: "Shared/Documentation/what-is-promised.md"), encoding: .utf8)
    var count = 0
    for row in page.split(separator: "\n") where row.hasPrefix("| ") {
      guard let last = row.split(separator: "|").last, last.contains("`Tests/") else { continue }
      for reference in last.split(separator: ";") {
        // `file` `test`, `test`…
        let names = reference.split(separator: "`").enumerated().filter { !$0.offset.isMultiple(of: 2) }.map { String($0.element) }
        let file = try #require(names.first)
        let text = try String(contentsOf: root.appending(path: file), encoding: .utf8)
        #expect(names.count > 1, "\(reference) names no test")
        for name in names.dropFirst() {
          count += 1
          #expect(text.contains("func \(name)(") || text.contains("def \(name)("), "\(file) has no \(name)")
        }
      }
    }
    #expect(count > 40)
  }
}
