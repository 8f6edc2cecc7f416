import Foundation

/// Makes a prompt of what a chat model has answered. What comes from there is not trusted: it may be empty, without
/// end, about something else, or full of control characters.
package enum PromptAnswer {
  /// Quotation marks that surround texts which are to be seen in the image.
  private static let marks: [Character: Character] = [
    "\"": "\"", "“": "”", "„": "“", "«": "»", "「": "」", "『": "』", "＂": "＂",
  ]

  /// The prompt that an answer is.
  ///
  /// - Parameters:
  ///   - answer: as it came.
  ///   - original: the prompt that was to be rewritten.
  ///   - maxBytes: the limit in UTF-8 bytes.
  /// - Returns: one line without control characters.
  /// - Throws: when it is empty or too long, or lacks a text that the original has in quotation marks.
  package static func prompt(
    of answer: String, for original: String, maxBytes: Int
  ) throws(NoPrompt) -> String {
    let prompt = unwrapped(line(withoutThoughts(answer)), original)
    guard !prompt.isEmpty else { throw NoPrompt("its answer is empty") }
    guard prompt.utf8.count <= maxBytes else {
      throw NoPrompt("its answer has \(prompt.utf8.count) bytes, the limit is \(maxBytes)")
    }
    guard quotedTexts(in: line(original)).allSatisfy({ prompt.contains($0) }) else {
      throw NoPrompt("its answer lacks a text that the prompt has in quotation marks")
    }
    return prompt
  }

  /// The texts that stand in quotation marks. A mark behind a letter or a digit of ASCII is an inch or an end.
  package static func quotedTexts(in prompt: String) -> [String] {
    var texts: [String] = [], rest = prompt[...], previous: Character?
    while let first = rest.popFirst() {
      defer { previous = first }
      let isInside = previous.map { $0.isASCII && ($0.isLetter || $0.isNumber) } ?? false
      guard let end = marks[first], !(isInside && first == "\""), let close = rest.firstIndex(of: end) else { continue }
      let text = rest[..<close]
      if text.contains(where: { !$0.isWhitespace }) { texts.append(String(text)) }
      rest = rest[rest.index(after: close)...]
    }
    return texts
  }

  /// `prompt` without what stands in quotation marks.
  package static func withoutQuotedTexts(_ prompt: String) -> String {
    quotedTexts(in: prompt).reduce(prompt) { $0.replacingOccurrences(of: $1, with: "") }
  }

  /// What comes after the thoughts that some models write before their answer.
  private static func withoutThoughts(_ answer: String) -> String {
    let text = answer.drop { $0.isWhitespace }
    guard text.hasPrefix("<think>") else { return answer }
    // Thoughts without an end are no answer.
    return text.range(of: "</think>").map { String(text[$0.upperBound...]) } ?? ""
  }

  /// One line: control characters and ends of lines and paragraphs, any number of them, are a space.
  private static func line(_ text: String) -> String {
    let parts = text.unicodeScalars.split { scalar in
      [.control, .lineSeparator, .paragraphSeparator].contains(scalar.properties.generalCategory)
    }
    return parts.map { String($0).trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }.joined(separator: " ")
  }

  /// The prompt without quotation marks around all of it, which are no part of it unless the original has them.
  private static func unwrapped(_ prompt: String, _ original: String) -> String {
    guard prompt.count >= 2, let first = prompt.first, let end = marks[first], prompt.last == end,
      !original.contains(first)
    else { return prompt }
    let inner = prompt.dropFirst().dropLast()
    guard !inner.contains(first), !inner.contains(end) else { return prompt }
    return inner.trimmingCharacters(in: .whitespaces)
  }
}
