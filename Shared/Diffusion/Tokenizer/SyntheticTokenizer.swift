import Foundation

/// A tokenizer for checkpoints with random weights: it has the family's special tokens, one token for every word of the
/// prompt template or part of one, so that the template has as many tokens as published, and bytes for everything else.
package struct SyntheticTokenizer {
  /// The added tokens of Qwen2.5-VL in the order of their ids.
  package static let qwen2AddedTokens = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>",
    "<|file_sep|>",
  ]
  /// The added tokens of Qwen3-VL in the order of their ids.
  package static let qwen3AddedTokens =
    qwen2AddedTokens + ["<tool_response>", "</tool_response>", "<think>", "</think>"]
  /// Id of the first added token of a tokenizer as large as the published one.
  package static let publishedFirstAddedID = 151_643

  private let tokens: [String]
  private let merges: [String]
  private let firstAddedID: Int
  private let addedTokens: [String]

  /// - Parameters:
  ///   - vocabularySize: rows of the embedding table; one that holds the published ids gets them.
  ///   - templateWords: the words of the prompt template or parts of them, each of which becomes one token.
  ///   - addedTokens: in the order of their ids.
  package init(vocabularySize: Int, templateWords: [[UInt8]], addedTokens: [String] = Self.qwen2AddedTokens) {
    var tokens = (UInt8.min...UInt8.max).map { ByteAlphabet.text(of: [$0]) }, known = Set(tokens), merges: [String] = []
    for word in templateWords {
      var left = ByteAlphabet.text(of: word.prefix(1))
      for byte in word.dropFirst() {
        let right = ByteAlphabet.text(of: [byte])
        if known.insert(left + right).inserted {
          merges.append("\(left) \(right)")
          tokens.append(left + right)
        }
        left += right
      }
    }
    // A pair of one word may come first within another one, and leave it in parts.
    var ranks = Dictionary(merges.enumerated().map { ($1, $0) }) { first, _ in first }
    for word in templateWords {
      while case let parts = Self.parts(of: word, ranks), parts.count > 1 {
        ranks["\(parts[0]) \(parts[1])"] = merges.count
        merges.append("\(parts[0]) \(parts[1])")
        if known.insert(parts[0] + parts[1]).inserted { tokens.append(parts[0] + parts[1]) }
      }
    }
    self.tokens = tokens
    self.merges = merges
    self.addedTokens = addedTokens
    let fitsPublished = vocabularySize >= Self.publishedFirstAddedID + addedTokens.count
    firstAddedID = fitsPublished ? Self.publishedFirstAddedID : tokens.count
  }

  /// What is left of a word when its pairs are merged, the one of the lowest rank first.
  private static func parts(of word: [UInt8], _ ranks: [String: Int]) -> [String] {
    var parts = word.map { ByteAlphabet.text(of: [$0]) }
    while true {
      let pairs = zip(parts, parts.dropFirst()).enumerated().compactMap { place, pair in
        ranks["\(pair.0) \(pair.1)"].map { (rank: $0, place: place) }
      }
      guard let next = pairs.min(by: { ($0.rank, $0.place) < ($1.rank, $1.place) })?.place else { return parts }
      parts.replaceSubrange(next...next + 1, with: [parts[next] + parts[next + 1]])
    }
  }

  /// The id of `<|image_pad|>`.
  package var imageTokenID: Int { firstAddedID + 12 }

  /// The directory's files by name.
  package func files() throws -> [String: Data] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    let vocabulary = Dictionary(uniqueKeysWithValues: tokens.enumerated().map { ($1, $0) })
    let added = Dictionary(uniqueKeysWithValues: addedTokens.enumerated().map { ($1, firstAddedID + $0) })
    return [
      "vocab.json": try encoder.encode(vocabulary), "added_tokens.json": try encoder.encode(added),
      "merges.txt": Data(("#version: 0.2\n" + merges.joined(separator: "\n") + "\n").utf8),
      "tokenizer_config.json": Data(#"{"add_prefix_space": false, "tokenizer_class": "Qwen2Tokenizer"}"#.utf8),
    ]
  }
}
