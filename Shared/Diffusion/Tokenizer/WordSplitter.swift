/// Splits normalized text into the words within which byte pairs are merged.
///
/// Written out for the pattern that Qwen2 tokenizers carry (``pattern``), whose alternatives are tried in order at
/// every position.
package struct WordSplitter {
  /// The pattern, as `tokenizer.json` spells it.
  static let pattern =
    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#

  private let scalars: [Unicode.Scalar]
  private let classes: [ReferenceUnicode.Class]

  private init(_ text: String) {
    scalars = Array(text.unicodeScalars)
    classes = scalars.map(ReferenceUnicode.class)
  }

  /// Calls `body` with the UTF-8 bytes of every word; together they are all of `text`.
  package static func forEachWord(of text: String, _ body: (ArraySlice<UInt8>) -> Void) {
    let splitter = WordSplitter(text)
    let bytes = Array(text.utf8)
    var position = 0
    var byteStart = 0
    while position < splitter.scalars.count {
      let end = splitter.endOfWord(at: position)
      let byteEnd = splitter.scalars[position..<end].reduce(byteStart) { $0 + UTF8.width($1) }
      body(bytes[byteStart..<byteEnd])
      position = end
      byteStart = byteEnd
    }
  }

  /// The first position at or after `start` whose class is not `accepted`.
  private func skip(from start: Int, while accepted: (ReferenceUnicode.Class) -> Bool) -> Int {
    var position = start
    while position < classes.count, accepted(classes[position]) { position += 1 }
    return position
  }

  private func endOfWord(at start: Int) -> Int {
    if let end = endOfContraction(at: start) { return end }
    let next = start + 1 < classes.count ? classes[start + 1] : nil
    switch classes[start] {
    case .letter: return skip(from: start) { $0 == .letter }
    case .number: return start + 1
    case .other:
      if next == .letter { return skip(from: start + 1) { $0 == .letter } }
      return endOfSymbols(from: start)
    case .blank:
      if next == .letter { return skip(from: start + 1) { $0 == .letter } }
      if next == .other, scalars[start] == " " { return endOfSymbols(from: start + 1) }
      return endOfWhitespace(at: start)
    case .newline: return endOfWhitespace(at: start)
    }
  }

  /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)`. The long s folds to s.
  private func endOfContraction(at start: Int) -> Int? {
    guard scalars[start] == "'", start + 1 < scalars.count else { return nil }
    switch scalars[start + 1] {
    case "s", "S", "\u{17f}", "t", "T", "m", "M", "d", "D": return start + 2
    default: break
    }
    guard start + 2 < scalars.count else { return nil }
    // Setting bit 5 makes ASCII letters lower case and maps nothing else onto them.
    switch (scalars[start + 1].value | 0x20, scalars[start + 2].value | 0x20) {
    case (0x72, 0x65), (0x76, 0x65), (0x6c, 0x6c): return start + 3  // re, ve, ll
    default: return nil
    }
  }

  /// `[^\s\p{L}\p{N}]+[\r\n]*`
  private func endOfSymbols(from start: Int) -> Int {
    let symbolsEnd = skip(from: start) { $0 == .other }
    return skip(from: symbolsEnd) { $0 == .newline }
  }

  /// `\s*[\r\n]+|\s+(?!\S)|\s+`: up to the last line break of the white space; else all of it at the end of the text,
  /// or all but the last character, which goes with the next word; else that one character.
  private func endOfWhitespace(at start: Int) -> Int {
    let end = skip(from: start) { $0 == .blank || $0 == .newline }
    if let lastNewline = classes[start..<end].lastIndex(of: .newline) { return lastNewline + 1 }
    return end == classes.count || end == start + 1 ? end : end - 1
  }
}
