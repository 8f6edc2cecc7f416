import Diffusion
import Foundation
import GoldenSupport
import StrictJSON
import Testing
import Weights

/// The published Qwen2 tokenizer, decompressed from the reference data and loaded once.
private let published: Result<Tokenizer, any Error> = Result {
  let directory = try TemporaryDirectory()
  let source = golden.appending(path: "qwen2-tokenizer")
  for name in ["vocab.json", "merges.txt"] {
    try Data(gunzip(source.appending(path: name + ".gz"))).write(to: directory.url.appending(path: name))
  }
  try FileManager.default.copyItem(
    at: source.appending(path: "added_tokens.json"), to: directory.url.appending(path: "added_tokens.json"))
  return try Tokenizer(directory: directory.url)
}

@Suite struct TokenizerTests {
  private let tiny = golden.appending(path: "tiny/checkpoint/tokenizer")

  /// Recorded texts and ids: special tokens, templates with a prompt in place, and single texts.
  private func check(_ tokenizer: Tokenizer, vectors: URL) throws {
    let document = try JSON(Array(try Data(contentsOf: vectors)))
    guard case .object(let specials)? = document["specials"], case .object(let templates)? = document["templates"]
    else {
      Issue.record("\(vectors.path) has no specials or templates")
      return
    }
    #expect(!specials.isEmpty && !templates.isEmpty)
    for (token, id) in specials {
      #expect(tokenizer.id(of: token) == id.integer)
      #expect(tokenizer.encode(token) == [id.integer])
    }
    let prompt = try #require(document["prompt"]?.text)
    for (name, template) in templates {
      let text = try #require(template.text).replacingOccurrences(of: "{}", with: prompt)
      #expect(tokenizer.encode(text) == document["template_ids_with_prompt"]?[name]?.integers, "template \(name)")
    }
    let cases = try #require(document["cases"]?.elements)
    #expect(cases.count > 20)
    for vector in cases {
      let text = try #require(vector["text"]?.text)
      #expect(tokenizer.encode(text) == vector["ids"]?.integers, "\(text.debugDescription)")
    }
  }

  @Test func tinyVocabularyAgreesWithTheReference() throws {
    try check(try Tokenizer(directory: tiny), vectors: golden.appending(path: "tiny/reference/tokenizer.json"))
  }

  @Test func publishedVocabularyAgreesWithTheReference() throws {
    let tokenizer = try published.get()
    #expect(tokenizer.idCount == 151_665)
    try check(tokenizer, vectors: golden.appending(path: "qwen2-tokenizer/vectors.json"))
  }

  /// As many rows are dropped as the beginnings of the prompt templates have tokens in the published vocabulary.
  @Test func templatesHaveAsManyTokensAsAreDropped() throws {
    let tokenizer = try published.get()
    for (system, count) in [
      (
        "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
          + "objects and background:", 34
      ),
      (
        "Describe the key features of the input image (color, shape, size, texture, objects, background), then explain "
          + "how the user's text instruction should alter or modify the image. Generate a new image that meets the "
          + "user's requirements while maintaining consistency with the original input where appropriate.", 64
      ),
    ] {
      let ids = tokenizer.encode("<|im_start|>system\n\(system)<|im_end|>\n<|im_start|>user\n")
      #expect(ids.count == count)
      for next in ["<|vision_start|><|image_pad|><|vision_end|>", "Picture 1: <|vision_start|>"] {
        let longer = tokenizer.encode("<|im_start|>system\n\(system)<|im_end|>\n<|im_start|>user\n\(next)")
        #expect(longer.starts(with: ids))
      }
    }
  }

  @Test func corpusAgreesWithTheReference() throws {
    let tokenizer = try published.get()
    let corpus = try JSON(gunzip(golden.appending(path: "qwen2-tokenizer/corpus.json.gz")))
    let lines = try #require(corpus["lines"]?.elements)
    let ids = try #require(corpus["ids"]?.elements)
    #expect(lines.count >= 5000 && lines.count == ids.count)
    var failures = 0
    for (line, expected) in zip(lines, ids) where failures < 20 {
      let text = try #require(line.text)
      let found = tokenizer.encode(text)
      if found != expected.integers {
        failures += 1
        Issue.record("\(text.debugDescription): \(found), expected \(expected.integers ?? [])")
      }
    }
  }

  @Test func decodesWhatItEncodes() throws {
    let tokenizer = try published.get()
    for text in ["", "Hello, world!", "山间的清晨，薄雾", "👩‍👩‍👧‍👦 <|im_start|>user\n\u{0}\u{7f}", "a\u{0301}"] {
      #expect(
        tokenizer.decode(tokenizer.encode(text)).utf8.elementsEqual(text.precomposedStringWithCanonicalMapping.utf8))
    }
    #expect(tokenizer.decode([-1, Int.max, 151_664]) == "<|file_sep|>")
  }

  /// Texts are 32 times as long as prompts may be. Quadratic time would go far beyond the limit.
  @Test(
    .timeLimit(.minutes(1)), arguments: ["a", "ab", "中", "!", " ", "\n", "a\u{0301}\u{0323}", "1"]
  ) func longTextsTakeLinearithmicTime(unit: String) throws {
    let tokenizer = try published.get()
    let text = String(repeating: unit, count: (1 << 20) / unit.utf8.count)
    let ids = tokenizer.encode(text)
    #expect(tokenizer.decode(ids).utf8.elementsEqual(text.precomposedStringWithCanonicalMapping.utf8))
  }
}

@Suite struct ReferenceUnicodeTests {
  private func codePoints(_ name: String) throws -> [Bool] {
    let document = try JSON(Array(try Data(contentsOf: golden.appending(path: "qwen2-tokenizer/unicode-classes.json"))))
    var members = [Bool](repeating: false, count: 0x110000)
    for range in try #require(document[name]?.elements) {
      let bounds = try #require(range.integers)
      for code in bounds[0]...bounds[1] { members[code] = true }
    }
    return members
  }

  @Test func classesAgreeForAllCodePoints() throws {
    let letters = try codePoints("letter")
    let numbers = try codePoints("number")
    let spaces = try codePoints("space")
    var wrong: [String] = []
    for code in 0..<0x110000 {
      guard let scalar = Unicode.Scalar(UInt32(code)) else { continue }
      let expected: ReferenceUnicode.Class =
        if letters[code] { .letter } else if numbers[code] { .number } else if code == 10 || code == 13 {
          .newline
        } else if spaces[code] {
          .blank
        } else { .other }
      if ReferenceUnicode.class(scalar) != expected { wrong.append(String(code, radix: 16)) }
    }
    #expect(wrong.isEmpty, "\(wrong.count): \(wrong.prefix(20))")
  }

  @Test func normalizationAgreesForRecordedTexts() throws {
    let document = try JSON(gunzip(golden.appending(path: "qwen2-tokenizer/normalization.json.gz")))
    let pairs = try #require(document.elements)
    #expect(pairs.count > 10_000)
    var wrong: [String] = []
    for pair in pairs {
      let elements = try #require(pair.elements)
      let texts = elements.compactMap(\.text)
      if !ReferenceUnicode.normalized(texts[0]).unicodeScalars.elementsEqual(texts[1].unicodeScalars) {
        wrong.append(texts[0].debugDescription)
      }
    }
    #expect(wrong.isEmpty, "\(wrong.count): \(wrong.prefix(20))")
  }

  @Test func normalizationAgreesForAllAssignedCodePoints() throws {
    let changed = try codePoints("changed")
    let reordered = try codePoints("reordered")
    var wrong: [String] = []
    func isChanged(_ scalars: [Unicode.Scalar]) -> Bool {
      var view = String.UnicodeScalarView()
      view.append(contentsOf: scalars)
      let text = String(view)
      return !ReferenceUnicode.normalized(text).unicodeScalars.elementsEqual(text.unicodeScalars)
    }
    // Beyond plane 3 there are only tags and variation selectors, and what is unassigned or private.
    for code in [Array(0x80..<0x32000), Array(0xe0000..<0xe1000)].joined() {
      guard let scalar = Unicode.Scalar(UInt32(code)) else { continue }
      let moves = isChanged(["a", scalar, "\u{334}"]) || isChanged(["a", "\u{345}", scalar])
      if isChanged([scalar]) != changed[code] || moves != reordered[code] { wrong.append(String(code, radix: 16)) }
    }
    #expect(wrong.isEmpty, "\(wrong.count): \(wrong.prefix(20))")
  }
}

@Suite struct TokenizerFilesTests {
  private let tiny = golden.appending(path: "tiny/checkpoint/tokenizer")

  private func copy(to directory: borrowing TemporaryDirectory) throws {
    for file in ["vocab.json", "merges.txt", "added_tokens.json", "tokenizer_config.json"] {
      _ = try directory.write(try String(contentsOf: tiny.appending(path: file), encoding: .utf8), as: file)
    }
  }

  /// The tiny tokenizer as `tokenizer.json`, with merges as pairs or as strings.
  private func combined(pairs: Bool) throws -> [String: Any] {
    func object(_ file: String) throws -> Any {
      try JSONSerialization.jsonObject(with: Data(contentsOf: tiny.appending(path: file)))
    }
    let merges = try String(contentsOf: tiny.appending(path: "merges.txt"), encoding: .utf8).split(separator: "\n")
      .dropFirst()
    let added = try #require(try object("added_tokens.json") as? [String: Int])
    let pattern =
      #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
    return [
      "normalizer": ["type": "NFC"],
      "pre_tokenizer": [
        "type": "Sequence",
        "pretokenizers": [
          ["type": "Split", "pattern": ["Regex": pattern], "behavior": "Isolated", "invert": false],
          ["type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false],
        ],
      ],
      "model": [
        "type": "BPE", "vocab": try object("vocab.json"), "byte_fallback": false, "ignore_merges": false,
        "merges": merges.map { pairs ? $0.split(separator: " ").map(String.init) as Any : String($0) as Any },
      ],
      "added_tokens": added.map { ["id": $0.value, "content": $0.key, "normalized": false, "special": true] },
    ]
  }

  @Test(arguments: [true, false]) func readsTheCombinedFile(pairs: Bool) throws {
    let directory = try TemporaryDirectory()
    let document = try JSONSerialization.data(withJSONObject: combined(pairs: pairs))
    _ = try directory.write(String(decoding: document, as: UTF8.self), as: "tokenizer.json")
    let expected = try Tokenizer(directory: tiny)
    let found = try Tokenizer(directory: directory.url)
    for text in ["A small red fox, isn't it?  <|im_start|>user\n12", "山间的清晨\t\n é"] {
      #expect(found.encode(text) == expected.encode(text))
    }
  }

  private static let texts = [
    "A small red fox, isn't it?  <|im_start|>user\n12<|im_end|>", "山间的清晨\t\n é", "<|vision_pad|>x",
  ]

  private func expectTheSame(_ directory: URL) throws {
    let expected = try Tokenizer(directory: tiny), found = try Tokenizer(directory: directory)
    #expect(found.idCount == expected.idCount)
    for text in Self.texts { #expect(found.encode(text) == expected.encode(text)) }
  }

  /// A save by transformers 5 over an older one: the added tokens are in tokenizer.json only.
  @Test func theCombinedFileCountsBesideOlderFiles() throws {
    let directory = try TemporaryDirectory()
    for file in ["vocab.json", "merges.txt"] {
      _ = try directory.write(try String(contentsOf: tiny.appending(path: file), encoding: .utf8), as: file)
    }
    _ = try directory.write(
      #"{"tokenizer_class": "Qwen2Tokenizer", "backend": "tokenizers", "extra_special_tokens": ["<|im_start|>"]}"#,
      as: "tokenizer_config.json")
    let document = try JSONSerialization.data(withJSONObject: combined(pairs: true))
    _ = try directory.write(String(decoding: document, as: UTF8.self), as: "tokenizer.json")
    try expectTheSame(directory.url)
    // What is left of the old files does not matter.
    _ = try directory.write("{}", as: "vocab.json")
    _ = try directory.write(#"{"<|old|>": 567}"#, as: "added_tokens.json")
    try expectTheSame(directory.url)
    // Settings and added tokens of the configuration do.
    _ = try directory.write(
      #"{"added_tokens_decoder": {"7": {"content": "<|im_start|>"}}}"#, as: "tokenizer_config.json")
    let error = #expect(throws: TokenizerError.self) { try Tokenizer(directory: directory.url) }
    #expect(
      error?.description.contains("tokenizer_config.json: added token \"<|im_start|>\" with id 7 contradicts") == true)
  }

  @Test func aSequenceOfOneNormalizerIsThatNormalizer() throws {
    let directory = try TemporaryDirectory()
    var document = try combined(pairs: true)
    func write() throws {
      let data = try JSONSerialization.data(withJSONObject: document)
      _ = try directory.write(String(decoding: data, as: UTF8.self), as: "tokenizer.json")
    }
    document["normalizer"] = ["type": "Sequence", "normalizers": [["type": "NFC"]]]
    try write()
    try expectTheSame(directory.url)
    document["normalizer"] = ["type": "Sequence", "normalizers": [["type": "NFC"], ["type": "Lowercase"]]]
    try write()
    let error = #expect(throws: TokenizerError.self) { try Tokenizer(directory: directory.url) }
    #expect(error?.description.hasSuffix(#"normalizer.type is "Sequence", supported is only "NFC""#) == true)
    document["normalizer"] = ["type": "NFC"]
    document["post_processor"] = ["type": "TemplateProcessing"]
    try write()
    let templated = #expect(throws: TokenizerError.self) { try Tokenizer(directory: directory.url) }
    #expect(templated?.description.contains("post_processor.type is \"TemplateProcessing\"") == true)
  }

  @Test func harmlessOdditiesAreRead() throws {
    let directory = try TemporaryDirectory()
    try copy(to: directory)
    let merges = try String(contentsOf: tiny.appending(path: "merges.txt"), encoding: .utf8)
    _ = try directory.write(merges.replacingOccurrences(of: "\n", with: "\r\n"), as: "merges.txt")
    var vocabulary =
      try JSONSerialization.jsonObject(with: Data(contentsOf: tiny.appending(path: "vocab.json"))) as? [String: Int]
    let added =
      try JSONSerialization.jsonObject(with: Data(contentsOf: tiny.appending(path: "added_tokens.json")))
      as? [String: Int]
    vocabulary?.merge(try #require(added)) { old, _ in old }
    let data = try JSONSerialization.data(withJSONObject: try #require(vocabulary))
    _ = try directory.write(String(decoding: data, as: UTF8.self), as: "vocab.json")
    let configuration = try String(contentsOf: tiny.appending(path: "tokenizer_config.json"), encoding: .utf8)
    // Python writes its largest integer in full.
    _ = try directory.write(
      configuration.replacing(
        /"model_max_length": [0-9]+/, with: "\"model_max_length\": 1000000000000000019884624838656"),
      as: "tokenizer_config.json")
    try expectTheSame(directory.url)
  }

  @Test func refusesOtherTokenizers() throws {
    let directory = try TemporaryDirectory()
    for (key, value) in [
      ("normalizer", ["type": "NFKC"]), ("pre_tokenizer", ["type": "Whitespace"]), ("model", ["type": "Unigram"]),
    ]
      as [(String, Any)]
    {
      var document = try combined(pairs: true)
      document[key] = value
      let data = try JSONSerialization.data(withJSONObject: document)
      _ = try directory.write(String(decoding: data, as: UTF8.self), as: "tokenizer.json")
      let error = #expect(throws: TokenizerError.self) { try Tokenizer(directory: directory.url) }
      #expect(
        error?.description.contains("tokenizer.json") == true && error?.description.contains(key) == true,
        "\(String(describing: error))")
    }
  }

  @Test(arguments: [
    ("vocab.json", "\"!\": 0", "\"!\": 1", "id 1 occurs twice"), ("vocab.json", "\"!\": 0", "\"!\": -1", "id -1"),
    ("vocab.json", "\"!\": 0", "\"!\": 99999999", "id 99999999"),
    ("vocab.json", "\"!\": 0", "\"!\": 0.5", "expected an integer"),
    ("vocab.json", "\"!\": 0", "\"!!!!\": 0", "no token for the byte 33"),
    ("vocab.json", "\"!\": 0", "\"中\": 0", "not spelled in the byte alphabet"),
    ("vocab.json", "\"!\": 0", "\"\\\"\": 0", "occurs twice"), ("vocab.json", "{", "[", "expected"),
    ("merges.txt", "i n\n", "i n x\n", "line 2 is not two tokens"),
    ("merges.txt", "i n\n", "in\n", "line 2 is not two tokens"),
    ("merges.txt", "i n\n", "中 n\n", "line 2"), ("merges.txt", "i n\n", "~ ~\n", "not in the vocabulary"),
    ("merges.txt", "i n\n", "i n\ni n\n", "repeats an earlier merge"),
    ("added_tokens.json", "568", "567", "contradicts"),
    ("added_tokens.json", "568", "0", "takes id 0 from the vocabulary"),
    ("added_tokens.json", "568", "\"x\"", "has no id"),
    ("added_tokens.json", "568", "-1", "has no id"),
    ("tokenizer_config.json", "\"add_prefix_space\": false", "\"add_prefix_space\": true", "add_prefix_space"),
    ("tokenizer_config.json", "\"567\"", "\"566\"", "contradicts"),
    ("tokenizer_config.json", "\"lstrip\": false", "\"lstrip\": true", "lstrip"),
  ])
  func namesWhatIsWrong(file: String, old: String, new: String, names: String) throws {
    let directory = try TemporaryDirectory()
    try copy(to: directory)
    let text = try String(contentsOf: tiny.appending(path: file), encoding: .utf8)
    let range = try #require(text.range(of: old))
    if file == "added_tokens.json" {
      try FileManager.default.removeItem(at: directory.url.appending(path: "tokenizer_config.json"))
    }
    _ = try directory.write(text.replacingCharacters(in: range, with: new), as: file)
    let error = #expect(throws: TokenizerError.self) { try Tokenizer(directory: directory.url) }
    let message = try #require(error).description
    #expect(message.contains(directory.url.path) && message.contains(names), "\(message)")
  }

  @Test func namesMissingFiles() throws {
    let directory = try TemporaryDirectory()
    let error = #expect(throws: TokenizerError.self) { try Tokenizer(directory: directory.url) }
    #expect(error?.description.contains(directory.url.path) == true)
  }

  /// Tokens marked `normalized` are searched for in the normalized text, the others in the raw text.
  @Test func searchesNormalizedTokensAfterNormalization() throws {
    let directory = try TemporaryDirectory()
    try copy(to: directory)
    let config = try String(contentsOf: tiny.appending(path: "tokenizer_config.json"), encoding: .utf8)
    let decoder =
      #""added_tokens_decoder": { "600": {"content": "<e\u0301>", "normalized": true},"#
      + #" "601": {"content": "<o\u0301>", "normalized": false},"#
    _ = try directory.write(
      config.replacingOccurrences(of: #""added_tokens_decoder": {"#, with: decoder), as: "tokenizer_config.json")
    let tokenizer = try Tokenizer(directory: directory.url)
    #expect(tokenizer.encode("<e\u{301}>") == [600] && tokenizer.encode("<\u{e9}>") == [600])
    #expect(tokenizer.encode("<o\u{301}>") == [601] && tokenizer.encode("<\u{f3}>") != [601])
  }
}
