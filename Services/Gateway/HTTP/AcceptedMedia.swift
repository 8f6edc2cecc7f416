/// What a client accepts: the field `Accept` by RFC 9110, section 12.5.1.
package struct AcceptedMedia: Hashable, Sendable {
  private struct Range: Hashable {
    var type: Substring
    var subtype: Substring
    var quality: Double

    /// How much is known of a type that it takes: 2: all, 1: the first half, 0: nothing.
    var specificity: Int { subtype != "*" ? 2 : type != "*" ? 1 : 0 }
  }

  private var ranges: [Range]

  /// - Parameter field: all fields of that name, joined by commas. Without one, or when nothing in it makes sense,
  ///   everything is accepted.
  package init(_ field: String?) {
    ranges = Self.split(field?.lowercased() ?? "", at: ",").compactMap { Self.range($0) }
  }

  /// How welcome a type is: from 0, not at all, to 1. The range that says most about it decides.
  ///
  /// - Parameter type: such as "image/png".
  package func quality(of type: String) -> Double {
    guard !ranges.isEmpty else { return 1 }
    let parts = type.split(separator: "/")
    let fitting = ranges.filter {
      ($0.type == "*" || $0.type == parts[0]) && ($0.subtype == "*" || $0.subtype == parts[1])
    }
    guard let specificity = fitting.map(\.specificity).max() else { return 0 }
    return fitting.filter { $0.specificity == specificity }.map(\.quality).max() ?? 0
  }

  private static func range(_ text: Substring) -> Range? {
    let parts = split(text, at: ";").map { trim($0) }
    let names = parts.first?.split(separator: "/", omittingEmptySubsequences: false) ?? []
    guard names.count == 2, names.allSatisfy({ !$0.isEmpty && !$0.contains(" ") }), names[0] != "*" || names[1] == "*"
    else { return nil }
    var quality = 1.0
    for part in parts.dropFirst() where part.hasPrefix("q=") {
      guard let value = Double(part.dropFirst(2)), (0...1).contains(value) else { return nil }
      quality = value
      break
    }
    return Range(type: names[0], subtype: names[1], quality: quality)
  }

  /// Splits where `separator` does not stand in quotation marks.
  private static func split(_ text: some StringProtocol, at separator: Character) -> [Substring] {
    var (isQuoted, isEscaped) = (false, false)
    return Substring(text).split { character in
      if isEscaped {
        isEscaped = false
      } else if isQuoted, character == "\\" {
        isEscaped = true
      } else if character == "\"" {
        isQuoted.toggle()
      }
      return character == separator && !isQuoted
    }
  }

  private static func trim(_ text: Substring) -> Substring {
    let start = text.drop { $0 == " " || $0 == "\t" }
    return start.lastIndex { $0 != " " && $0 != "\t" }.map { start[...$0] } ?? ""
  }
}
