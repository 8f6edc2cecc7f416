import Foundation

/// Unicode as the reference tokenizer sees it (Hugging Face `tokenizers` 0.23): its normalizer carries the data of Unicode 9.0, its
/// regular expressions those of 16.0. Newer characters are unassigned to it: they neither compose nor count as letters.
///
/// Both versions were found by comparing all code points (Tests/Golden/make_tokenizer_corpus.py). Swift's own tables are newer and
/// grow; a character's age never changes, so comparing ages pins the behaviour to the reference's.
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

  /// The canonical composition (NFC) of `text`.
  package static func normalized(_ text: String) -> String {
    // Below U+0300 there is nothing to compose.
    guard text.unicodeScalars.contains(where: { $0.value >= 0x300 }) else { return text }
    var result = ""
    var known = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
      if isAssigned(scalar, major: 9) {
        known.append(scalar)
      } else {
        result += composed(known)
        known = String.UnicodeScalarView()
        result.unicodeScalars.append(scalar)
      }
    }
    return result + composed(known)
  }

  /// Foundation's composition (Swift 6.3) leaves a Hangul LV syllable and a following T jamo apart, so everything is decomposed first.
  private static func composed(_ scalars: String.UnicodeScalarView) -> String {
    String(scalars).decomposedStringWithCanonicalMapping.precomposedStringWithCanonicalMapping
  }
}
