import Foundation

/// What goes to standard output and standard error as text.
///
/// Prompts, names and messages come from gateways, other users and files. Sent to a terminal as they are, their control
/// characters could clear it, rename it, or make a line look like another one; so everything that is printed is
/// escaped.
enum Terminal {
  /// `text` on one line, with everything that a terminal would obey instead of showing it written as an escape: control
  /// characters (C0, DEL, C1), separators of lines and paragraphs, and the marks that reorder text of two directions.
  ///
  /// - Parameter keepingNewlines: for text of several lines that is this program's own.
  static func escaped(_ text: some StringProtocol, keepingNewlines: Bool = false) -> String {
    var result = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
      if !isActive(scalar) || keepingNewlines && scalar == "\n" {
        result.append(scalar)
      } else {
        result.append(contentsOf: escape(scalar).unicodeScalars)
      }
    }
    return String(result)
  }

  /// JSON text with the characters of ``escaped(_:keepingNewlines:)`` as JSON's own escapes, so that it stays the same
  /// JSON. Newlines between values are kept; inside strings JSON has none.
  static func escapedJSON(_ text: String) -> String {
    var result = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
      if !isActive(scalar) || scalar == "\n" {
        result.append(scalar)
      } else {
        result.append(contentsOf: "\\u\(hexadecimal(scalar, digits: 4))".unicodeScalars)
      }
    }
    return String(result)
  }

  /// Writes a line to standard output.
  static func print(_ line: some StringProtocol) throws(OutputError) {
    try writeAll(Array("\(escaped(line))\n".utf8), to: STDOUT_FILENO, name: "standard output")
  }

  /// Writes JSON and a newline to standard output.
  static func printJSON(_ text: String) throws(OutputError) {
    try writeAll(Array("\(escapedJSON(text))\n".utf8), to: STDOUT_FILENO, name: "standard output")
  }

  /// Writes a value as JSON, names in snake case, and a newline to standard output.
  ///
  /// - Parameter isPretty: on several lines.
  static func printJSON(_ value: some Encodable, isPretty: Bool = false) throws {
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.outputFormatting =
      isPretty
      ? [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted] : [.sortedKeys, .withoutEscapingSlashes]
    try printJSON(String(decoding: try encoder.encode(value), as: UTF8.self))
  }

  /// Writes a line to standard error, if that takes it.
  static func note(_ line: some StringProtocol, keepingNewlines: Bool = false) {
    try? writeAll(
      Array("\(escaped(line, keepingNewlines: keepingNewlines))\n".utf8), to: STDERR_FILENO, name: "standard error")
  }

  /// Says what a prompt has become; nil: it is as it was.
  static func note(prompt: String?) {
    if let prompt { note("prompt \(prompt)") }
  }

  private static func isActive(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0x061c, 0x200e, 0x200f, 0x2028...0x202e, 0x2066...0x2069: true
    default: scalar.properties.generalCategory == .control
    }
  }

  private static func escape(_ scalar: Unicode.Scalar) -> String {
    switch scalar {
    case "\n": "\\n"
    case "\r": "\\r"
    case "\t": "\\t"
    default: "\\u{\(hexadecimal(scalar, digits: 1))}"
    }
  }

  private static func hexadecimal(_ scalar: Unicode.Scalar, digits: Int) -> String {
    let text = String(scalar.value, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
  }
}

/// Why output could not be written.
struct OutputError: Error, Equatable, CustomStringConvertible {
  /// The option or file.
  let name: String
  /// What is wrong with it, and what to do.
  let reason: String

  var description: String { "\(name): \(reason)" }
}

/// Writes all of `bytes`, however many the other side takes at a time.
func writeAll(_ bytes: [UInt8], to descriptor: Int32, name: String) throws(OutputError) {
  var written = 0
  while written < bytes.count {
    let count = bytes[written...].withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
    if count > 0 {
      written += count
      continue
    }
    switch count == 0 ? EIO : errno {
    case EINTR: continue
    case EAGAIN:
      var poll = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
      _ = Foundation.poll(&poll, 1, -1)
    case let code: throw OutputError(name: name, reason: String(cString: strerror(code)))
    }
  }
}
