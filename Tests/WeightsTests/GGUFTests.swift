import Foundation
import GoldenSupport
import TensorCore
import Testing
import Weights

/// GGUF files: what is read, and what is refused.
@Suite struct GGUFTests {
  private static func sound() -> StoredGGUF {
    var file = StoredGGUF([
      .init("a", [2, 4], type: 0, (0..<32).map { UInt8($0) }),
      .init("b", [3, 32], type: 8, (0..<102).map { UInt8($0) }),
      .init("c", [], type: 1, [0, 0x3c]),
    ])
    file.pairs += [
      StoredGGUF.number("n", 7), StoredGGUF.numbers("list", [3, -1]), ("flag", 7, [1]), ("half", 6, [0, 0, 0, 0x3f]),
      ("long", 11, [UInt8](repeating: 0xff, count: 8)),
      ("tokens", 9, StoredGGUF.word(8, 4) + StoredGGUF.word(2, 8) + StoredGGUF.string("x") + StoredGGUF.string("")),
      (
        "nested", 9,
        StoredGGUF.word(9, 4) + StoredGGUF.word(1, 8) + StoredGGUF.word(0, 4) + StoredGGUF.word(1, 8) + [5]
      ),
    ]
    return file
  }

  private static func open(_ bytes: [UInt8], in directory: borrowing TemporaryDirectory) throws -> WeightFile {
    try WeightFile(directory.write(bytes, as: "x.gguf"))
  }

  @Test func headersAreRead() throws {
    let directory = try TemporaryDirectory(), file = try Self.open(Self.sound().bytes(), in: directory)
    let header = try #require(file.gguf)
    #expect(header.version == 3 && header.architecture == "qwen_image" && file.names == ["a", "b", "c"])
    #expect(header.metadata["n"] == .integer(7) && header.metadata["list"] == .integers([3, -1]))
    #expect(header.metadata["flag"] == .bool(true) && header.metadata["half"] == .number(0.5))
    #expect(header.metadata["long"] == .integer(-1) && header.metadata["tokens"] == .array(count: 2))
    #expect(header.metadata["nested"] == .array(count: 1))
    #expect(header.entries["b"]?.shape == [3, 32] && header.entries["b"]?.dtypeName == "Q8_0")
    #expect(header.entries["b"]?.begin == 32 && header.entries["b"]?.byteCount == 102)
    #expect(file.safetensors == nil && file.headerChecksum == nil)
    let weights = try ComponentWeights(.files([URL(filePath: file.path)]), baseName: "model") { _ in .published }
    let bytes = try weights.tensor("a", [2, 4]).withBytes { span in span.withUnsafeBytes { Array($0) } }
    #expect(bytes == (0..<32).map { UInt8($0) })
    #expect(try weights.tensor("c", []).floats() == [1])
    #expect(try weights.readBytes(of: "b", in: 3..<6) == [3, 4, 5])
  }

  /// Version 2 differs from 3 in nothing that matters here; an alignment of its own is followed.
  @Test func versionsAndAlignments() throws {
    let directory = try TemporaryDirectory()
    for (version, alignment) in [(2, 32), (3, 8), (3, 256)] {
      var file = Self.sound()
      (file.version, file.alignment) = (version, alignment)
      file.pairs.append(StoredGGUF.number("general.alignment", alignment))
      let header = try #require(try Self.open(file.bytes(), in: directory).gguf)
      #expect(header.version == version && header.dataOffset % alignment == 0 && header.entries.count == 3)
    }
  }

  /// What ComfyUI-GGUF has stored in rows of whole blocks gets its shape back.
  @Test func originalShapes() throws {
    let directory = try TemporaryDirectory()
    var file = StoredGGUF([.init("a", [2, 32], type: 2, [UInt8](repeating: 1, count: 36))])
    file.pairs.append(StoredGGUF.numbers("comfy.gguf.orig_shape.a", [4, 4, 2, 2]))
    _ = try directory.write(file.bytes(), as: "x.gguf")
    let weights = try ComponentWeights(.folder(directory.url), baseName: "model", acceptsAnyName: true) { _ in
      .published
    }
    #expect(try weights.tensor("a", [4, 4, 2, 2]).elementCount == 64)
    file.pairs[1] = StoredGGUF.numbers("comfy.gguf.orig_shape.a", [4, 4, 2, 3])
    let error = weightsError { _ = try Self.open(file.bytes(), in: directory) }
    #expect(error?.description.contains("tensor \"a\": has 64 elements, its original shape is [4, 4, 2, 3]") == true)
  }

  private static let refusals: [(words: String, change: @Sendable (inout StoredGGUF) -> Void)] = [
    ("is of version 1 of GGUF", { $0.version = 1 }), ("is big-endian", { $0.version = 3 << 24 }),
    ("has the metadata key \"n\" twice", { $0.pairs.append(StoredGGUF.number("n", 8)) }),
    ("has a value of the unknown type 13 for \"k\"", { $0.pairs.append(("k", 13, [])) }),
    ("has a general.alignment", { $0.pairs.append(StoredGGUF.number("general.alignment", 24)) }),
    ("has a general.alignment", { $0.pairs.append(StoredGGUF.text("general.alignment", "32")) }),
    (
      "has arrays in arrays for \"k\"",
      { file in
        let array = StoredGGUF.word(9, 4) + StoredGGUF.word(1, 8)
        file.pairs.append(("k", 9, array + array + array + array + StoredGGUF.word(0, 4) + StoredGGUF.word(0, 8)))
      }
    ),
    ("has an array of", { $0.pairs.append(("k", 9, StoredGGUF.word(10, 4) + StoredGGUF.word(.max, 8))) }),
    ("a value of 1099511627776 bytes", { $0.pairs.append(("k", 8, StoredGGUF.word(1 << 40, 8))) }),
    ("for a size", { $0.pairs.append(("k", 8, StoredGGUF.word(-1, 8))) }),
    ("is one of 3 parts; join them", { $0.pairs.append(("split.count", 2, [3, 0])) }),
    ("tensor \"a\": is there twice", { $0.tensors[1].name = "a" }),
    ("tensor \"a\": has the unknown type 99", { $0.tensors[0].type = 99 }),
    ("tensor \"b\": has 33 elements in a row, Q8_0 has blocks of 32", { $0.tensors[1].shape = [3, 33] }),
    ("tensor \"a\": of extents", { $0.tensors[0].shape = [1 << 40, 1 << 40] }),
    ("tensor \"a\": has rank 9", { $0.tensors[0].shape = [1, 1, 1, 1, 1, 1, 1, 1, 8] }),
    ("tensor \"b\": begins at 32 and overlaps its neighbour", { $0.tensors[0].shape = [4, 4] }),
    ("it is incomplete, download it again", { $0.tensors[2].shape = [64] }),
  ]

  @Test(arguments: refusals.indices) func unsoundHeadersAreRefused(_ index: Int) throws {
    let directory = try TemporaryDirectory(), (words, change) = Self.refusals[index]
    var file = Self.sound()
    change(&file)
    let error = weightsError { _ = try Self.open(file.bytes(), in: directory) }
    let message = try #require(error).description
    #expect(message.contains(words) && message.contains("x.gguf"), "\(message)")
  }

  @Test func offsetsAreChecked() throws {
    let directory = try TemporaryDirectory()
    for (offset, words) in [
      (4, "tensor \"b\": begins at 4, which is no multiple"), (0, "overlaps"), (1 << 40, "it is incomplete"),
      (.max - 31, "it is incomplete"),
    ] {
      let bytes = Self.sound().bytes { $0 == "b" ? offset : $1 }
      let error = weightsError { _ = try Self.open(bytes, in: directory) }
      #expect(error?.description.contains(words) == true, "\(String(describing: error))")
    }
  }

  /// Cut anywhere, a file is refused; changed anywhere, it is read or refused.
  @Test func damageDoesNotTrap() throws {
    let directory = try TemporaryDirectory(), bytes = Self.sound().bytes()
    for count in stride(from: 0, to: bytes.count - 32, by: 3) {
      #expect(weightsError { _ = try Self.open(Array(bytes.prefix(count)), in: directory) } != nil, "\(count) bytes")
    }
    var generator = SeededGenerator(state: 8)
    for _ in 0..<2000 {
      var changed = bytes
      for _ in 0..<Int.random(in: 1...3, using: &generator) {
        changed[Int.random(in: 0..<changed.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
      }
      _ = try? GGUFHeader.read(changed, fileByteCount: changed.count, file: "file")
    }
  }

  /// A header that is longer than what is read at first.
  @Test func longHeaders() throws {
    let directory = try TemporaryDirectory()
    var file = Self.sound()
    let tokens = (0..<40_000).flatMap { StoredGGUF.string("token \($0)") }
    file.pairs.append(("tokenizer.ggml.tokens", 9, StoredGGUF.word(8, 4) + StoredGGUF.word(40_000, 8) + tokens))
    file.pairs.append(StoredGGUF.text("tokenizer.chat_template", String(repeating: "x", count: 100_000)))
    let header = try #require(try Self.open(file.bytes(), in: directory).gguf)
    #expect(header.metadata["tokenizer.ggml.tokens"] == .array(count: 40_000) && header.entries.count == 3)
    #expect(header.metadata["tokenizer.chat_template"] == .array(count: 100_000))
  }

  @Test func otherFilesOfTheNameAreNamed() throws {
    let directory = try TemporaryDirectory()
    let error = weightsError {
      _ = try Self.open([0x50, 0x4b, 3, 4] + [UInt8](repeating: 0, count: 600), in: directory)
    }
    #expect(error?.description.contains("x.gguf is not a GGUF file: it is a zip archive") == true)
    let unknown = weightsError { _ = try Self.open((0..<200).map { UInt8(200 - $0) }, in: directory) }
    #expect(unknown?.description.contains("it is not a GGUF file") == true)
  }

  // MARK: - Components

  private static func file(_ architecture: String, _ name: String) -> [UInt8] {
    StoredGGUF(architecture: architecture, [.init(name, [2], type: 0, [UInt8](repeating: 0, count: 8))]).bytes()
  }

  @Test func aFolderHasOneModelAndPerhapsOneTower() throws {
    let directory = try TemporaryDirectory()
    func names() throws -> [String] {
      try ComponentWeights(.folder(directory.url), baseName: "model", acceptsAnyName: true) { _ in .published }.names
    }
    _ = try directory.write(Self.file("qwen2vl", "m"), as: "z-Q8_0.gguf")
    #expect(try names() == ["m"])
    _ = try directory.write(Self.file("clip", "v"), as: "mmproj.gguf")
    #expect(try names() == ["m", "v"])
    _ = try directory.write(Self.file("qwen2vl", "m"), as: "a-Q4_0.gguf")
    #expect(weightsError { _ = try names() }?.description.contains("keep one: a-Q4_0.gguf, z-Q8_0.gguf") == true)
    try FileManager.default.removeItem(at: directory.url.appending(path: "a-Q4_0.gguf"))
    _ = try directory.write(
      safetensors(#"{"s":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, data: [1]), as: "s.safetensors")
    #expect(weightsError { _ = try names() }?.description.contains("keep one: s.safetensors, mmproj.gguf") == true)
    _ = try directory.write(
      safetensors(#"{"s":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, data: [1]), as: "model.safetensors")
    #expect(try names() == ["s"])
    let strict = weightsError { _ = try ComponentWeights(directory: directory.url, baseName: "other") }
    #expect(strict?.description.contains("has neither other.safetensors") == true)
  }

  /// Tensors that files hold in parts.
  @Test func partsAreJoined() throws {
    let directory = try TemporaryDirectory()
    func values(_ values: [Float]) -> [UInt8] {
      values.flatMap { StoredGGUF.word(Int($0.bitPattern), 4) }
    }
    let half: [UInt8] = [0, 0x3c, 0, 0x40]  // 1, 2
    let eights = [0, 0x3c] + (0..<32).map { UInt8($0) }
    func open(_ tensors: [StoredGGUF.Tensor]) throws -> ComponentWeights {
      let url = try directory.write(StoredGGUF(tensors).bytes(), as: "x.gguf")
      return try ComponentWeights(.files([url]), baseName: "model") { _ in
        TensorNaming(
          joining: { name in
            let words = name.split(separator: "-")
            return words.count == 2
              ? TensorNaming.Part(String(words[0]), Int(words[1])!, of: 2, words[0] == "t" ? .taps : .rows) : nil
          })
      }
    }
    let weights = try open([
      .init("q-0", [1, 2], type: 0, values([3, 4])), .init("q-1", [1, 2], type: 1, half),
      .init("r-0", [1, 32], type: 8, eights), .init("r-1", [1, 32], type: 0, values((0..<32).map { -Float($0) })),
      .init("t-0", [1, 2, 1, 2], type: 0, values([1, 2, 3, 4])),
      .init("t-1", [1, 2, 1, 2], type: 0, values([5, 6, 7, 8])),
    ])
    #expect(weights.names == ["q", "r", "t"] && weights.partCount(of: "q") == 2)
    #expect(try weights.tensor("q", [2, 2]).floats() == [3, 4, 1, 2])
    #expect(try weights.rows(1..<2, of: "q", [2, 2]).floats() == [1, 2])
    #expect(try weights.tensor("t", [1, 2, 2, 1, 2]).floats() == [1, 2, 5, 6, 3, 4, 7, 8])
    let joined = (0..<32).map { Float($0) } + (0..<32).map { -Float($0) }
    #expect(try weights.tensor("r", [2, 32]).floats() == joined)
    #expect(weights.quantisation(of: "r")?.description == "Q8_0" && weights.quantisation(of: "q") == nil)
    #expect(
      try weights.readBytes(of: "q", part: 1, in: 0..<4) == half && weights.entry("q", part: 1)?.dtypeName == "F16")
    #expect(weightsError { _ = try weights.tensor("q", [2, 3]) }?.description.contains("has shape [2, 2]") == true)

    let missing = weightsError { _ = try open([.init("q-1", [1, 2], type: 0, values([3, 4]))]) }
    #expect(missing?.description.contains("\"q (part 1 of 2)\" is missing") == true)
    let other = try open([
      .init("q-0", [1, 2], type: 0, values([3, 4])), .init("q-1", [1, 3], type: 0, values([3, 4, 5])),
    ])
    #expect(weightsError { _ = try other.tensor("q", [2, 2]) }?.description.contains("do not fit together") == true)
    let twice = weightsError {
      _ = try open([
        .init("q", [1], type: 0, values([3])), .init("q-0", [1], type: 0, values([3])),
        .init("q-1", [1], type: 0, values([3])),
      ])
    }
    #expect(twice?.description.contains("both stand for \"q\"") == true)
  }

  @Test func otherTypesAreRefusedByName() throws {
    let directory = try TemporaryDirectory()
    let url = try directory.write(
      StoredGGUF([.init("a", [1, 256], type: 17, [UInt8](repeating: 0, count: 74))]).bytes(), as: "x.gguf")
    let weights = try ComponentWeights(.files([url]), baseName: "model") { _ in .published }
    let error = weightsError { _ = try weights.linearWeight("a", [1, 256]) }
    #expect(error?.description.contains("x.gguf: tensor \"a\" has element type IQ2_XS, supported are") == true)
  }
}
