import Foundation

/// Unicode as the reference tokenizer sees it (Hugging Face `tokenizers` 0.23): its normalizer carries the data of
/// Unicode 9.0, its regular expressions those of 16.0. Newer characters are unassigned to it: they neither compose nor
/// count as letters.
///
/// Both versions were found by comparing all code points (Tests/Golden/make_tokenizer_corpus.py). Swift's own tables
/// are newer and grow; a character's age never changes, so comparing ages pins the behaviour to the reference's.
package enum ReferenceUnicode {
  /// What the splitting pattern distinguishes.
  package enum Class: UInt8, Sendable {
    /// `\p{L}`
    case letter
    /// `\p{N}`
    case number
    /// `\r` or `\n`
    case newline
    /// `\s` other than `\r` and `\n`
    case blank
    /// anything else
    case other
  }

  private static let asciiClasses: [Class] = (0..<128).map { classify(Unicode.Scalar($0)) }

  /// The class of a character.
  package static func `class`(_ scalar: Unicode.Scalar) -> Class {
    scalar.value < 128 ? asciiClasses[Int(scalar.value)] : classify(scalar)
  }

  private static func classify(_ scalar: Unicode.Scalar) -> Class {
    if scalar == "\r" || scalar == "\n" { return .newline }
    if scalar.properties.isWhitespace { return .blank }
    switch scalar.properties.generalCategory {
    case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter:
      return isAssigned(scalar, major: 16) ? .letter : .other
    case .decimalNumber, .letterNumber, .otherNumber: return isAssigned(scalar, major: 16) ? .number : .other
    default: return .other
    }
  }

  private static func isAssigned(_ scalar: Unicode.Scalar, major: Int) -> Bool {
    guard let age = scalar.properties.age else { return false }
    return (age.major, age.minor) <= (major, 0)
  }
}

// MARK: - Normalization

extension ReferenceUnicode {
  /// A character with its canonical combining class.
  private typealias Classified = (scalar: Unicode.Scalar, combiningClass: UInt8)

  /// The canonical composition (NFC, Unicode Standard Annex 15) of `text`.
  ///
  /// Foundation is asked about single characters only: on longer texts its composition (Swift 6.3) differs from the
  /// standard for some Hangul, Kannada and Tibetan.
  package static func normalized(_ text: String) -> String {
    // Below U+0300 there is nothing to compose.
    guard text.unicodeScalars.contains(where: { $0.value >= 0x300 }) else { return text }
    var characters: [Classified] = []
    for scalar in text.unicodeScalars { appendDecomposition(of: scalar, to: &characters) }
    sortMarks(&characters)
    var result = String.UnicodeScalarView()
    result.append(contentsOf: composed(characters))
    return String(result)
  }

  private static func appendDecomposition(of scalar: Unicode.Scalar, to characters: inout [Classified]) {
    // ASCII, ideographs and Hangul syllables (which stay as they are, being composed arithmetically) are most of what
    // comes.
    let isPlain =
      scalar.value < 0xc0 || (0x4e00..<0xa000).contains(scalar.value) || (0xac00..<0xd7a4).contains(scalar.value)
    guard !isPlain, isAssigned(scalar, major: 9) else { return characters.append((scalar, 0)) }
    for part in String(scalar).decomposedStringWithCanonicalMapping.unicodeScalars {
      characters.append((part, part.properties.canonicalCombiningClass.rawValue))
    }
  }

  /// Puts every run of marks into the order of their classes; marks of one class keep theirs.
  private static func sortMarks(_ characters: inout [Classified]) {
    var start = 0
    while let first = characters[start...].firstIndex(where: { $0.combiningClass != 0 }) {
      let end = characters[first...].firstIndex { $0.combiningClass == 0 } ?? characters.count
      let sorted = characters[first..<end].enumerated().sorted {
        ($0.element.combiningClass, $0.offset) < ($1.element.combiningClass, $1.offset)
      }
      characters.replaceSubrange(first..<end, with: sorted.map(\.element))
      start = end
    }
  }

  private static func composed(_ characters: [Classified]) -> [Unicode.Scalar] {
    var result: [Unicode.Scalar] = []
    var starter: Int?
    var lastClass: UInt8 = 0
    for (scalar, combiningClass) in characters {
      // Blocked by anything between of class 0 or of the same or a higher class.
      if let starter, starter == result.count - 1 || lastClass < combiningClass,
        let composite = composite(result[starter], scalar)
      {
        result[starter] = composite
        continue
      }
      if combiningClass == 0 { starter = result.count }
      lastClass = combiningClass
      result.append(scalar)
    }
    return result
  }

  /// The character that two make, if there is one.
  private static func composite(_ first: Unicode.Scalar, _ second: Unicode.Scalar) -> Unicode.Scalar? {
    switch (first.value, second.value) {
    // Hangul: a leading consonant and a vowel, or these two and a final consonant (The Unicode Standard, section 3.12).
    case (0x1100..<0x1113, 0x1161..<0x1176):
      return Unicode.Scalar(0xac00 + ((first.value - 0x1100) * 21 + (second.value - 0x1161)) * 28)
    case (0xac00..<0xd7a4, 0x11a8..<0x11c3) where (first.value - 0xac00) % 28 == 0:
      return Unicode.Scalar(first.value + second.value - 0x11a7)
    default: return composites[Pair(first: first, second: second)]
    }
  }

  private struct Pair: Hashable {
    let first: Unicode.Scalar
    let second: Unicode.Scalar
  }

  /// What every pair composes to: the inverse of the decompositions, of which those excluded from composition are left
  /// out.
  private static let composites: [Pair: Unicode.Scalar] = {
    var scalarsByDecomposition: [[Unicode.Scalar]: Unicode.Scalar] = [:]
    // All composites that Unicode 9.0 has lie in these ranges.
    for code in [0xc0..<0x3100, 0x11000..<0x11700].joined() {
      guard let scalar = Unicode.Scalar(UInt32(code)), isAssigned(scalar, major: 9) else { continue }
      let decomposition = Array(String(scalar).decomposedStringWithCanonicalMapping.unicodeScalars)
      let isExcluded = !String(scalar).precomposedStringWithCanonicalMapping.unicodeScalars.elementsEqual([scalar])
      if decomposition.count > 1, !isExcluded { scalarsByDecomposition[decomposition] = scalar }
    }
    var composites: [Pair: Unicode.Scalar] = [:]
    for (decomposition, scalar) in scalarsByDecomposition {
      let head = Array(decomposition.dropLast())
      guard let first = head.count == 1 ? head[0] : scalarsByDecomposition[head] else { continue }
      composites[Pair(first: first, second: decomposition[decomposition.count - 1])] = scalar
    }
    return composites
  }()
}
