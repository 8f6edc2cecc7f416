/// Names of the images' files: below one folder, the same for the same row, and safe whatever the rows say.
enum OutputName {
  /// What names have beside the slots.
  static let ownNames: Set = ["template", "row", "size", "language"]
  /// Names that the command line gives to its own files, by what they begin with.
  static let reserved: Set = ["contact-sheet", "index"]
  /// Characters of a slot's value in a name.
  private static let maxValueLength = 60
  /// Digits of the row's number: names stay when rows are added.
  private static let rowDigits = 4

  /// The name of a template without one of its own.
  static func standard(_ template: Template) -> String {
    "{row}" + (template.sizes.count > 1 ? "-{size}" : "") + (template.languages.isEmpty ? "" : "-{language}")
  }

  /// What is wrong with a template's pattern; nil: nothing.
  static func problem(of output: TemplateText, in template: Template) -> String? {
    for name in output.slots where !ownNames.contains(name) && template.slot(name)?.kind != .text {
      let names = (template.slots.filter { $0.kind == .text }.map(\.name) + ownNames.sorted()).joined(separator: ", ")
      return "there is no slot \(name.quoted) of kind text; names may have \(names)"
    }
    for case .text(let text) in output.parts {
      let isSafe = text.unicodeScalars.allSatisfy {
        $0.properties.isAlphabetic || $0.properties.numericType != nil || ["-", "_", "/", " "].contains($0)
      }
      guard isSafe else { return "\(text.quoted) has more than letters, digits, spaces, -, _ and /" }
    }
    let example = output.filled { _ in "x" }
    guard !example.isEmpty,
      example.split(separator: "/", omittingEmptySubsequences: false).allSatisfy({ part in
        !part.isEmpty && part.first != " " && part.last != " " && part.first != "-"
      })
    else { return "a folder or file has an empty name, or one that begins with - or a space, or ends with a space" }
    return nil
  }

  /// The name of a row's file without its extension.
  static func name(
    _ pattern: TemplateText, _ template: Template, row: Int, size: String?, language: String?,
    value: (String) -> String
  ) -> String {
    pattern.filled { name in
      switch name {
      case "template": template.name
      case "row": String(repeating: "0", count: max(0, rowDigits - "\(row)".count)) + "\(row)"
      case "size": size ?? "default"
      case "language": language ?? "default"
      default: safe(value(name))
      }
    }
  }

  /// Letters and digits of any script as they are, everything else as one dash.
  static func safe(_ value: String) -> String {
    var result = String.UnicodeScalarView(), isDash = false
    for scalar in value.unicodeScalars.prefix(1000) {
      if scalar.properties.isAlphabetic || scalar.properties.numericType != nil || scalar == "_" {
        if isDash, !result.isEmpty { result.append("-") }
        isDash = false
        result.append(scalar)
      } else {
        isDash = true
      }
      if result.count >= maxValueLength { break }
    }
    return result.isEmpty ? "empty" : String(result)
  }
}
