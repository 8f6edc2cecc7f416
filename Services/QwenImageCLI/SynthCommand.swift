import ArgumentParser
import Diffusion
import Foundation
import Kernels
import ModelRegistry

/// `qwen-image synth`: a checkpoint with random weights.
struct SynthCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "synth",
    abstract: "Write a checkpoint with random weights, to measure speed and memory without a download.",
    discussion: """
      The same seed gives the same files. The directory appears when it is complete; Ctrl-C leaves nothing behind. The \
      published sizes take \
      58 GB in bf16 (55 GB packed), 29 GB in int8 and 20 GB in q4; those for editing and for layers take as much, and \
      have the configuration of their release.
      """)

  @Argument(help: "The directory to write; must not exist or be empty.")
  var directory: String

  @Option(
    help: """
      Sizes: \(ModelFamilies.standard.syntheticNames.joined(separator: ", ")), \
      or a checkpoint directory whose configuration and tokenizer are taken.
      """)
  var config = "qwen-image"

  @Option(parsing: .unconditional, help: "Seed of the weights, from 0.")
  var seed: UInt64 = 0

  @Option(help: "bf16 as published, or quantised: int8, q4.")
  var precision = PrecisionChoice.bf16

  @Flag(
    name: [.long, .customLong("laid-out")],
    help: "In bf16 too, pack the weights for the kernels, as quantize does, instead of as published.")
  var packed = false

  @Option(help: "A tokenizer directory to copy; otherwise one is made that knows the prompt template and bytes.")
  var tokenizer: String?

  @Option(parsing: .unconditional, help: "Compute threads.")
  var threads = AvailableProcessors.current.threadCount

  func validate() throws {
    guard [.bf16, .int8, .q4].contains(precision) else { throw ValidationError("--precision must be bf16, int8 or q4") }
  }

  func run() async throws {
    let configuration = ModelFamilies.standard.synthetic(config) ?? .directory(URL(filePath: config))
    if case .directory(let url) = configuration,
      !FileManager.default.fileExists(atPath: url.appending(path: "model_index.json").path)
    {
      let names = ModelFamilies.standard.syntheticNames.joined(separator: ", ")
      throw OutputError(name: "--config \(config)", reason: "it is neither a checkpoint directory nor one of \(names)")
    }
    let destination = try OutputDirectory.forNewDirectory(directory)
    try await writingCheckpoint("writing \(directory)") { progress in
      try SyntheticCheckpoint.write(
        configuration, seed: seed, precision: Precision(rawValue: precision.rawValue) ?? .bf16,
        isPacked: packed, tokenizer: tokenizer.map { URL(filePath: $0) }, families: .standard, to: destination,
        pool: ThreadPool(threads: threads), progress: progress)
    }
  }
}

/// Runs `body` on a thread of its own, with a progress bar; Ctrl-C makes the next report of progress throw.
func writingCheckpoint<Result: Sendable>(
  _ title: String, _ body: @escaping @Sendable (_ progress: (Int, Int) throws -> Void) throws -> Result
) async throws -> Result {
  let interruption = Interruption()
  do {
    return try await onThread {
      var bar = ProgressBar()
      defer { bar.finish() }
      let start = ContinuousClock.now
      var lastShown = start
      return try body { done, total in
        guard !interruption.isInterrupted else { throw PipelineError.cancelled }
        let now = ContinuousClock.now, seconds = (now - start) / .seconds(1)
        guard done == total || now - lastShown > .milliseconds(200) else { return }
        lastShown = now
        let left = done > 0 ? seconds / Double(done) * Double(total - done) : nil
        bar.show(title, percent: 100 * done / max(total, 1), secondsLeft: left)
      }
    }
  } catch PipelineError.cancelled {
    throw ExitCode(Interruption.exitStatus)
  }
}
