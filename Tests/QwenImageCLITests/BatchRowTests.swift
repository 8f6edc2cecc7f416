import QwenImageCLI
import Testing

/// Files of `qwen-image batch`.
struct BatchRowTests {
  @Test func bothKindsOfFilesGiveTheSameRows() throws {
    let table = try BatchRow.rows(
      of: "image,output,prompt,seed\na.png;b.png,x/y.png,p,18446744073709551615\n,,q,\n", isTable: true, name: "f")
    let objects = try BatchRow.rows(
      of: """
        {"prompt": "p", "seed": 18446744073709551615, "image": ["a.png", "b.png"], "output": "x/y.png"}
        {"prompt": "q", "seed": null}
        """, isTable: false, name: "f")
    #expect(table.map(\.fields.description) == objects.map(\.fields.description))
    #expect(table.map(\.files.description) == objects.map(\.files.description))
    #expect(table.map(\.output) == ["x/y.png", nil] && objects.map(\.output) == ["x/y.png", nil])
    #expect(table.map(\.number) == [1, 2])
  }

  @Test(arguments: [
    "{\"prompt\": \"p\", \"output\": \"../x.png\"}", "{\"output\": \"/x.png\"}", "[1]", "{", "",
  ])
  func brokenObjectsAreRefused(text: String) {
    #expect(throws: (any Error).self) { try BatchRow.rows(of: text, isTable: false, name: "f") }
  }
}

/// Completions for shells are the argument parser's.
@Suite(.timeLimit(.minutes(1))) struct CompletionTests {
  @Test(arguments: ["bash", "zsh", "fish"]) func shellsCompleteCommands(shell: String) async throws {
    let result = try await CommandLineTool.run(["--generate-completion-script", shell])
    #expect(result.isSuccess, "\(result.errors)")
    for word in ["generate", "batch", "workers", "--prompt"] { #expect(result.text.contains(word.drop { $0 == "-" })) }
  }
}
