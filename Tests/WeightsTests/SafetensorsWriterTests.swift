import Foundation
import TensorCore
import Testing
import Weights

@Suite struct SafetensorsWriterTests {
  @Test func roundTripsAllElementTypes() throws {
    let directory = try TemporaryDirectory()
    let url = directory.url.appending(path: "x.safetensors")
    let writer = try SafetensorsWriter(url, metadata: ["quote\"\\\n": "π😀\u{1}"], headerCapacity: 4096)
    var generator = SeededGenerator(state: 3)
    var expected: [String: [UInt8]] = [:]
    for (index, dtype) in DType.allCases.enumerated() {
      let shape: Shape = [index, 3]
      let bytes = (0..<(3 * index * dtype.byteWidth)).map { _ in UInt8.random(in: 0...255, using: &generator) }
      let name = "t.\(dtype.rawValue) \"é\""
      expected[name] = bytes
      try bytes.withUnsafeBytes { try writer.append(name, Tensor(copying: $0.bytes, shape: shape, dtype: dtype)) }
      #expect(directory.contents.count == 1 && !directory.contents.contains("x.safetensors"))
    }
    try writer.finish()
    #expect(directory.contents == ["x.safetensors"])
    let file = try SafetensorsFile(url)
    #expect(file.header.metadata == ["quote\"\\\n": "π😀\u{1}"])
    #expect(file.names == expected.keys.sorted())
    for (name, bytes) in expected {
      #expect(try file.withBytes(of: name) { $0.withUnsafeBytes { Array($0) } } == bytes, "\(name)")
    }
  }

  /// The header takes no byte more than its text, rounded to eight, whatever the lengths of names.
  @Test(arguments: 1...16) func writesNamesOfAnyLength(count: Int) throws {
    let directory = try TemporaryDirectory(), url = directory.url.appending(path: "x.safetensors")
    let name = String(repeating: "a", count: count), tensor = Tensor([1], shape: [1])
    for metadata in [[:], ["k": "v"]] {
      try SafetensorsWriter.write([(name, tensor), ("b", tensor)], to: url, metadata: metadata)
      #expect(try SafetensorsFile(url).names == [name, "b"] && SafetensorsFile(url).header.metadata == metadata)
    }
  }

  @Test func writesCompactAlignedFiles() throws {
    let directory = try TemporaryDirectory()
    let url = directory.url.appending(path: "x.safetensors")
    let bytes = Tensor([UInt8](repeating: 7, count: 3), .uint8, shape: [3])
    let floats = Tensor([1, 2.5, -3], shape: [3])
    try SafetensorsWriter.write([("a", bytes), ("b", floats)], to: url)
    let file = try SafetensorsFile(url)
    #expect(file.fileByteCount < 200)
    #expect(file.header.entries["b"]?.begin == 0)
    #expect(try file.tensor("b").floats() == [1, 2.5, -3])
    let first = try Data(contentsOf: url)
    try SafetensorsWriter.write([("b", floats), ("a", bytes)], to: url)
    #expect(try Data(contentsOf: url) == first, "the order of tensors must not change the bytes")
  }

  @Test func anUnfinishedFileNeverAppears() throws {
    let directory = try TemporaryDirectory()
    do {
      let writer = try SafetensorsWriter(directory.url.appending(path: "x.safetensors"))
      try writer.append("a", Tensor([1], shape: [1]))
    }
    #expect(directory.contents.isEmpty)
  }

  @Test func namesMisuse() throws {
    let directory = try TemporaryDirectory()
    let url = directory.url.appending(path: "x.safetensors")
    let writer = try SafetensorsWriter(url, headerCapacity: 128)
    let tensor = Tensor([1], shape: [1])
    try writer.append("a", tensor)
    #expect(weightsError { try writer.append("a", tensor) }?.description.contains("\"a\"") == true)
    #expect(weightsError { try writer.append("__metadata__", tensor) }?.description.contains("__metadata__") == true)
    #expect(
      weightsError { try writer.append(String(repeating: "b", count: 60), tensor) }?.description.contains("128 bytes")
        == true)
    try writer.finish()
    #expect(weightsError { try writer.finish() }?.description.contains("finished twice") == true)
    #expect(weightsError { try writer.append("c", tensor) }?.description.contains("after the end") == true)
    #expect(try SafetensorsFile(url).names == ["a"])
    let nowhere = directory.url.appending(path: "no/such/x.safetensors")
    #expect(weightsError { _ = try SafetensorsWriter(nowhere) }?.description.contains("no/such") == true)
  }

  @Test func takesTensorsFromManyThreads() async throws {
    let directory = try TemporaryDirectory()
    let url = directory.url.appending(path: "x.safetensors")
    let writer = try SafetensorsWriter(url)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for index in 0..<100 { group.addTask { try writer.append("t\(index)", Tensor([Float(index)], shape: [1])) } }
      try await group.waitForAll()
    }
    try writer.finish()
    let file = try SafetensorsFile(url)
    #expect(file.names.count == 100)
    for index in 0..<100 { #expect(try file.tensor("t\(index)").floats() == [Float(index)]) }
  }
}
