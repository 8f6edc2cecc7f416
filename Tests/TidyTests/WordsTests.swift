import Testing

@Suite("Words") struct WordsTests {
  @Test("are the field's")
  func words() {
    expectNone(BannedWords.findings(in: SourceTree.here.files))
  }

  @Test(
    "that are banned are found in any form",
    arguments: [
      ("/// The picture's size.", 1), ("var pictureCount: Int", 1), ("struct PictureRows {}", 1),
      ("let lastPicture = PICTURES[0]", 2),
      ("weights that are laid out", 1), ("laid-out and laidOut weights", 2), ("weights laid\n/// out", 1),
      ("# they go\n# on", 1),
      ("weights laid\nout", 1),
      ("no room for it; JournalStore+Room", 2), ("the clients are told", 1), ("Nobody waits", 1), ("handed in", 1),
      ("the job goes on", 1), ("greatest resident memory", 1), ("/// See the type.", 1),
    ])
  func planted(_ text: String, _ count: Int) {
    #expect(BannedWords.findings(in: [SourceFile("Shared/A/B.swift", text)]).count == count)
  }

  @Test(
    "that only look alike are not",
    arguments: [
      "a mushroom, a broom", "depict, picturesque", "household", "layout", "layoutVersion", "untold", "goings on",
      "/// See the type's own page.", "headroom",
    ])
  func similar(_ text: String) {
    #expect(BannedWords.findings(in: [SourceFile("Shared/A/B.swift", text)]).isEmpty)
  }

  @Test("are found where they are, and in names of files")
  func places() {
    let files = [SourceFile("Shared/A/PictureRows.swift", "// é\n\n// a room\n"), SourceFile("README.md", "told")]
    #expect(
      BannedWords.findings(in: files).map { "\($0.path):\($0.line)" } == [
        "Shared/A/PictureRows.swift:3", "Shared/A/PictureRows.swift:0", "README.md:1",
      ])
  }

  @Test("allowances are for words that are there")
  func allowances() throws {
    for allowance in BannedWords.allowances {
      let file = try #require(SourceTree.here[allowance.path], "there is no \(allowance.path)")
      let findings = BannedWords.findings(in: [file], allowances: [])
      for word in allowance.words ?? [] {
        #expect(findings.contains { $0.message.hasPrefix("“\(word)”") }, "\(file.path) holds no “\(word)” any more")
      }
    }
    #expect(Set(BannedWords.allowances.map(\.path)).count == BannedWords.allowances.count)
  }

  @Test("an allowance is for its words only")
  func oneWord() {
    let file = SourceFile("Shared/Journal/SQLite/Schema.swift", "SELECT picture\n/// no room\n/// See the type.\n")
    #expect(BannedWords.findings(in: [file]).map(\.line) == [2, 3])
  }
}
