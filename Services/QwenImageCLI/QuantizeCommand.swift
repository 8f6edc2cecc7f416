import ArgumentParser
import Diffusion
import Foundation
import Kernels
import ModelRegistry
import Weights

/// `qwen-image quantize`: a published checkpoint in few bits, or in bf16, with packed weights.
struct QuantizeCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "quantize",
    abstract:
      "Write a checkpoint in 8 or 4 bits, or in bf16, with packed weights: it loads at once, and processes share it.",
    discussion: """
      Prints what the quantisation changed in the weights, ‖W′ − W‖ / ‖W‖, by kind of layer; quantisation.json in the \
      new directory has it for every layer. In bf16 nothing changes; what is spared is the cache of packed weights \
      beside the original. The directory appears when it is complete; Ctrl-C leaves nothing behind.
      """)

  @Argument(help: "The checkpoint, in diffusers layout or with a model.json.")
  var source: String

  @Argument(help: "The directory to write; must not exist or be empty.")
  var destination: String

  @Option(help: "int8, q4 or bf16.")
  var precision = PrecisionChoice.int8

  @Option(parsing: .unconditional, help: "Compute threads.")
  var threads = AvailableProcessors.current.threadCount

  func validate() throws {
    guard [.int8, .q4, .bf16].contains(precision) else { throw ValidationError("--precision must be int8, q4 or bf16") }
  }

  func run() async throws {
    let directory = try OutputDirectory.forNewDirectory(destination)
    let report = try await writingCheckpoint("quantising \(source)") { progress in
      try QuantisedCheckpoint.write(
        ModelDirectory(URL(filePath: source)), precision: Precision(rawValue: precision.rawValue) ?? .int8,
        to: directory, pool: ThreadPool(threads: threads), progress: progress)
    }
    for component in report.components { try printTable(component) }
    try Terminal.print(destination)
  }

  private func printTable(_ component: QuantisedCheckpoint.Report.Component) throws {
    let (before, after) = (component.originalByteCount / 1_000_000, component.byteCount / 1_000_000)
    try Terminal.print("\(component.name): \(before) MB → \(after) MB")
    let columns = [("layers", 34), ("number", 8), ("in bf16", 9), ("median", 10)].map { padded($0, $1) }
    try Terminal.print("  \(columns.joined())greatest error")
    let kinds = Dictionary(grouping: component.layers) {
      $0.name.split(separator: ".").filter { Int($0) == nil }.joined(separator: ".")
    }
    for (kind, layers) in kinds.sorted(by: { $0.key < $1.key }) {
      let errors = layers.compactMap(\.relativeError).sorted(), kept = layers.filter { $0.kept != $0.asked }.count
      let name = kind.replacingOccurrences(of: "transformer_blocks.", with: "").replacingOccurrences(
        of: "model.layers.", with: "")
      let (median, greatest) = (errors.isEmpty ? nil : errors[errors.count / 2], errors.last)
      try Terminal.print(
        "  \(padded(name, 34))\(padded("\(layers.count)", 8))\(padded("\(kept)", 9))\(padded(percent(median), 10))"
          + percent(greatest)
      )
    }
  }

  private func percent(_ error: Double?) -> String { error.map { String(format: "%.3f %%", 100 * $0) } ?? "none" }

  private func padded(_ text: String, _ width: Int) -> String {
    text.padding(toLength: width, withPad: " ", startingAt: 0)
  }
}
