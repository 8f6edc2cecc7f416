import Foundation
import Settings
import Testing

@Suite struct ReleaseTests {
  @Test func theChangelogBeginsWithThisVersion() throws {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    let changes = try String(contentsOf: root.appending(path: "Shared/Documentation/CHANGELOG.md"), encoding: .utf8)
    let heading = changes.split(separator: "\n").first { $0.hasPrefix("## ") }
    #expect(heading == "## \(SoftwareVersion.current)")
    let parts = SoftwareVersion.current.split(separator: ".").compactMap { Int($0) }
    #expect(parts.count == 3 && parts.map(String.init).joined(separator: ".") == SoftwareVersion.current)
  }
}
