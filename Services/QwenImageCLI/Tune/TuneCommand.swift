import ArgumentParser
import Diffusion
import Foundation
import ModelRegistry

/// `qwen-image tune`: what this machine can do, and which settings suit it.
struct TuneCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tune", abstract: "Measure this machine, and print the mode, threads and denoisers that suit it.",
    discussion: """
      Measures the products of the networks' layers and their attention in every mode, how threads scale, and how fast \
      memory is read. Seconds per step and bytes of memory are estimated from that and from the models' sizes; no \
      checkpoint is needed. Processors and memory are those that this process may use: run it where the denoiser will \
      run, in the same container, and while nothing else does.
      """)

  @Option(
    name: .long, parsing: .unconditionalSingleValue,
    help: "A checkpoint to estimate, up to 16 times. Default: Qwen-Image and Qwen-Image-2.1.")
  var model: [String] = []

  @Option(
    parsing: .unconditional,
    help: "Numbers of threads to try, separated by commas, from 1 to 1024. Default: up to one per processor.")
  var threads: String?

  @Option(parsing: .unconditional, help: "About how long to measure, in seconds, from 1 to 3600.")
  var seconds = 60.0

  @OptionGroup var json: JSONOption

  private static let modelsMax = 16
  private static let threadCountsMax = 32

  func validate() throws {
    guard (1...3600).contains(seconds) else {
      throw ValidationError("--seconds is \(seconds); it must be from 1 to 3600")
    }
    guard model.count <= Self.modelsMax else {
      throw ValidationError("--model is given \(model.count) times; the limit is \(Self.modelsMax)")
    }
    _ = try threadCounts()
  }

  private func threadCounts() throws -> [Int]? {
    guard let threads else { return nil }
    let counts = threads.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) ?? 0 }
    guard counts.count <= Self.threadCountsMax, counts.allSatisfy({ (1...1024).contains($0) }) else {
      throw ValidationError(
        "--threads is \(threads.prefix(80)); it must be up to \(Self.threadCountsMax) numbers from 1 to 1024, "
          + "separated by commas")
    }
    return Set(counts).sorted()
  }

  func run() async throws {
    let counts = try threadCounts()
    let report = try await onThread {
      let models = try candidates()
      var bar = ProgressBar()
      defer { bar.finish() }
      return try Tuning(models: models, threadCounts: counts, seconds: seconds).report { done, total in
        bar.show("measuring", completed: done, total: total, secondsLeft: nil)
      }
    }
    if json.json { return try Terminal.printJSON(report, isPretty: true) }
    for line in report.lines { try Terminal.print(line) }
  }

  /// The models to estimate, with their names.
  private func candidates() throws -> [(name: String, model: ModelDirectory)] {
    guard model.isEmpty else {
      return try model.map { path in
        let directory = try ModelDirectory(URL(filePath: path))
        return (try directory.card().model.id, directory)
      }
    }
    let folder = FileManager.default.temporaryDirectory.appending(path: "qwen-image-tune-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: folder) }
    return try ModelFamilies.standard.publishedModels(in: folder)
  }
}
