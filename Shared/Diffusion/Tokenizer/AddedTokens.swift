/// Literals such as `<|im_start|>` that are tokens of their own wherever they occur.
struct AddedTokens: Sendable {
  /// A literal as the tokenizer's files describe it.
  struct Literal: Sendable, Equatable {
    let content: String
    let id: UInt32
    /// Whether it is searched for in the normalized text instead of the raw one.
    let isNormalized: Bool
  }

  /// A part of a text.
  enum Piece {
    case text(String)
    case token(UInt32)
  }

  /// The literals that may start with each byte, longest first.
  private var candidates = [[(bytes: [UInt8], id: UInt32)]](repeating: [], count: 256)

  init(_ literals: [Literal]) {
    for literal in literals {
      let bytes = Array(literal.content.utf8)
      guard let first = bytes.first else { continue }
      candidates[Int(first)].append((bytes, literal.id))
    }
    for first in candidates.indices { candidates[first].sort { $0.bytes.count > $1.bytes.count } }
  }

  /// Cuts `text` at its literals; at each position the longest one wins.
  func split(_ text: String) -> [Piece] {
    let bytes = Array(text.utf8)
    var pieces: [Piece] = []
    var start = 0
    var position = 0
    while position < bytes.count {
      guard let match = candidates[Int(bytes[position])].first(where: { bytes[position...].starts(with: $0.bytes) })
      else {
        position += 1
        continue
      }
      if start < position { pieces.append(.text(String(decoding: bytes[start..<position], as: UTF8.self))) }
      pieces.append(.token(match.id))
      position += match.bytes.count
      start = position
    }
    if start < bytes.count { pieces.append(.text(String(decoding: bytes[start...], as: UTF8.self))) }
    return pieces
  }
}
