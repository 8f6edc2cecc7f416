import ArgumentParser
import Foundation

/// `qwen-image generate`: through a cluster's gateway.
struct GenerateCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "generate", abstract: "Draw an image through a cluster.",
    discussion: "Ctrl-C cancels the request; the cluster stops working on it at the next step.")

  @OptionGroup var gateway: GatewayOptions

  @OptionGroup var request: RequestOptions

  @OptionGroup var enhancement: EnhancementOptions

  @OptionGroup var model: ModelChoiceOptions

  @OptionGroup var fields: JobFieldOptions

  @OptionGroup var output: OutputOptions

  @OptionGroup var previews: PreviewOptions

  @OptionGroup var report: ResultReportOptions

  func validate() throws {
    try output.check(request.sampling)
    try report.check(with: output)
  }

  func run() async throws {
    try output.destination.check()
    let work = Task { try await gateway.withClient { try await draw($0) } }
    let interruption = Interruption { work.cancel() }
    do {
      try await work.value
    } catch {
      if interruption.isInterrupted { throw ExitCode(Interruption.exitStatus) }
      throw error
    }
  }

  private func draw(_ client: GatewayClient) async throws {
    let start = ContinuousClock.now
    var progress = ProgressBar(previews: previews.preview)
    defer { progress.finish() }
    progress.show("connecting to \(client.address)")
    var body = try await client.completed(request.body(output.encoding, model: model))
    body.enhancePrompt = enhancement.field
    fields.add(to: &body)
    if progress.showsPreviews { body.partialImages = 3 }
    for try await event in client.generate(body) {
      switch event {
      case .preview(let image): progress.show(image)
      case .progress(let update):
        show(update, &progress)
      case .completed(let result):
        progress.finish()
        try write(result, seconds: (ContinuousClock.now - start) / .seconds(1))
        return
      }
    }
    throw GatewayClientError.incomplete
  }

  private func write(_ result: GatewayClient.Completed, seconds: Double) throws {
    if !report.json {
      if request.seed == .random, let seed = result.seed { Terminal.note("seed \(seed)") }
      Terminal.note(prompt: result.revisedPrompt)
    }
    let own = ResultReport(
      file: "", seed: result.seed ?? request.seed.fixed, size: result.size, job: result.jobId,
      revisedPrompt: result.revisedPrompt, seconds: seconds)
    try output.destination.write([[UInt8](result.b64Json)], report.json ? own : nil)
  }

  private func show(_ update: GatewayClient.Progress, _ progress: inout ProgressBar) {
    switch (update.stage, update.queuePosition) {
    case (_, let position?): progress.show("queued, position \(position)")
    case ("text-encoder", _): progress.show("encoding")
    case ("denoiser", _):
      progress.show("denoising", completed: update.step, total: update.steps, secondsLeft: update.secondsLeft)
    case ("vae-decoder", _): progress.show("decoding")
    default: progress.show(update.stage)
    }
  }
}
