/// Source text without what is inside of comments and literals: spaces are in their place, line breaks stay, so that
/// brackets can be counted and every line keeps its number.
struct CodeText {
  private let source: [UInt8]
  private let isC: Bool
  private var code: [UInt8] = []
  private var index = 0

  /// The code of a Swift or C file.
  static func code(of file: SourceFile) -> String {
    cache.value(for: file.text) { code(file.text, isC: ["c", "h", "inc"].contains(file.kind)) }
  }

  private static let cache = Cache<String>()

  static func code(_ text: String, isC: Bool = false) -> String {
    var scanner = CodeText(source: Array(text.utf8), isC: isC)
    scanner.scan()
    return String(decoding: scanner.code, as: UTF8.self)
  }

  private init(source: [UInt8], isC: Bool) {
    self.source = source
    self.isC = isC
    code.reserveCapacity(source.count)
  }

  private static let newline = UInt8(ascii: "\n")
  private static let quote = UInt8(ascii: "\"")
  private static let backslash = UInt8(ascii: "\\")
  private static let slash = UInt8(ascii: "/")
  private static let star = UInt8(ascii: "*")
  private static let hash = UInt8(ascii: "#")
  private static let space = UInt8(ascii: " ")

  private func has(_ text: StaticString, at start: Int) -> Bool {
    text.withUTF8Buffer { start + $0.count <= source.count && source[start..<start + $0.count].elementsEqual($0) }
  }

  /// Takes `count` bytes as code.
  private mutating func keep(_ count: Int = 1) {
    code += source[index..<min(index + count, source.count)]
    index += count
  }

  /// Takes `count` bytes as something else.
  private mutating func blank(_ count: Int = 1) {
    for byte in source[index..<min(index + count, source.count)] {
      code.append(byte == Self.newline ? byte : Self.space)
    }
    index += count
  }

  private mutating func scan() {
    while index < source.count { scanOne() }
  }

  /// One byte of code, or a whole comment or literal.
  private mutating func scanOne() {
    if has("//", at: index) {
      while index < source.count, source[index] != Self.newline { blank() }
    } else if has("/*", at: index) {
      skipBlockComment()
    } else if source[index] == Self.quote {
      skipString(hashes: 0)
    } else if !isC, source[index] == Self.hash, let hashes = rawStringHashes() {
      skipString(hashes: hashes)
    } else if isC, source[index] == UInt8(ascii: "'") {
      skipCharacter()
    } else if !isC, source[index] == Self.slash, startsRegularExpression() {
      skipRegularExpression()
    } else {
      keep()
    }
  }

  private mutating func skipBlockComment() {
    var depth = 0
    repeat {
      if has("/*", at: index), depth == 0 || !isC {
        depth += 1
        blank(2)
      } else if has("*/", at: index) {
        depth -= 1
        blank(2)
      } else {
        blank()
      }
    } while depth > 0 && index < source.count
  }

  /// How many # begin a raw string here; nil: it is none.
  private func rawStringHashes() -> Int? {
    var end = index
    while end < source.count, source[end] == Self.hash { end += 1 }
    return end < source.count && source[end] == Self.quote ? end - index : nil
  }

  private func hasHashes(_ count: Int, at start: Int) -> Bool {
    start + count <= source.count && source[start..<start + count].allSatisfy { $0 == Self.hash }
  }

  private mutating func skipString(hashes: Int) {
    blank(hashes)
    let isLong = has("\"\"\"", at: index) && !isC
    let quotes = isLong ? 3 : 1
    blank(quotes)
    while index < source.count {
      if source[index] == Self.quote, !isLong || has("\"\"\"", at: index), hasHashes(hashes, at: index + quotes) {
        blank(quotes + hashes)
        return
      }
      if source[index] == Self.backslash, hasHashes(hashes, at: index + 1) {
        let next = index + 1 + hashes
        if !isC, next < source.count, source[next] == UInt8(ascii: "(") {
          blank(1 + hashes)
          skipInterpolation()
        } else {
          blank(2 + hashes)
        }
      } else if source[index] == Self.newline, !isLong {
        return
      } else {
        blank()
      }
    }
  }

  /// From ( to ), with whatever strings are in between.
  private mutating func skipInterpolation() {
    let start = index
    var depth = 0
    repeat {
      if source[index] == UInt8(ascii: "(") { depth += 1 }
      if source[index] == UInt8(ascii: ")") { depth -= 1 }
      scanOne()
    } while depth > 0 && index < source.count
    for position in start..<min(index, code.count) where code[position] != Self.newline { code[position] = Self.space }
  }

  private mutating func skipCharacter() {
    blank()
    while index < source.count, source[index] != UInt8(ascii: "'"), source[index] != Self.newline {
      blank(source[index] == Self.backslash ? 2 : 1)
    }
    blank()
  }

  /// Whether a slash is no division: it follows what no operand ends with, and its line has another one.
  private func startsRegularExpression() -> Bool {
    guard index + 1 < source.count, ![Self.space, Self.newline].contains(source[index + 1]) else { return false }
    let before = code.last { $0 != Self.space } ?? Self.newline
    let isAfterOperator = "=(,:[{\n&|?".utf8.contains(before) || code.suffix(7).elementsEqual("return ".utf8)
    guard isAfterOperator else { return false }
    var end = index + 1
    while end < source.count, source[end] != Self.newline {
      if source[end] == Self.slash { return true }
      end += source[end] == Self.backslash ? 2 : 1
    }
    return false
  }

  private mutating func skipRegularExpression() {
    blank()
    while index < source.count, source[index] != Self.slash { blank(source[index] == Self.backslash ? 2 : 1) }
    blank()
  }
}
