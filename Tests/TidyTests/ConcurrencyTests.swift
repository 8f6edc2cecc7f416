import Foundation
import Testing

/// `concurrency.md` lists what the compiler does not check: each entry with its proof, and nothing that is gone.
@Suite struct ConcurrencyTests {
  private static let root = URL(filePath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  /// The cells of the rows of the table below a heading of the page, without its head.
  private static func table(below heading: String) throws -> [[String]] {
    let page = try String(contentsOf: root.appending(path: "Shared/Documentation/concurrency.md"), encoding: .utf8)
    let section = try #require(page.components(separatedBy: "\n## ").first { $0.hasPrefix(heading) }, "no \(heading)")
    let rows = section.split(separator: "\n").filter { $0.hasPrefix("| ") }.dropFirst()
    return rows.map { row in
      row.split(separator: "|").map { $0.trimmingCharacters(in: CharacterSet(charactersIn: " `")) }
    }
  }

  private struct Line {
    let file: String
    /// Without comments and strings.
    let code: String
  }

  /// The lines of code of the Swift sources in `folders` that may hold what these tests look for.
  private static func code(_ folders: [String]) throws -> [Line] {
    var lines: [Line] = [], count = 0
    for folder in folders {
      let directory = root.appending(path: folder)
      let paths = FileManager.default.enumerator(atPath: directory.path)?.compactMap { $0 as? String } ?? []
      for path in paths.sorted() where path.hasSuffix(".swift") && !path.contains(".build/") {
        let text = try String(contentsOf: directory.appending(path: path), encoding: .utf8)
        for line in text.split(separator: "\n") {
          count += 1
          guard ["nsafe", "@unchecked", "Opaque", "TensorMemory"].contains(where: line.contains) else { continue }
          let code = String(line).replacing(/"(\\.|[^"\\])*"/, with: "\"\"").prefix(upTo: "//")
          lines.append(Line(file: "\(folder)/\(path)", code: code))
        }
      }
    }
    #expect(count > 10_000)
    return lines
  }

  @Test func everyExemptionIsListedWithItsProof() throws {
    var found: Set<String> = []
    for line in try Self.code(["Shared", "Services", "Tests"]) {
      if line.code.contains("@unchecked Sendable") {
        let name = line.code.firstMatch(of: /(?:class|struct|enum|actor|extension)\s+([\w.]+)/)?.1
        found.insert("\(line.file) \(try #require(name, "no type in: \(line.code)"))")
      }
      if line.code.contains("nonisolated(unsafe)") {
        let name = line.code.firstMatch(of: /(?:let|var)\s+(\w+)/)?.1
        found.insert("\(line.file) \(try #require(name, "no variable in: \(line.code)"))")
      }
    }
    let rows = try Self.table(below: "Exempt")
    for row in rows {
      #expect(row.count == 4 && row.allSatisfy { !$0.isEmpty }, "an empty cell or a missing one: \(row)")
    }
    let listed = Set(rows.map { "\($0[0]) \($0[1])" })
    #expect(found.subtracting(listed).isEmpty, "exempt, but not listed")
    #expect(listed.subtracting(found).isEmpty, "listed, but no longer exempt")
    #expect(listed.count == rows.count, "listed twice")
  }

  @Test func everyPlaceWithPointersIsListedWithItsReason() throws {
    let isPointer = /Unsafe\w*Pointer|OpaquePointer|withUnsafe|unsafeBytes|@_spi\(TensorMemory\) import/
    let files = Set(try Self.code(["Shared", "Services"]).filter { $0.code.contains(isPointer) }.map(\.file))
    let rows = try Self.table(below: "Pointers")
    for row in rows {
      #expect(row.count == 2 && row.allSatisfy { !$0.isEmpty }, "an empty cell or a missing one: \(row)")
    }
    let places = rows.map { $0[0] }
    func isIn(_ place: String, _ file: String) -> Bool { file == place || file.hasPrefix(place + "/") }
    #expect(files.filter { file in !places.contains { isIn($0, file) } }.isEmpty, "pointers, but not listed")
    #expect(places.filter { place in !files.contains { isIn(place, $0) } }.isEmpty, "listed, but without pointers")
  }
}

extension String {
  /// The text before the first occurrence of `mark`, or all of it.
  fileprivate func prefix(upTo mark: String) -> String {
    range(of: mark).map { String(self[..<$0.lowerBound]) } ?? self
  }
}
