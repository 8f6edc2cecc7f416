import Foundation
import Kernels
import TensorCore
import Testing
import Weights

/// Roughly normal numbers.
func randomTensor(_ shape: Shape, seed: UInt64) -> Tensor {
  RandomWeights(seed: seed, pool: testPool).rows(0..<shape[0], of: "w", shape)
}

let testPool = ThreadPool(threads: 2)

@Suite struct PackedWeightsTests {
  private let weight = randomTensor([50, 77], seed: 1)

  /// A directory with one layer `a.weight` packed for `precision`, and a plain tensor `norm`.
  private func packed(_ precision: Precision, in directory: URL) throws -> Linear {
    let layer = Compute(precision: precision, pool: testPool).prepareLinear(weight: weight)
    let writer = ShardedWriter(directory, baseName: "model", packedFor: precision, tensorsMax: 2)
    try writer.append("norm", Tensor([1, 2, 3], shape: [3]))
    try writer.append(weight: "a.weight", of: layer)
    _ = try writer.finish()
    return layer
  }

  @Test(arguments: [Precision.bf16, .int8, .q4]) func layersComeBackBitForBit(_ precision: Precision) throws {
    let directory = try TemporaryDirectory(), compute = Compute(precision: precision, pool: testPool)
    let layer = try packed(precision, in: directory.url)
    let weights = try ComponentWeights(directory: directory.url, baseName: "model")
    #expect(weights.packedPrecision == precision && weights.isPacked("a.weight") && !weights.isPacked("norm"))
    #expect(try weights.tensor("norm", [3]).floats() == [1, 2, 3])
    let bias = Tensor((0..<50).map(Float.init), shape: [50])
    let found = try #require(try weights.packedLayer("a.weight", output: 50, input: 77, bias: bias, compute: compute))
    #expect(
      found.precision == precision
        && found.parts?.keys.sorted() == (["bias"] + (layer.parts?.keys.map { $0 } ?? [])).sorted())
    #expect(compute.weight(of: found).floats() == compute.weight(of: layer).floats())
    #expect(try weights.packedLayer("norm", output: 1, input: 3, bias: nil, compute: compute) == nil)
    try weights.requireOnly(["norm", "a.weight"])
    #expect(weightsError { try weights.requireOnly(["norm"]) }?.description.contains("a.weight") == true)
    weights.releasePages(of: "a.weight")
    #expect(compute.weight(of: found).floats() == compute.weight(of: layer).floats())
  }

  @Test func wrongShapesModesAndUsesAreNamed() throws {
    let directory = try TemporaryDirectory()
    _ = try packed(.q4, in: directory.url)
    let weights = try ComponentWeights(directory: directory.url, baseName: "model")
    func layer(_ output: Int, _ input: Int, _ mode: Precision) -> WeightsError? {
      weightsError {
        _ = try weights.packedLayer(
          "a.weight", output: output, input: input, bias: nil, compute: Compute(precision: mode, pool: testPool))
      }
    }
    #expect(
      layer(77, 50, .q4)
        == .misshapenTensor(file: weights.files[0].path, tensor: "a.weight", expected: [77, 50], found: [50, 77]))
    #expect(layer(50, 77, .int8) == .packedForAnotherMode(component: weights.directory, packed: "q4", asked: "int8"))
    #expect(layer(50, 77, .bf16)?.description.contains("is packed for q4 and cannot run in bf16") == true)
    #expect(
      weightsError { _ = try weights.tensor("a.weight", [50, 77]) }?.description.contains("packed as q4 [50, 77]")
        == true)
  }

  /// Sums over more inputs might overflow 32 bits.
  @Test(arguments: [Precision.int8, .q4]) func layersTooWideForIntegersStayInBF16(_ precision: Precision) {
    let compute = Compute(precision: precision, pool: testPool)
    for (inputs, kept) in [(1 << 16, precision), (1 << 16 + 1, .bf16)] {
      let weight = Tensor([Float](repeating: 0.5, count: inputs), shape: [1, inputs])
      let (layer, report) = compute.prepareLinear("a.weight", weight: weight, precision: precision, rotates: false)
      #expect(layer.precision == kept && report.kept == kept.rawValue && report.asked == precision.rawValue)
    }
  }

  /// Each changes the header of a file that is right; the message must name the file or tensor and what is wrong.
  @Test(
    arguments: [
      ("\"packing.version\":\"1\"", "\"packing.version\":\"2\"", "packing.version is \"2\", this program reads 1"),
      ("\"packing.layout\":\"2\"", "\"packing.layout\":\"7\"", "packing.layout is \"7\""),
      // 4 bits as they were packed before version 2 of their layout.
      (
        "\"packing.layout\":\"2\"", "\"packing.layout\":\"1\"",
        "packing.layout is \"1\", this program reads 2 of q4; make it again from the original checkpoint"
      ),
      ("\"packing.precision\":\"q4\"", "\"packing.precision\":\"q9\"", "packing.precision is \"q9\", expected one of"),
      ("\"q4 [50, 77]\"", "\"q5 [50, 77]\"", "\"q5 [50, 77]\" does not say how it is packed"),
      ("\"q4 [50, 77]\"", "\"q4 [-5, 77]\"", "does not say how it is packed"),
      ("\"q4 [50, 77]\"", "\"q4 [9999999999999, 9]\"", "does not say how it is packed"),
      ("\"q4 [50, 77]\"", "\"q4 [50, 777]\"", "has shape [50, 777], expected [50, 77]"),
      ("\"q4 [50, 77]\"", "\"int8 [50, 77]\"", "tensor panels is U8"),
      ("\"packed:a.weight\"", "\"packed:b.weight\"", "is said to be packed, but the file has no b.weight.panels"),
      ("\"a.weight.panels\":{\"dtype\":\"U8\"", "\"a.weight.panels\":{\"dtype\":\"I8\"", "tensor panels is I8"),
    ])
  func hostileHeadersAreRefused(_ original: String, _ damaged: String, _ message: String) throws {
    let directory = try TemporaryDirectory()
    _ = try packed(.q4, in: directory.url)
    let file = directory.url.appending(path: "model.safetensors")
    var bytes = try Data(contentsOf: file)
    let length = bytes[0..<8].reversed().reduce(0) { $0 << 8 | Int($1) }
    var header = try #require(String(data: bytes[8..<8 + length], encoding: .utf8))
    try #require(header.contains(original))
    header = header.replacing(original, with: damaged)
    while header.utf8.count > length { header.removeLast() }
    while header.utf8.count < length { header += " " }
    bytes.replaceSubrange(8..<8 + length, with: Data(header.utf8))
    try bytes.write(to: file)
    let error = weightsError {
      let weights = try ComponentWeights(directory: directory.url, baseName: "model")
      _ = try weights.packedLayer(
        "a.weight", output: 50, input: 77, bias: nil, compute: Compute(precision: .q4, pool: testPool))
    }
    let text = try #require(error).description
    #expect(text.contains(message) && text.contains(directory.url.path), "\(text)")
  }

  @Test func shardsAreCutNamedAndIndexed() throws {
    let directory = try TemporaryDirectory(),
      writer = ShardedWriter(directory.url, baseName: "model", tensorsMax: 9, shardBytesMax: 1000)
    for index in 0..<5 {
      try writer.append("t\(index)", Tensor([Float](repeating: Float(index), count: 100), shape: [10, 10]))
    }
    #expect(writer.byteCount == 2000)
    let files = try writer.finish()
    #expect(
      files.map(\.name) == [
        "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors",
      ])
    #expect(directory.contents == files.map(\.name) + ["model.safetensors.index.json"])
    let weights = try ComponentWeights(directory: directory.url, baseName: "model")
    for (file, written) in zip(weights.files, files) {
      #expect(
        file.fileByteCount == written.summary.fileByteCount && file.headerChecksum == written.summary.headerChecksum)
      #expect(file.dataChecksum() == written.summary.dataChecksum)
    }
    #expect(try weights.tensor("t4", [10, 10]).floats() == [Float](repeating: 4, count: 100))
    let index = try String(contentsOf: directory.url.appending(path: "model.safetensors.index.json"), encoding: .utf8)
    #expect(index.contains("\"total_size\" : 2000"))
  }

  @Test func layersThatQuantisingHarmsStayInBF16() throws {
    let directory = try TemporaryDirectory(), source = try TemporaryDirectory()
    // One far larger weight per row leaves the others few levels.
    let ordinary = randomTensor([50, 1024], seed: 3)
    let outliers = Tensor(ordinary.floats().enumerated().map { $0 % 1024 == 0 ? 1 : $1 }, shape: [50, 1024])
    try SafetensorsWriter.write(
      [("a", ordinary), ("b", outliers), ("c", ordinary)], to: source.url.appending(path: "model.safetensors"))
    let plan = [
      PlannedTensor("a", [50, 1024], .packed(.int8, rotates: false)),
      PlannedTensor("b", [50, 1024], .packed(.int8, rotates: false)),
      PlannedTensor("c", [50, 1024], .copied),
    ]
    for packsKept in [false, true] {
      let name = "\(packsKept)", writer = ShardedWriter(directory.url, baseName: name, packedFor: .int8, tensorsMax: 3)
      let packer = WeightPacker(compute: Compute(precision: .bf16, pool: testPool), packsKeptLayers: packsKept)
      var seen: [Int] = []
      let reports = try packer.write(
        plan, from: ComponentWeights(directory: source.url, baseName: "model"), to: writer,
        progress: { seen.append($0) })
      _ = try writer.finish()
      #expect(seen.last == 3 * 51_200 && seen == seen.sorted())
      #expect(reports.map(\.name) == ["a", "b"] && reports.map(\.kept) == ["int8", "bf16"])
      let errors = reports.compactMap(\.relativeError)
      #expect(errors.count == 2 && errors[0] < 0.01 && errors[1] > PrecisionLimits.standard.int8)
      let weights = try ComponentWeights(directory: directory.url, baseName: name)
      #expect(weights.isPacked("a") && weights.isPacked("b") == packsKept && !weights.isPacked("c"))
      if !packsKept { #expect(try weights.tensor("b", [50, 1024]).floats() == outliers.floats()) }
      #expect(try weights.tensor("c", [50, 1024]).dtype == .bf16)
    }
  }

  @Test func randomWeightsDependOnNothingButTheirPlace() {
    let whole = RandomWeights(seed: 3, pool: testPool).rows(0..<300, of: "a.weight", [300, 400]).floats()
    let part = RandomWeights(seed: 3, pool: ThreadPool(threads: 1)).rows(100..<201, of: "a.weight", [300, 400]).floats()
    #expect(Array(whole[40_000..<80_400]) == part)
    #expect(whole != RandomWeights(seed: 4, pool: testPool).rows(0..<300, of: "a.weight", [300, 400]).floats())
    #expect(whole != RandomWeights(seed: 3, pool: testPool).rows(0..<300, of: "b.weight", [300, 400]).floats())
    let variance = whole.reduce(0) { $0 + Double($1) * Double($1) } / Double(whole.count)
    #expect(abs(variance * 400 - 1) < 0.02 && abs(whole.reduce(0, +) / 120_000) < 1e-3)
    #expect(RandomWeights(seed: 3, pool: testPool).rows(0..<3, of: "norm1.weight", [3]).floats() == [1, 1, 1])
  }

  #if os(Linux)
    @Test func releasedPagesLeaveMemory() throws {
      let directory = try TemporaryDirectory(), file = directory.url.appending(path: "model.safetensors")
      try SafetensorsWriter.write([("a", Tensor.zeros([2048, 1024]))], to: file)
      let weights = try ComponentWeights(directory: directory.url, baseName: "model")
      let tensor = try weights.tensor("a", [2048, 1024])
      #expect(tensor.floats().allSatisfy { $0 == 0 })
      let before = try residentBytes(of: file)
      weights.releasePages(of: "a")
      let after = try residentBytes(of: file)
      #expect(before >= 8 << 20 && after <= 64 << 10, "\(before) bytes before, \(after) after")
      #expect(tensor.floats().count == 2048 * 1024)
    }

    /// Resident bytes of this process's mapping of `file`.
    private func residentBytes(of file: URL) throws -> Int {
      // Read to the end: such files have no size, and reading them by their size gives the first few lines.
      let maps = try #require(try FileHandle(forReadingFrom: URL(filePath: "/proc/self/smaps")).readToEnd())
      let lines = String(decoding: maps, as: UTF8.self).split(separator: "\n")
      guard let start = lines.firstIndex(where: { $0.contains(file.path) }) else { return 0 }
      let line = lines[start...].first { $0.hasPrefix("Rss:") }
      return line.flatMap { Int($0.split(separator: " ")[1]) }.map { $0 << 10 } ?? 0
    }
  #endif
}
