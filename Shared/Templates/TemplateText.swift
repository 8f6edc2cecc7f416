/// A text with places for the values of slots: `{word}`; `{{` and `}}` are braces.
public struct TemplateText: Hashable, Sendable {
  enum Part: Hashable, Sendable {
    case text(String)
    case slot(String)
  }

  let parts: [Part]

  /// The slots that it names, in their order, each once.
  public var slots: [String] {
    var known: Set<String> = []
    return parts.compactMap { if case .slot(let name) = $0, known.insert(name).inserted { name } else { nil } }
  }

  /// Reads `text`.
  ///
  /// - Throws: what is wrong with it: a brace that is left open, or a name that is none.
  init(_ text: String) throws(TemplateTextError) {
    var parts: [Part] = [], literal = "", rest = text[...]
    func flush() {
      if !literal.isEmpty { parts.append(.text(literal)) }
      literal = ""
    }
    while let character = rest.popFirst() {
      switch character {
      case "{" where rest.first == "{", "}" where rest.first == "}":
        literal.append(character)
        rest.removeFirst()
      case "{":
        guard let end = rest.firstIndex(of: "}") else {
          throw TemplateTextError(reason: "{\(rest.prefix(20)) is not closed; a brace itself is written {{")
        }
        let name = String(rest[..<end])
        guard TemplateName.isValid(name) else {
          throw TemplateTextError(reason: "{\(name.prefix(40))} names no slot; a brace itself is written {{")
        }
        flush()
        parts.append(.slot(name))
        rest = rest[rest.index(after: end)...]
      case "}": throw TemplateTextError(reason: "a } has no {; a brace itself is written }}")
      default: literal.append(character)
      }
    }
    flush()
    self.parts = parts
  }

  /// The text with `value` of every slot.
  func filled(_ value: (String) -> String) -> String {
    parts.map { part in
      switch part {
      case .text(let text): text
      case .slot(let name): value(name)
      }
    }.joined()
  }
}

/// Why a text cannot be filled.
struct TemplateTextError: Error, Hashable {
  let reason: String
}

/// Names of templates, slots, sizes and languages: they occur in columns, tags and names of files.
enum TemplateName {
  static let rule =
    "1 to \(TemplateLimits.nameLength) letters a–z and A–Z, digits, - and _, beginning with a letter or digit"

  static func isValid(_ name: String) -> Bool {
    (1...TemplateLimits.nameLength).contains(name.utf8.count) && name.utf8.first != 0x2D && name.utf8.first != 0x5F
      && name.utf8.allSatisfy { byte in
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x5F: true
        default: false
        }
      }
  }
}

extension StringProtocol {
  /// As messages have it.
  var quoted: String { "\"\(self)\"" }
}
