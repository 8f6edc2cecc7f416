import Foundation

/// The byte-level BPE tokenizer of Qwen2 (transformers `Qwen2Tokenizer`, Hugging Face `tokenizers`).
///
/// Text → cut at added tokens → NFC → split into words (`WordSplitter`) → UTF-8 bytes → byte pairs merged by rank.
/// Nothing is added at the beginning or the end. Ids equal the reference's, also for characters that are new,
/// unassigned or out of order.
public struct Tokenizer: Sendable {
  private let byteIDs: [UInt32]
  private let merges: BytePairMerges
  private let rawTokens: AddedTokens
  private let normalizedTokens: AddedTokens
  private let idsOfLiterals: [[UInt8]: Int]
  /// The bytes of each token; empty for ids that have none.
  private let bytesOfTokens: [[UInt8]]

  /// Loads the tokenizer in `directory`: `tokenizer.json`, or `vocab.json`, `merges.txt` and `added_tokens.json` where
  /// there is none; and `tokenizer_config.json`.
  public init(directory: URL) throws(TokenizerError) {
    let files = try TokenizerFiles(directory: directory)
    merges = files.merges
    // Their presence was checked when the files were read.
    byteIDs = (UInt8.min...UInt8.max).map { files.vocabulary[[$0]]! }
    rawTokens = AddedTokens(files.literals.filter { !$0.isNormalized })
    normalizedTokens = AddedTokens(
      files.literals.filter(\.isNormalized).map {
        AddedTokens.Literal(content: ReferenceUnicode.normalized($0.content), id: $0.id, isNormalized: true)
      })

    let lastID = max(files.vocabulary.values.max() ?? 0, files.literals.map(\.id).max() ?? 0)
    var bytesOfTokens = [[UInt8]](repeating: [], count: Int(lastID) + 1)
    for (bytes, id) in files.vocabulary { bytesOfTokens[Int(id)] = bytes }
    var idsOfLiterals: [[UInt8]: Int] = [:]
    for literal in files.literals {
      let bytes = Array(literal.content.utf8)
      guard bytesOfTokens[Int(literal.id)].isEmpty || bytesOfTokens[Int(literal.id)] == bytes else {
        throw .malformed(
          file: directory.path, reason: "added token \"\(literal.content)\" takes id \(literal.id) from the vocabulary")
      }
      bytesOfTokens[Int(literal.id)] = bytes
      idsOfLiterals[bytes] = Int(literal.id)
    }
    self.bytesOfTokens = bytesOfTokens
    self.idsOfLiterals = idsOfLiterals
  }

  /// One more than the largest id.
  public var idCount: Int { bytesOfTokens.count }

  /// The ids of `text`.
  public func encode(_ text: String) -> [Int] {
    var ids: [Int] = []
    for piece in rawTokens.split(text) {
      switch piece {
      case .token(let id): ids.append(Int(id))
      case .text(let raw):
        for piece in normalizedTokens.split(ReferenceUnicode.normalized(raw)) {
          switch piece {
          case .token(let id): ids.append(Int(id))
          case .text(let normalized): appendWords(of: normalized, to: &ids)
          }
        }
      }
    }
    return ids
  }

  private func appendWords(of text: String, to ids: inout [Int]) {
    WordSplitter.forEachWord(of: text) { bytes in
      var word = bytes.map { byteIDs[Int($0)] }
      merges.apply(to: &word)
      ids.append(contentsOf: word.lazy.map(Int.init))
    }
  }

  /// The id of an added token such as `<|im_start|>`.
  public func id(of token: String) -> Int? { idsOfLiterals[Array(token.utf8)] }

  /// The text of `ids`. Bytes that are not UTF-8 become U+FFFD; ids without a token contribute nothing.
  public func decode(_ ids: [Int]) -> String {
    var bytes: [UInt8] = []
    for id in ids where bytesOfTokens.indices.contains(id) { bytes += bytesOfTokens[id] }
    return String(decoding: bytes, as: UTF8.self)
  }
}
