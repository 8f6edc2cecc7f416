import Diffusion
import Foundation
import Kernels
import QwenImageCLI
import Subprocess
import SystemPackage
import Testing

/// `qwen-image tune`: what follows from rates, and what is measured on this machine.
@Suite(.serialized, .timeLimit(.minutes(5))) struct TuneTests {
  private static let work = DenoisingWork(
    products: [.init(rows: 100, inFeatures: 10, outFeatures: 20, count: 5)],
    attention: [.init(queries: 100, keys: 110, heads: 2, headDim: 8, count: 5)], activationBytes: 7)

  private static func rates(memory: Double) -> MachineRates {
    var rates = MachineRates()
    rates.layers[.int8] = [.init(inFeatures: 10, outFeatures: 20, isRotated: false): 1000]
    rates.attention[.int8] = [.init(keys: 110, count: 2, dim: 8): 500]
    rates.memoryBytesPerSecond = memory
    return rates
  }

  @Test func aStepTakesWhatItsProductsTake() throws {
    // 2 × 100 × 10 × 20 × 5 operations of layers, 4 × 100 × 110 × 2 × 8 × 5 of attention.
    let seconds = (200_000.0 / 1000 + 3_520_000.0 / 500) * (1 + MachineRates.otherWork)
    let rates = Self.rates(memory: 1e6)
    let step = try #require(rates.stepSeconds(Self.work, .int8, isRotated: false, weightBytes: 1000))
    #expect(abs(step - seconds) < 1e-9 * seconds)
    #expect(Self.work.operations == 3_720_000)
  }

  @Test func aStepTakesAtLeastTheReadingOfItsWeights() {
    let rates = Self.rates(memory: 10)
    #expect(rates.stepSeconds(Self.work, .int8, isRotated: false, weightBytes: 1_000_000) == 100_000)
  }

  @Test func whatWasNotMeasuredIsNotEstimated() {
    let rates = Self.rates(memory: 10)
    #expect(rates.stepSeconds(Self.work, .bf16, isRotated: false, weightBytes: 1) == nil)
    #expect(rates.stepSeconds(Self.work, .int8, isRotated: true, weightBytes: 1) == nil)
  }

  private static func mode(_ mode: Precision, _ seconds: Double, streamed: Int?) -> TuneReport.Model.Mode {
    TuneReport.Model.Mode(
      mode: mode.rawValue, stepSeconds: seconds, denoiserBytes: 1, textEncoderBytes: 1, streamedBytes: streamed)
  }

  @Test func theBestModeFitsAndIsFastAndThenExact() {
    let modes = [Self.mode(.fp32, 1, streamed: 0), Self.mode(.bf16, 10, streamed: 0), Self.mode(.int8, 5, streamed: 0)]
    #expect(TuneReport.bestMode(modes) == "int8")
    #expect(TuneReport.bestMode(modes + [Self.mode(.q4, 4.9, streamed: 0)]) == "int8")
    #expect(TuneReport.bestMode([Self.mode(.bf16, 5.2, streamed: 0), Self.mode(.int8, 5, streamed: nil)]) == "bf16")
    let large = [Self.mode(.bf16, 3, streamed: 9), Self.mode(.int8, 2, streamed: 5), Self.mode(.q4, 4, streamed: 0)]
    #expect(TuneReport.bestMode(large) == "q4")
    #expect(TuneReport.bestMode(Array(large.prefix(2))) == "int8")
    #expect(TuneReport.bestMode([]) == "bf16")
  }

  @Test func theFewestThreadsThatAreAsFast() {
    #expect(TuneReport.bestThreads([(1, 50), (2, 98), (4, 100), (8, 97)]) == 2)
    #expect(TuneReport.bestThreads([(1, 50), (2, 90), (4, 100), (8, 40)]) == 4)
    #expect(TuneReport.bestThreads([]) == 1)
    #expect(TuneReport.candidates(1) == [1])
    #expect(TuneReport.candidates(2) == [1, 2])
    #expect(TuneReport.candidates(12) == [1, 2, 4, 6, 8, 12])
  }

  private static func tune(_ arguments: [String]) async throws -> [String: Any] {
    let result = try await CommandLineTool.run(["tune", "--json"] + arguments)
    #expect(result.isSuccess, "\(result)")
    return try #require(JSONSerialization.jsonObject(with: Data(result.output)) as? [String: Any])
  }

  @Test func estimatesThePublishedModels() async throws {
    let report = try await Self.tune(["--seconds", "1"])
    let machine = try #require(report["machine"] as? [String: Any])
    #expect(machine["processors"] as? Int == AvailableProcessors.current.numbers.count)
    #expect(machine["instruction_set"] as? String == InstructionSet.best.rawValue)
    #expect(try #require(machine["memory_nodes"] as? [[String: Any]]).count >= 1)
    #expect(try #require(report["memory_bytes_per_second"] as? Double) > 1e8)
    let models = try #require(report["models"] as? [[String: Any]])
    #expect(models.map { $0["model"] as? String } == ["qwen-image", "qwen-image-2.1"])
    for (model, gigabytes) in zip(models, [(fp32: 54...58, int8: 13...16), (fp32: 28...32, int8: 7...10)]) {
      let modes = try #require(model["modes"] as? [[String: Any]])
      let names = modes.compactMap { $0["mode"] as? String }
      #expect(names == Precision.allCases.map(\.rawValue))
      #expect(modes.allSatisfy { $0["step_seconds"] as? Double ?? 0 > 0.01 })
      func bytes(_ mode: String) throws -> Int {
        try #require(modes.first { $0["mode"] as? String == mode }?["denoiser_bytes"] as? Int) / 1_000_000_000
      }
      let sizes = try ["q4", "int8", "bf16", "fp32"].map(bytes)
      #expect(gigabytes.int8.contains(sizes[1]) && gigabytes.fp32.contains(sizes[3]))
      #expect(sizes == sizes.sorted() && Set(sizes).count == 4)
      #expect(["bf16", "int8", "q4"].contains(model["best_mode"] as? String))
    }
    let recommendation = try #require(report["recommendation"] as? [String: Any])
    #expect(recommendation["mode"] as? String == models[0]["best_mode"] as? String)
    #expect((1...AvailableProcessors.current.threadCount).contains(recommendation["threads"] as? Int ?? 0))
    #expect(recommendation["denoisers"] as? Int ?? 0 >= 1)
    let kernels = try #require(report["kernels"] as? [[String: Any]])
    #expect(kernels.count == 4 * (6 + 2) && kernels.allSatisfy { $0["operations_per_second"] as? Double ?? 0 > 1e8 })
  }

  /// More threads than processors cost little: nothing waits for a thread that has no processor. Threads that wait for
  /// one another without leaving their processor would be a hundred times slower; other tests that run meanwhile make
  /// the ratios uncertain.
  @Test func manyThreadsDoNotFallOff() async throws {
    let report = try await Self.tune(["--seconds", "4", "--threads", "1,2,4,8,16", "--model", CommandLineTool.model])
    let threads = try #require(report["threads"] as? [[String: Any]])
    #expect(threads.compactMap { $0["threads"] as? Int } == [1, 2, 4, 8, 16])
    #expect(threads.compactMap { $0["of_best"] as? Double }.max() == 1)
    for row in threads where row["threads"] as? Int ?? 0 >= AvailableProcessors.current.threadCount {
      #expect(row["of_best"] as? Double ?? 0 > 0.2, "\(row)")
      #expect(row["short_of_best"] as? Double ?? 0 > 0.02, "\(row)")
    }
    #expect((report["models"] as? [[String: Any]])?.count == 1)
  }

  @Test func countsTheProcessorsOfItsAffinity() async throws {
    let number = try #require(AvailableProcessors.current.numbers.last)
    let arguments = ["-c", "\(number)", CommandLineTool.path, "tune", "--json", "--seconds", "1", "--model"]
    let result = try await Subprocess.run(
      .name("taskset"), arguments: Arguments(arguments + [CommandLineTool.model]), output: .string(limit: 1 << 20),
      error: .string(limit: 1 << 16))
    #expect(result.terminationStatus == .exited(0), "\(result)")
    let report = try #require(
      JSONSerialization.jsonObject(with: Data(result.standardOutput.utf8)) as? [String: Any])
    let machine = report["machine"] as? [String: Any], nodes = machine?["memory_nodes"] as? [[String: Any]]
    #expect(machine?["processors"] as? Int == 1 && nodes?.count == 1)
    #expect(nodes?.first?["processors"] as? String == "\(number)")
    #expect((report["recommendation"] as? [String: Any])?["threads"] as? Int == 1)
  }

  @Test func saysItToPeople() async throws {
    let result = try await CommandLineTool.run(
      ["tune", "--seconds", "1", "--threads", "1", "--model", CommandLineTool.model])
    #expect(result.isSuccess, "\(result)")
    for text in ["memory node ", "threads, and rates of the best:", "estimated", "best here", "recommended: "] {
      #expect(result.text.contains(text), "\(result.text)")
    }
  }

  @Test(arguments: [
    ["--seconds", "0.5"], ["--seconds", "nan"], ["--threads", "0"], ["--threads", "1,,2"], ["--threads", "2000"],
    ["--threads", "x"], ["--threads", ""],
  ])
  func refusesWhatItCannotDo(arguments: [String]) async throws {
    let result = try await CommandLineTool.run(["tune"] + arguments)
    #expect(!result.isSuccess && result.errors.contains(arguments[0]), "\(result)")
  }

  @Test func namesACheckpointThatIsNone() async throws {
    let result = try await CommandLineTool.run(["tune", "--model", "/nonexistent"])
    #expect(!result.isSuccess && result.errors.contains("/nonexistent"), "\(result)")
  }
}

/// `compose/memory-nodes.sh`: a denoiser for each memory node.
@Suite struct MemoryNodesScriptTests {
  private static let compose = URL(filePath: CommandLineTool.model).deletingLastPathComponent()
    .deletingLastPathComponent()

  private func run(_ folder: URL) async throws -> (text: String, isSuccess: Bool) {
    let result = try await Subprocess.run(
      .path(FilePath(Self.compose.path + "/memory-nodes.sh")), arguments: [folder.path],
      output: .string(limit: 1 << 16), error: .discarded)
    return (result.standardOutput, result.terminationStatus == .exited(0))
  }

  private func withNodes(_ nodes: [String: String], _ body: (URL) async throws -> Void) async throws {
    try await withFolder { folder in
      for (name, list) in nodes {
        let node = folder.appending(path: name)
        try FileManager.default.createDirectory(at: node, withIntermediateDirectories: true)
        try Data("\(list)\n".utf8).write(to: node.appending(path: "cpulist"))
      }
      try await body(folder)
    }
  }

  @Test func printsTheExample() async throws {
    let example = try String(contentsOf: Self.compose.appending(path: "memory-nodes.yaml"), encoding: .utf8)
    try await withNodes(["node0": "0-7,16-23", "node1": "8-15,24-31"]) {
      let result = try await run($0)
      #expect(result.isSuccess && result.text == example)
    }
  }

  @Test func leavesOutNodesWithoutProcessors() async throws {
    try await withNodes(["node0": "", "node2": "0-3", "node10": "4-7"]) {
      let result = try await run($0)
      let services = result.text.split(separator: "\n").filter { $0.hasPrefix("  denoiser") }
      #expect(result.isSuccess && services == ["  denoiser:", "  denoiser-10:"])
    }
    try await withNodes([:]) { folder in
      let result = try await run(folder)
      #expect(!result.isSuccess)
    }
  }
}
