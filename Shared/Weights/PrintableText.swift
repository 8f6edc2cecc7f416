/// `text` as a message may show it: names and values in files come from outside, and may be long or hold characters
/// that change what a terminal or a log shows. Control characters are written as escapes.
///
/// - Parameter max: characters of `text` to keep; `…` stands for the others.
package func printable(_ text: String, max: Int = .max) -> String {
  var result = ""
  for character in text.prefix(max) {
    for scalar in character.unicodeScalars {
      switch scalar.properties.generalCategory {
      case .control, .format, .surrogate, .lineSeparator, .paragraphSeparator: result += scalar.escaped(asASCII: true)
      default: result.unicodeScalars.append(scalar)
      }
    }
  }
  return text.count > max ? result + "…" : result
}
