import Foundation
import StrictJSON
import Weights

/// The contents of a tokenizer directory, in either of its layouts.
struct TokenizerFiles {
  /// Ids of the vocabulary's tokens by the bytes they stand for.
  private(set) var vocabulary: [[UInt8]: UInt32] = [:]
  private(set) var merges = BytePairMerges(capacity: 0)
  private(set) var literals: [AddedTokens.Literal] = []
  private let directory: URL

  private static let maxFileBytes = 64 << 20
  /// Ids are indices into an embedding table; no published one has a tenth of this.
  private static let maxTokenID = 1 << 22

  /// Reads `tokenizer.json`, or, where there is none, `vocab.json` and `merges.txt` with `added_tokens.json`; and what
  /// `tokenizer_config.json` adds. Where a directory has both, transformers too takes `tokenizer.json`: the other files
  /// may be left from an older save.
  init(directory: URL) throws(TokenizerError) {
    self.directory = directory
    if exists("tokenizer.json") {
      try readCombinedFile()
    } else if exists("vocab.json"), exists("merges.txt") {
      try readVocabulary()
      try readMerges()
      try readAddedTokens()
    } else {
      let reason =
        isPresent(directory.path) ? "has neither tokenizer.json nor vocab.json and merges.txt" : "does not exist"
      throw .cannotRead(file: directory.path, reason: "it \(reason); download it")
    }
    try readConfiguration()
    // Every text must be encodable.
    guard let missing = (UInt8.min...UInt8.max).first(where: { vocabulary[[$0]] == nil }) else { return }
    throw .malformed(file: directory.path, reason: "the vocabulary has no token for the byte \(missing)")
  }

  // MARK: - vocab.json, merges.txt, added_tokens.json, tokenizer_config.json

  private mutating func readVocabulary() throws(TokenizerError) {
    let file = path("vocab.json")
    var reader = JSONReader(try read("vocab.json"))
    do {
      try readVocabulary(&reader)
      try reader.end()
    } catch { throw .malformed(file: file, reason: error.description) }
  }

  private mutating func readVocabulary(_ reader: inout JSONReader) throws(JSONError) {
    var vocabulary: [[UInt8]: UInt32] = [:]
    vocabulary.reserveCapacity(160_000)
    var idsInUse: Set<UInt32> = []
    idsInUse.reserveCapacity(160_000)
    try reader.forEachMember { (key, reader) throws(JSONError) in
      let id = try reader.integer()
      guard (0...Self.maxTokenID).contains(id) else {
        throw reader.failure("id \(id) of \"\(key)\" is outside 0...\(Self.maxTokenID)")
      }
      guard let bytes = ByteAlphabet.bytes(of: key) else {
        throw reader.failure("token \"\(key)\" is not spelled in the byte alphabet")
      }
      guard vocabulary.updateValue(UInt32(id), forKey: bytes) == nil else {
        throw reader.failure("token \"\(key)\" occurs twice")
      }
      guard idsInUse.insert(UInt32(id)).inserted else { throw reader.failure("id \(id) occurs twice") }
    }
    self.vocabulary = vocabulary
  }

  private mutating func readMerges() throws(TokenizerError) {
    let file = path("merges.txt")
    guard let text = String(validating: try read("merges.txt"), as: UTF8.self) else {
      throw .malformed(file: file, reason: "is not UTF-8")
    }
    merges = BytePairMerges(capacity: 160_000)
    for (index, line) in text.utf8.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated() {
      guard let line = Substring(line.last == UInt8(ascii: "\r") ? line.dropLast() : line) as Substring? else {
        continue
      }
      if line.isEmpty || line.utf8.starts(with: "#version".utf8) { continue }
      let parts = line.utf8.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
      guard parts.count == 2 else {
        throw .malformed(file: file, reason: "line \(index + 1) is not two tokens: \"\(line.prefix(80))\"")
      }
      try appendMerge(Substring(parts[0]), Substring(parts[1]), file: file, place: "line \(index + 1)")
    }
  }

  private mutating func appendMerge(_ left: Substring, _ right: Substring, file: String, place: String)
    throws(TokenizerError)
  {
    func token(_ bytes: [UInt8]?) throws(TokenizerError) -> UInt32 {
      guard let bytes, let id = vocabulary[bytes] else {
        throw .malformed(
          file: file,
          reason: "\(place), \"\(left.prefix(80)) \(right.prefix(80))\", has a token that is not in the vocabulary")
      }
      return id
    }
    let leftBytes = ByteAlphabet.bytes(of: left)
    let rightBytes = ByteAlphabet.bytes(of: right)
    let merged = try token((leftBytes ?? []) + (rightBytes ?? []))
    guard merges.append(left: try token(leftBytes), right: try token(rightBytes), merged: merged) else {
      throw .malformed(
        file: file, reason: "\(place), \"\(left.prefix(80)) \(right.prefix(80))\", repeats an earlier merge")
    }
  }

  private mutating func readAddedTokens() throws(TokenizerError) {
    guard exists("added_tokens.json") else { return }
    for (content, value) in try object("added_tokens.json").sorted(by: { $0.key < $1.key }) {
      try append(content: content, id: value.integer, flags: [:], file: path("added_tokens.json"))
    }
  }

  private mutating func readConfiguration() throws(TokenizerError) {
    guard exists("tokenizer_config.json") else { return }
    let file = path("tokenizer_config.json")
    let configuration = try object("tokenizer_config.json")
    for setting in ["add_bos_token", "add_eos_token", "add_prefix_space", "split_special_tokens"] {
      guard [nil, .null, .bool(false)].contains(configuration[setting]) else {
        throw .unsupported(file: file, setting: setting, value: "on", supported: "off")
      }
    }
    guard case .object(let decoder)? = configuration["added_tokens_decoder"] else { return }
    for (key, value) in decoder.sorted(by: { $0.key < $1.key }) {
      guard case .object(let flags) = value, case .string(let content)? = flags["content"], let id = Int(key) else {
        throw .malformed(file: file, reason: "added_tokens_decoder[\"\(key.prefix(80))\"] is not a token")
      }
      try append(content: content, id: id, flags: flags, file: file)
    }
  }

  /// Adds a literal, or checks that it is the same as the one added before.
  private mutating func append(content: String, id: Int?, flags: JSONObject, file: String) throws(TokenizerError) {
    guard let id, (0...Self.maxTokenID).contains(id), !content.isEmpty else {
      throw .malformed(file: file, reason: "added token \"\(content.prefix(80))\" has no id in 0...\(Self.maxTokenID)")
    }
    for flag in ["lstrip", "rstrip", "single_word"] where flags[flag] == .bool(true) {
      throw .unsupported(file: file, setting: "\(flag) of \"\(content.prefix(80))\"", value: "on", supported: "off")
    }
    let literal = AddedTokens.Literal(
      content: content, id: UInt32(id), isNormalized: flags["normalized"] == .bool(true))
    if let index = literals.firstIndex(where: { $0.content.utf8.elementsEqual(content.utf8) || $0.id == literal.id }) {
      guard literals[index].content.utf8.elementsEqual(content.utf8), literals[index].id == literal.id else {
        throw .malformed(
          file: file,
          reason:
            "added token \"\(content.prefix(80))\" with id \(id) contradicts \"\(literals[index].content)\" "
            + "with id \(literals[index].id)"
        )
      }
      literals[index] = literal
    } else {
      literals.append(literal)
    }
  }

  // MARK: - tokenizer.json

  private mutating func readCombinedFile() throws(TokenizerError) {
    let file = path("tokenizer.json")
    let document = try object("tokenizer.json")
    try requireSupportedPipeline(document, file: file)
    guard case .object(let model)? = document["model"], case .object(let tokens)? = model["vocab"],
      case .array(let pairs)? = model["merges"]
    else { throw .malformed(file: file, reason: "model.vocab or model.merges is missing") }
    for (key, value) in tokens {
      guard let bytes = ByteAlphabet.bytes(of: key), let id = value.integer, (0...Self.maxTokenID).contains(id) else {
        throw .malformed(file: file, reason: "model.vocab[\"\(key.prefix(80))\"] is not a token")
      }
      vocabulary[bytes] = UInt32(id)
    }
    guard Set(vocabulary.values).count == tokens.count else {
      throw .malformed(file: file, reason: "model.vocab has ids that occur twice")
    }

    merges = BytePairMerges(capacity: pairs.count)
    for (index, pair) in pairs.enumerated() {
      let parts: [Substring]
      switch pair {
      case .string(let text): parts = text.split(separator: " ", omittingEmptySubsequences: false)
      case .array(let elements):
        parts = elements.compactMap { if case .string(let text) = $0 { text[...] } else { nil } }
      default: parts = []
      }
      guard parts.count == 2 else { throw .malformed(file: file, reason: "model.merges[\(index)] is not two tokens") }
      try appendMerge(parts[0], parts[1], file: file, place: "model.merges[\(index)]")
    }
    guard case .array(let added)? = document["added_tokens"] else { return }
    for (index, element) in added.enumerated() {
      guard case .object(let flags) = element, case .string(let content)? = flags["content"] else {
        throw .malformed(file: file, reason: "added_tokens[\(index)] is not a token")
      }
      try append(content: content, id: flags["id"]?.integer, flags: flags, file: file)
    }
  }

  /// `tokenizer.json` can describe any tokenizer; this one must be Qwen2's.
  private func requireSupportedPipeline(_ document: JSONObject, file: String) throws(TokenizerError) {
    func require(_ setting: String, _ value: JSON?, _ supported: JSON) throws(TokenizerError) {
      guard value == supported || (value ?? .null) == .null && supported == .bool(false) else {
        throw .unsupported(file: file, setting: setting, value: Self.shown(value), supported: Self.shown(supported))
      }
    }
    guard case .object(let model)? = document["model"], case .object(var normalizer)? = document["normalizer"],
      case .object(let preTokenizer)? = document["pre_tokenizer"],
      case .array(let steps)? = preTokenizer["pretokenizers"],
      steps.count == 2, case .object(let split) = steps[0], case .object(let byteLevel) = steps[1]
    else { throw .malformed(file: file, reason: "model, normalizer or pre_tokenizer is not that of a Qwen2 tokenizer") }
    try require("model.type", model["type"], .string("BPE"))
    try require("model.byte_fallback", model["byte_fallback"], .bool(false))
    try require("model.ignore_merges", model["ignore_merges"], .bool(false))
    // A sequence of one normalizer is that normalizer.
    if normalizer["type"] == .string("Sequence"), case .array(let steps)? = normalizer["normalizers"], steps.count == 1,
      case .object(let only) = steps[0]
    {
      normalizer = only
    }
    if case .object(let processor)? = document["post_processor"] {
      try require("post_processor.type", processor["type"], .string("ByteLevel"))
    }
    try require("normalizer.type", normalizer["type"], .string("NFC"))
    try require("pre_tokenizer.pattern.Regex", split["pattern"]?["Regex"], .string(WordSplitter.pattern))
    try require("pre_tokenizer.behavior", split["behavior"], .string("Isolated"))
    try require("pre_tokenizer.invert", split["invert"], .bool(false))
    try require("pre_tokenizer.type", byteLevel["type"], .string("ByteLevel"))
    try require("pre_tokenizer.add_prefix_space", byteLevel["add_prefix_space"], .bool(false))
    try require("pre_tokenizer.use_regex", byteLevel["use_regex"], .bool(false))
  }

  /// A setting's value as errors show it.
  private static func shown(_ value: JSON?) -> String {
    switch value {
    case .string(let text): "\"\(text.prefix(120))\""
    case .number(let number): "\(number.text.prefix(40))"
    case .bool(let isOn): "\(isOn)"
    case .null, nil: "null"
    case .array, .object: value?.kind ?? ""
    }
  }

  // MARK: - Files

  private func path(_ name: String) -> String { directory.appending(path: name).path }

  private func exists(_ name: String) -> Bool { isPresent(path(name)) }

  private func read(_ name: String) throws(TokenizerError) -> [UInt8] {
    do { return try readSmallFile(path(name), maxBytes: Self.maxFileBytes) } catch {
      switch error {
      case .cannotRead(let file, let reason): throw .cannotRead(file: file, reason: reason)
      case .foreignFile(let file, _, let kind): throw .malformed(file: file, reason: "it is \(kind)")
      default: throw .cannotRead(file: path(name), reason: error.description)
      }
    }
  }

  private func object(_ name: String) throws(TokenizerError) -> JSONObject {
    let document: JSON
    let bytes = try read(name)
    do { document = try JSON(bytes) } catch { throw .malformed(file: path(name), reason: error.description) }
    guard case .object(let members) = document else {
      throw .malformed(file: path(name), reason: "is \(document.kind), not an object")
    }
    return members
  }
}
