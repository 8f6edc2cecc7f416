import Foundation
import Testing

@Suite("Documents") struct DocumentTests {
  private static let documents = SourceTree.here.files(["md"])
  private static let sources = Dictionary(uniqueKeysWithValues: SourceTree.here.files.map { ($0.path, $0) })

  private static func exists(_ path: String) -> Bool {
    FileManager.default.fileExists(atPath: SourceTree.root.appending(path: path).path)
  }

  @Test("link to files and headings that are there")
  func links() {
    #expect(Self.documents.count > 20)
    expectNone(Documents.linkFindings(in: Self.documents, exists: Self.exists))
  }

  @Test("name files, tests and types that are there")
  func names() {
    // The log of changes speaks of what was.
    let documents = Self.documents.filter { !$0.path.hasSuffix("CHANGELOG.md") }
    expectNone(Documents.nameFindings(in: documents, sources: Self.sources, exists: Self.exists))
  }

  @Test("name a test for every promise")
  func promises() throws {
    let page = try #require(SourceTree.here["Shared/Documentation/what-is-promised.md"])
    expectNone(Documents.promiseFindings(in: page))
    #expect(page.lines.count { $0.contains("`Tests/") } > 20)
  }

  @Test("are all reached from the README")
  func reached() throws {
    var reached: Set = ["README.md"], waiting = ["README.md"]
    while let path = waiting.popLast(), let document = Self.sources[path] {
      for target in Documents.linkedPaths(in: document) {
        let pages = Self.documents.map(\.path).filter { $0 == target || $0.hasPrefix(target + "/") }
        for page in pages where reached.insert(page).inserted { waiting.append(page) }
      }
    }
    let left = Set(Self.documents.map(\.path).filter { $0.hasPrefix("Shared/Documentation/") }).subtracting(reached)
    #expect(left.isEmpty, "no link leads to \(left.sorted())")
  }

  // MARK: The checks find what they are for

  @Test("a broken link is found")
  func brokenLinks() {
    let files = [
      SourceFile(
        "README.md",
        "[a](Shared/A.md) [b](Shared/A.md#one-two) ![c](gone.png)\n[d](#top)\n# Top\n`[x](y)`\n```\n[x](y)\n```\n"),
      SourceFile(
        "Shared/A.md", "# One `two`\n[e](../README.md#top-1) [f](../../x) [g](https://example.org/x) [h](B%20C.md)\n"),
    ]
    let there: Set = ["README.md", "Shared/A.md", "Shared/B C.md"]
    #expect(
      Documents.linkFindings(in: files) { there.contains($0) }.map(\.description) == [
        "README.md:1: gone.png: there is no such file",
        "Shared/A.md:2: ../README.md#top-1: there is no such heading",
        "Shared/A.md:2: ../../x: there is no such file",
      ])
  }

  @Test("headings get the anchors that links use")
  func anchors() {
    let file = SourceFile("A.md", "# Hello, World!\n## A_b `c.swift` (d)\n## Same\n### Same\n#not\n```\n# no\n```\n")
    #expect(Documents.anchors(of: file).isSuperset(of: ["hello-world", "a_b-cswift-d", "same", "same-1"]))
    #expect(!Documents.anchors(of: file).contains("no"))
  }

  @Test("a name that is not there is found")
  func brokenNames() {
    let source = SourceFile(
      "Tests/ATests/A.swift",
      "@Test func works() {}\nfinal class Thing {}\nenum E { case one, two(Int) }\nlet value = 1\ninit(x: Int)\n")
    let page = SourceFile(
      "Shared/P.md",
      """
      | `Tests/ATests/A.swift` `works`, `Thing`, `E.two(_:)` | `Tests/ATests/A.swift` `value`, `init(x:)` | `words` |
      `Tests/ATests/A.swift` `fails`, `works`; `Shared/Gone.swift` `Thing`
      The `Thing` of `Tests/ATests/A.swift` and `Other` is `Services/` or `Shared/*.swift`, `./Tests/run.sh`
      """)
    let there: Set = ["Tests/ATests/A.swift", "Services", "Tests/run.sh"]
    let findings = Documents.nameFindings(in: [page], sources: [source.path: source]) { there.contains($0) }
    #expect(
      findings.map(\.description) == [
        "Shared/P.md:2: Tests/ATests/A.swift does not declare fails", "Shared/P.md:2: there is no Shared/Gone.swift",
      ])
  }

  @Test("a promise without a test is found")
  func brokenPromises() {
    let page = SourceFile(
      "P.md",
      """
      | Fault | What happens | Shown by |
      |---|---|---|
      | a | b | `Tests/A.swift` `one`; `Tests/B.py` `two` |
      | a | b | `Tests/A.swift` `one`; `Tests/B.py` |
      | a | b | to come |
      """)
    #expect(Documents.promiseFindings(in: page).map(\.line) == [4, 5])
  }
}
