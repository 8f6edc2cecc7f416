import Testing

@Suite("Sizes") struct SizeTests {
  private static let code = SourceTree.here.files.filter(Sizes.isCode)

  @Test("lines are short enough to be read side by side")
  func lines() {
    expectNone(Sizes.longLines(in: SourceTree.here.files))
  }

  @Test("files and functions are short, or have a reason")
  func files() {
    let findings =
      Sizes.longFiles(in: Self.code, reasons: Allowances.longFiles)
      + Sizes.longFunctions(in: Self.code, reasons: Allowances.longFunctions)
      + Sizes.unneeded(Self.code, fileReasons: Allowances.longFiles, functionReasons: Allowances.longFunctions)
    expectNone(findings)
  }

  @Test("functions are found everywhere")
  func count() {
    let functions = Self.code.filter { $0.kind == "swift" && !$0.path.hasPrefix("Tests/") }.flatMap(Sizes.functions)
    let words = Self.code.filter { $0.kind == "swift" && !$0.path.hasPrefix("Tests/") }.flatMap { file in
      CodeText.code(of: file).split(whereSeparator: { " \n".contains($0) }).filter { $0 == "func" }
    }
    // Those without a body belong to protocols.
    #expect(
      functions.count > words.count * 9 / 10 && words.count > 1000,
      "\(functions.count) functions, \(words.count) times func")
  }

  @Test("a long line is found")
  func longLine() {
    let file = SourceFile(
      "Shared/A/B.swift", "\n" + String(repeating: "é", count: 121) + "\n" + String(repeating: "é", count: 120))
    #expect(Sizes.longLines(in: [file]).map(\.line) == [2])
    #expect(Sizes.longLines(in: [SourceFile("README.md", file.text)]).isEmpty)
  }

  @Test("a long file is found")
  func longFile() {
    let file = SourceFile("Shared/A/B.py", String(repeating: "\n", count: 500))
    #expect(Sizes.longFiles(in: [file], reasons: [:]).count == 1)
    #expect(Sizes.longFiles(in: [file], reasons: [file.path: "generated"]).isEmpty)
    #expect(
      Sizes.unneeded([file], fileReasons: ["Shared/A/C.py": "", file.path: ""], functionReasons: [:]).map(\.path) == [
        "Shared/A/C.py"
      ])
  }

  /// Long enough for any function around it to be too long.
  private static func filled(_ text: String, _ count: Int = 69) -> String {
    text.replacing("BODY", with: String(repeating: "  x()\n", count: count))
  }

  @Test(
    "a long function is found",
    arguments: [
      ("swift", "func f(a: Int = 3) {\nBODY}\n", "f"),
      ("swift", "struct S {\n  init?(\n    a: Int\n  )\n  async throws(E)\n  {\nBODY}\n}\n", "init"),
      ("swift", "func outer() {}\n\nfunc g<T>(_ x: (T) -> Void)\n  -> [Int: () -> Void] where T: P {\nBODY}", "g"),
      ("swift", "let a = \"func x() {\"\nfunc h() { // }\nBODY}", "h"),
      ("swift", "func == (a: S, b: S) -> Bool {\nBODY}", "=="),
      ("swift", "let r = /\"{(/\nlet s = a / b\nfunc k() {\nBODY}", "k"),
      ("swift", "let t = \"\\(a { \"}\" } ?? \"(\")\"\nfunc m() {\nBODY}", "m"),
      ("c", "static void f(int a,\n              int b) {\nBODY}\n", "f"),
      ("py", "def f(\n  a\n):\nBODY\n\nx = 1\n", "f"),
    ])
  func longFunction(_ kind: String, _ text: String, _ name: String) throws {
    let file = SourceFile("Shared/A/B.\(kind)", Self.filled(text))
    let finding = try #require(Sizes.longFunctions(in: [file], reasons: [:]).first)
    #expect(finding.message.hasPrefix("\(name) has 7"))
    #expect(Sizes.longFunctions(in: [file], reasons: ["\(file.path) \(name)": "a table"]).isEmpty)
  }

  @Test(
    "a function that is not long, or is none, is not",
    arguments: [
      "protocol P {\n  func f()\n  func g() -> Int\n  init(a: Int)\n}\nstruct S {\nBODY}",
      "let a = A.init(1)\nlet b = self.init(2)\nstruct S {\nBODY}", "/* func f() {\nBODY} */",
      "let s = \"\"\"\n  func f() {\nBODY}\n  \"\"\"",
    ])
  func shortFunction(_ text: String) {
    #expect(Sizes.longFunctions(in: [SourceFile("Shared/A/B.swift", Self.filled(text))], reasons: [:]).isEmpty)
    let shortest = SourceFile("Shared/A/B.swift", Self.filled("func f() {\nBODY}", 68))
    #expect(Sizes.longFunctions(in: [shortest], reasons: [:]).isEmpty)
  }
}
