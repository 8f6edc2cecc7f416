import Foundation

/// A word that this project does not use, and the field's own term for it. `GLOSSARY.md` explains the terms.
struct BannedWord: Sendable {
  let name: String
  let instead: String
  private let expression: NSRegularExpression

  /// - Parameters:
  ///   - name: the word, or words with spaces between them. It is found in any case, as a part of a name
  ///     (`pictureCount`), and where its words are joined by hyphens or line breaks, or written together (`laidOut`).
  ///   - forms: other forms of it, such as the plural.
  ///   - instead: what to write.
  init(_ name: String, forms: [String] = [], instead: String) {
    self.name = name
    self.instead = instead
    let alternatives = ([name] + forms).map { form in
      form.split(separator: " ").map { word in
        "[\(word.first!.lowercased())\(word.first!.uppercased())]\(word.dropFirst())"
      }.joined(separator: "(?:[-\\s]+(?:(?://+|#|\\*)[ \\t]*)?|(?=[A-Z]))")
    }
    // A name's part begins after what is no letter, or with a capital after a small letter.
    let start = "(?:(?<![A-Za-z])|(?<=[a-z0-9])(?=[A-Z]))"
    let capitals = ([name] + forms).filter { !$0.contains(" ") }.map { "(?<![A-Za-z_])\($0.uppercased())(?![A-Za-z])" }
    let pattern = (["\(start)(?:\(alternatives.joined(separator: "|")))(?![a-z])"] + capitals).joined(separator: "|")
    expression = .known(pattern)
  }

  /// The lines of `file` that have the word, once for each time, from 1.
  func lines(in file: SourceFile) -> [Int] {
    let text = file.text
    var lines: [Int] = [], line = 1, last = text.utf16.startIndex
    for match in expression.matches(in: text, range: NSRange(text.startIndex..., in: text)) {
      let start = text.utf16.index(text.utf16.startIndex, offsetBy: match.range.location)
      line += text.utf16[last..<start].count { $0 == 10 }
      last = start
      lines.append(line)
    }
    return lines
  }
}

/// The project's words are the field's: no dialect of its own.
enum BannedWords {
  static let table = [
    BannedWord("picture", forms: ["pictures"], instead: "image"),
    BannedWord("laid out", instead: "packed"),
    BannedWord("lay out", forms: ["lays out", "lay them out", "lays them out"], instead: "pack"),
    BannedWord("room", forms: ["rooms"], instead: "module or target; space, when a disk or memory is meant"),
    BannedWord("house", forms: ["houses"], instead: "project, package or module"),
    BannedWord("told", instead: "notified, stated, or what the sender does: sends, answers"),
    BannedWord("nobody", instead: "no client, no worker, no caller"),
    BannedWord("whoever", instead: "the client, the worker, the caller that …"),
    BannedWord("anybody", forms: ["anyone"], instead: "any client, any caller"),
    BannedWord("everybody", forms: ["everyone"], instead: "every client, all workers"),
    BannedWord("hand in", forms: ["hands in", "handed in", "handing in"], instead: "submit"),
    BannedWord("go on", forms: ["goes on", "went on", "going on"], instead: "resume, continue"),
    BannedWord("greatest resident", instead: "peak RSS"),
  ]

  /// Comments that say nothing.
  static let fillers = [
    "Puts the parts together.", "See the type.", "See above.", "Self-explanatory.", "As the name says.",
  ]

  /// A file that may hold certain words.
  struct Allowance: Sendable {
    let path: String
    /// Names of words in the table; nil: any.
    let words: Set<String>?
    let reason: String

    init(_ path: String, _ words: Set<String>? = nil, because reason: String) {
      self.path = path
      self.words = words
      self.reason = reason
    }
  }

  /// Words that have to be where they are.
  static let allowances = [
    Allowance("Services/QwenImageCLI/SynthCommand.swift", ["laid out"], because: "a flag of 0.1"),
    Allowance("Services/Gateway/Pipelines/StoredRequest.swift", ["picture"], because: "a key that 0.1 has stored"),
    Allowance("Shared/Documentation/GLOSSARY.md", ["picture"], because: "names the words of 0.1"),
    Allowance(
      "Shared/Journal/SQLite/SQLiteJournalStore+Changes.swift", ["picture"], because: "tables and columns of journals"),
    Allowance(
      "Shared/Journal/SQLite/SQLiteJournalStore+Reading.swift", ["picture"], because: "tables and columns of journals"),
    Allowance(
      "Shared/Journal/SQLite/SQLiteJournalStore+Space.swift", ["picture"], because: "tables and columns of journals"),
    Allowance("Shared/Journal/SQLite/Schema.swift", ["picture"], because: "tables and columns of journals"),
    Allowance(
      "Shared/Journal/SQLite/SQLiteJournalStore+Archive.swift", ["picture"], because: "tables and columns of journals"),
    Allowance("Tests/JournalTests/Engine.swift", ["picture"], because: "tables and columns of journals"),
    Allowance("Shared/QwenImage/TextEncoder/ChatTemplate.swift", ["picture"], because: "the model's template"),
    Allowance("Tests/Fuzzing/make_corpus.py", ["picture"], because: "a key that 0.1 has stored"),
    Allowance("Tests/Golden/make_reference.py", ["picture"], because: "texts of the reference's own prompts"),
    Allowance("Tests/JournalTests/JournalStoreTests.swift", ["picture"], because: "tables and columns of journals"),
    Allowance("Tests/NanoModel/tokenizer.py", ["picture"], because: "a word of the model's vocabulary"),
    Allowance("Tests/QwenImageTests/TokenizerTests.swift", ["picture"], because: "the model's template"),
    Allowance("Tests/TidyTests/BannedWords.swift", because: "the table itself"),
    Allowance("Tests/TidyTests/WordsTests.swift", because: "plants violations"),
  ]

  /// Banned words in `files`, but for those that are allowed there.
  static func findings(in files: [SourceFile], allowances: [Allowance] = allowances) -> [Finding] {
    files.flatMap { file in
      let allowance = allowances.first { $0.path == file.path }
      let banned = table.filter { word in allowance.map { $0.words.map { !$0.contains(word.name) } ?? false } ?? true }
      return banned.flatMap { word in
        word.lines(in: file).map { Finding(file, line: $0, "“\(word.name)”: write \(word.instead)") }
      } + nameFindings(file, banned) + (allowance.map { $0.words != nil } ?? true ? fillerFindings(file) : [])
    }
  }

  /// File names are words, too.
  private static func nameFindings(_ file: SourceFile, _ banned: [BannedWord]) -> [Finding] {
    let name = SourceFile("", file.path)
    return banned.filter { !$0.lines(in: name).isEmpty }.map {
      Finding(file, "“\($0.name)” in a name: write \($0.instead)")
    }
  }

  private static func fillerFindings(_ file: SourceFile) -> [Finding] {
    file.lines.enumerated().flatMap { number, line in
      fillers.filter { line.contains("/// \($0)") }.map { Finding(file, line: number + 1, "“\($0)” says nothing") }
    }
  }
}
