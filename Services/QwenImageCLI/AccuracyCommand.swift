import ArgumentParser
import Diffusion
import Foundation
import Kernels
import ModelRegistry

/// `qwen-image accuracy`: what the compute modes cost in accuracy on a checkpoint.
struct AccuracyCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "accuracy", abstract: "Print how far the compute modes are from fp32 on a checkpoint.",
    discussion: """
      Draws one image in fp32 and in every mode, and compares: the prompt's embeddings; the transformer's output at \
      every step from the same inputs; and the last latents. All figures are ‖x − x₃₂‖ / ‖x₃₂‖.
      """)

  @Option(help: "Directory of a checkpoint in diffusers layout; not a quantised one.")
  var model: String

  @OptionGroup var request: RequestOptions

  @Option(parsing: .unconditional, help: "Compute threads.")
  var threads = AvailableProcessors.current.threadCount

  func run() async throws {
    let rows = try await onThread { () throws in
      let directory = try ModelDirectory(URL(filePath: model)), card = try directory.card()
      let imageRequest = ImageRequest(
        card, prompt: request.prompt, negativePrompt: request.sampling.negativePrompt,
        trueCFGScale: request.sampling.trueCfgScale, steps: request.sampling.steps, width: request.sampling.width,
        height: request.sampling.height, seed: request.seed.fixed ?? 0)
      try card.limits.validate(imageRequest)
      return try ModeAccuracy.measure(
        directory, request: imageRequest, precisions: [.bf16, .int8, .q4], pool: ThreadPool(threads: threads))
    }
    try Terminal.print("mode   prompt embeddings   transformer output   last latents")
    for row in rows {
      let numbers = [row.promptEmbeds, row.velocity, row.latents].map { String(format: "%.3e", $0) }
      let mode = row.precision.rawValue.padding(toLength: 4, withPad: " ", startingAt: 0)
      try Terminal.print("\(mode)   \(numbers.joined(separator: "           "))")
    }
  }
}

/// Runs `body` on a thread of its own: compute must not hold a thread of the concurrency pool.
func onThread<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
  try await withCheckedThrowingContinuation { continuation in
    let thread = Thread { continuation.resume(with: Swift.Result(catching: body)) }
    thread.stackSize = 8 << 20
    thread.start()
  }
}
