import Foundation
import TensorCore
import Testing
import Weights

@Suite struct SafetensorsTests {
  private static let header =
    #"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"#
    + #""b":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]},"#
    + #""empty":{"dtype":"I64","shape":[0,4],"data_offsets":[14,14]}}"#
  private static let data: [UInt8] = [0, 0, 128, 63, 0, 0, 0, 192, 128, 63, 0, 64, 64, 64]

  @Test func readsTensors() throws {
    let directory = try TemporaryDirectory()
    let file = try SafetensorsFile(
      try directory.write(safetensors(Self.header + "   ", data: Self.data), as: "x.safetensors"))
    #expect(file.names == ["a", "b", "empty"])
    #expect(file.header.metadata == ["format": "pt"])
    #expect(try file.tensor("a").floats() == [1, -2])
    #expect(try file.tensor("b").floats() == [1, 2, 3])
    #expect(try file.tensor("b").dtype == .bf16)
    #expect(try file.tensor("empty").shape == [0, 4])
    #expect(try file.withBytes(of: "a") { $0.withUnsafeBytes { Array($0) } } == Array(Self.data.prefix(8)))
    #expect(try file.readBytes(of: "b", in: 2..<6) == Array(Self.data[10..<14]))
    #expect(try file.readBytes(of: "empty", in: 0..<0).isEmpty)
    #expect(
      weightsError { _ = try file.tensor("c") } == .missingTensor(component: file.path, tensor: "c", expected: nil))
  }

  /// The reference implementation takes null for no metadata.
  @Test func metadataMayBeNull() throws {
    let directory = try TemporaryDirectory()
    let file = try SafetensorsFile(directory.write(safetensors(#"{"__metadata__":null}"#), as: "x.safetensors"))
    #expect(file.header.metadata == [:] && file.names == [])
  }

  @Test func mappingLivesAsLongAsAView() throws {
    var tensor: Tensor?
    do {
      let directory = try TemporaryDirectory()
      let big = [UInt8](repeating: 0x3f, count: 1 << 20)
      let bytes = safetensors(#"{"a":{"dtype":"F32","shape":[262144],"data_offsets":[0,1048576]}}   "#, data: big)
      tensor = try SafetensorsFile(try directory.write(bytes, as: "x.safetensors")).tensor("a")
    }
    #expect(try #require(tensor).floats() == [Float](repeating: Float(bitPattern: 0x3f3f_3f3f), count: 262144))
  }

  @Test(arguments: 0..<8) func readsMisalignedTensors(padding: Int) throws {
    let directory = try TemporaryDirectory()
    let bytes = safetensors(Self.header + String(repeating: " ", count: padding), data: Self.data)
    let file = try SafetensorsFile(try directory.write(bytes, as: "x.safetensors"))
    #expect(try file.tensor("a").floats() == [1, -2])
    #expect(try file.tensor("b").floats() == [1, 2, 3])
  }

  @Test func refusesElementTypesThatTensorsCannotHave() throws {
    let directory = try TemporaryDirectory()
    let bytes = safetensors(#"{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}"#, data: [1, 2])
    let file = try SafetensorsFile(try directory.write(bytes, as: "x.safetensors"))
    let error = weightsError { _ = try file.tensor("a") }
    #expect(error?.description.contains("tensor \"a\" has element type F8_E4M3") == true)
  }

  private static let intMax = String(Int.max)

  /// Every rule of the format, broken once: header, data, and what the error must name.
  private static let broken: [(header: String, dataBytes: Int, names: String)] = [
    ("[]", 0, "does not start with '{'"), (" {}", 0, "does not start with '{'"), ("", 0, "does not start with '{'"),
    ("{}x", 0, "after the document"), ("{\"a\":1}", 0, "\"a\""), ("{}", 1, "cover 0 bytes"),
    ("{\"__metadata__\":1}", 0, "__metadata__"),
    ("{}\0\0", 0, "padded with NUL bytes"), ("{}\0 ", 0, "after the document"),
    (#"{"__metadata__":{"k":1}}"#, 0, "__metadata__.k"),
    (
      #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
      4,
      "duplicate key \"a\""
    ),
    (#"{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 4, "duplicate key \"dtype\""),
    (#"{"a":{"shape":[1],"data_offsets":[0,4]}}"#, 4, "dtype"),
    (#"{"a":{"dtype":7,"shape":[1],"data_offsets":[0,4]}}"#, 4, "dtype"),
    (#"{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}"#, 4, "unknown dtype \"F33\""),
    (#"{"a":{"dtype":"F32","data_offsets":[0,4]}}"#, 4, "shape"),
    (#"{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}"#, 4, "shape"),
    (#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4, "shape"),
    (#"{"a":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}}"#, 4, "shape"),
    (#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#, 4, "rank 17"),
    (#"{"a":{"dtype":"F32","shape":[1]}}"#, 4, "data_offsets"),
    (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}"#, 4, "data_offsets"),
    (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, 4, "data_offsets"),
    (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}"#, 4, "data_offsets"),
    (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"extra":1}}"#, 4, "extra"),
    (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4, "takes 8 bytes"),
    (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 3, "end at 4"),
    (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 5, "cover 4"),
    (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, 8, "hole"),
    (
      #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}"#,
      6, "\"b\""
    ),
    (
      #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#,
      12, "\"b\""
    ),
    (#"{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4]}}"#, 4, "overflows"),
    (#"{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#, 0, "overflows"),
    (#"{"a":{"dtype":"U8","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}}"#, 0, "overflows"),
    (#"{"a":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4]}}"#, 4, "shape"),
    (#"{"a":{"dtype":"U8","shape":[\#(intMax)],"data_offsets":[0,\#(intMax)]}}"#, 4, "end at \(intMax)"),
    (#"{"a":{"dtype":"U8","shape":[\#(intMax)],"data_offsets":[\#(intMax),\#(intMax)]}}"#, 4, "takes \(intMax)"),
    (#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[\#(intMax),\#(intMax)]}}"#, 0, "hole"),
  ]

  @Test(arguments: broken.indices) func namesWhatIsWrong(index: Int) throws {
    let (header, dataBytes, names) = Self.broken[index]
    let directory = try TemporaryDirectory()
    let url = try directory.write(
      safetensors(header, data: [UInt8](repeating: 0, count: dataBytes)), as: "broken.safetensors")
    let error = weightsError { _ = try SafetensorsFile(url) }
    let message = try #require(error).description
    #expect(message.contains("broken.safetensors"))
    #expect(message.contains(names), "\(message)")
  }

  @Test func refusesImpossibleHeaderLengthsAndFiles() throws {
    let directory = try TemporaryDirectory()
    for length: UInt64 in [100_000_001, .max, UInt64(Int.max), 1 << 63] {
      let url = try directory.write(safetensors("{}", length: length), as: "x.safetensors")
      #expect(weightsError { _ = try SafetensorsFile(url) }?.description.contains("the limit is 100000000") == true)
    }
    let short = try directory.write(safetensors("{}", length: 3), as: "short.safetensors")
    #expect(
      weightsError { _ = try SafetensorsFile(short) } == .truncated(file: short.path, expectedBytes: 11, foundBytes: 10)
    )
    #expect(weightsError { _ = try SafetensorsFile(directory.url) }?.description.contains("not a regular file") == true)
    let absent = directory.url.appending(path: "absent.safetensors")
    #expect(weightsError { _ = try SafetensorsFile(absent) }?.description.contains("No such file") == true)
  }

  @Test func everyTruncationIsAnError() throws {
    let directory = try TemporaryDirectory()
    let whole = safetensors(Self.header, data: Self.data)
    for count in 0..<whole.count {
      let url = try directory.write(Array(whole.prefix(count)), as: "x.safetensors")
      #expect(weightsError { _ = try SafetensorsFile(url) } != nil, "cut after \(count) bytes")
    }
  }

  /// A mutated file is refused with a typed error, or is valid, in which case every tensor in it can be read to its
  /// last byte.
  @Test func mutationsNeverCrash() throws {
    var generator = SeededGenerator(state: 1)
    let whole = safetensors(Self.header, data: Self.data)
    var refused = 0
    for _ in 0..<20_000 {
      var bytes = whole
      for _ in 0..<Int.random(in: 1...4, using: &generator) {
        let index = Int.random(in: 0..<bytes.count, using: &generator)
        switch Int.random(in: 0..<4, using: &generator) {
        case 0: bytes[index] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
        case 1: bytes[index] = UInt8.random(in: 0...255, using: &generator)
        case 2: bytes.remove(at: index)
        default: bytes.insert(bytes.randomElement(using: &generator)!, at: index)
        }
      }
      do {
        let length = bytes.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard bytes.count >= 8, length <= UInt64(bytes.count - 8) else { continue }
        let body = Array(bytes.dropFirst(8))
        let header = try SafetensorsHeader(
          json: Array(body.prefix(Int(length))), dataByteCount: body.count - Int(length), file: "x")
        #expect(header.entries.values.reduce(0) { $0 + $1.byteCount } == header.dataByteCount)
        #expect(header.entries.values.allSatisfy { $0.begin >= 0 && $0.begin + $0.byteCount <= header.dataByteCount })
      } catch { refused += 1 }
    }
    #expect(refused > 10_000)
  }

  @Test func mutatedFilesNeverCrash() throws {
    let directory = try TemporaryDirectory()
    var generator = SeededGenerator(state: 2)
    let source = golden.appending(
      path: "tiny/checkpoint/transformer/diffusion_pytorch_model-00006-of-00006.safetensors")
    let whole = Array(try Data(contentsOf: source))
    let headerEnd = 8 + Int(whole[0]) + Int(whole[1]) << 8
    var refused = 0
    for _ in 0..<500 {
      var bytes = whole
      bytes[Int.random(in: 0..<headerEnd, using: &generator)] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      let url = try directory.write(bytes, as: "x.safetensors")
      do {
        let file = try SafetensorsFile(url)
        for name in file.names {
          let sum = try file.withBytes(of: name) { $0.withUnsafeBytes { $0.reduce(0) { $0 &+ Int($1) } } }
          #expect(sum >= 0)
        }
      } catch { refused += 1 }
    }
    #expect(refused > 250 && refused < 500, "\(refused)")
  }
}
