/// A text in which words are looked for, without regard to case.
package struct WordText: CustomStringConvertible {
  private let scalars: [Unicode.Scalar]
  /// As it was.
  package let description: String

  package init(_ text: String) {
    scalars = Array(text.lowercased().unicodeScalars)
    description = text
  }

  /// Whether a word, or several in their order, occurs in the text. In scripts that put spaces between words only whole
  /// words count.
  package func holds(_ word: WordText) -> Bool {
    let word = word.scalars
    guard let first = word.first, let last = word.last, word.count <= scalars.count else { return false }
    for start in 0...(scalars.count - word.count) where scalars[start] == first {
      let end = start + word.count
      guard scalars[start..<end].elementsEqual(word) else { continue }
      let isCutBefore = start > 0 && first.isOfSpacedWord && scalars[start - 1].isOfSpacedWord
      let isCutAfter = end < scalars.count && last.isOfSpacedWord && scalars[end].isOfSpacedWord
      if !isCutBefore, !isCutAfter { return true }
    }
    return false
  }
}

extension Unicode.Scalar {
  /// Whether it is a letter or digit of a script that puts spaces between words.
  fileprivate var isOfSpacedWord: Bool {
    guard properties.isAlphabetic || properties.numericType != nil else { return false }
    // Chinese and Japanese.
    return !properties.isIdeographic && !(0x3040...0x30FF).contains(value)
  }
}
