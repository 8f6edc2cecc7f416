import Foundation
import Testing

/// `ckernels.h` names the plain version of each operation.
@Suite struct ReferenceTests {
  private static let root = URL(filePath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  @Test func theHeaderNamesEveryPlainVersionAndNoOther() throws {
    let header = try String(
      contentsOf: Self.root.appending(path: "Shared/CKernels/include/ckernels.h"), encoding: .utf8)
    let source = try String(
      contentsOf: Self.root.appending(path: "Tests/KernelsTests/Reference.swift"), encoding: .utf8)
    let named = Set(header.matches(of: /Reference\.([a-z]\w*)/).map { String($0.1) }).subtracting(["name", "swift"])
    let written = Set(source.matches(of: /\n  static func (\w+)/).map { String($0.1) })
    #expect(named.count > 10)
    #expect(named.subtracting(written).isEmpty, "named, but not written")
    // Steps of the others.
    #expect(written.subtracting(named) == ["bf16"], "written, but not named")
  }
}
