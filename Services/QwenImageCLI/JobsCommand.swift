import ArgumentParser
import Foundation
import ImageCodec

/// `qwen-image jobs`: images that are asked for now and fetched later.
struct JobsCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "jobs", abstract: "Submit images, follow them, and fetch them later.",
    discussion: "A job outlives this command, its connection, and restarts of the gateway.",
    subcommands: [Submit.self, List.self, Show.self, Watch.self, Fetch.self, Cancel.self])

  struct Submit: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Submit a job and print its name.")

    @OptionGroup var gateway: GatewayOptions
    @OptionGroup var request: RequestOptions
    @OptionGroup var enhancement: EnhancementOptions
    @OptionGroup var model: ModelChoiceOptions
    @OptionGroup var output: OutputOptions

    @Option(parsing: .unconditional, help: "Images to make; image i has the seed SEED + i.")
    var n: Int?

    @OptionGroup var fields: JobFieldOptions

    @Option(help: "Idempotency key: the same key and request again give the same job.")
    var key: String?

    @Flag(help: "Wait for the job and write its first image to --output.")
    var wait = false

    @OptionGroup var previews: PreviewOptions
    @OptionGroup var json: JSONOption

    func validate() throws { try output.check(request.sampling) }

    func run() async throws {
      let destination = output.destination, start = ContinuousClock.now
      if wait { try destination.check() }
      try await gateway.withClient { client in
        var body = try await client.completed(request.body(output.encoding, model: model))
        (body.stream, body.n) = (nil, n)
        fields.add(to: &body)
        body.enhancePrompt = enhancement.field
        let job = try await client.submit(body, key: key)
        // Where the image goes there, nothing else does.
        if wait && destination.isStandardOutput {
          Terminal.note(job.id)
        } else if json.json {
          try Terminal.printJSON(try await client.jobText(job.id))
        } else {
          try Terminal.print(job.id)
        }
        if request.seed == .random, let first = job.images.first { Terminal.note("seed \(first.seed)") }
        Terminal.note(prompt: job.revisedPrompt)
        guard wait else { return }
        let ended = try await JobsCommand.follow(job.id, client, previews.preview)
        let image = [UInt8](try await client.image(of: job.id, index: 0, layer: nil))
        let report = ResultReport(ended, seconds: (ContinuousClock.now - start) / .seconds(1))
        try destination.write([image], json.json && !destination.isStandardOutput ? report : nil)
      }
    }
  }

  struct List: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "List jobs, the newest first.")

    @OptionGroup var gateway: GatewayOptions

    @Option(parsing: .unconditional, help: "How many, at most 100.")
    var limit = 20

    @Option(help: "Begin after this job.")
    var after: String?

    @OptionGroup var json: JSONOption

    func run() async throws {
      try await gateway.withClient { client in
        if json.json { return try Terminal.printJSON(try await client.jobsText(limit: limit, after: after)) }
        let page = try await client.jobs(limit: limit, after: after)
        for job in page.data {
          let progress = "\(job.step)/\(job.totalSteps)"
          // A character may have any number of scalars, a prompt any number of lines: both end somewhere.
          let prompt = String(job.prompt.unicodeScalars.prefix(200)).prefix(50)
          let columns = [job.id, job.status.padded(to: 9), progress.padded(to: 9), job.size, Terminal.escaped(prompt)]
          try Terminal.print(columns.joined(separator: "  "))
        }
        if page.hasMore, let last = page.data.last { try Terminal.print("more: --after \(last.id)") }
      }
    }
  }

  struct Show: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Print everything about a job, as JSON.")

    @OptionGroup var gateway: GatewayOptions
    @Argument(help: "The job.") var job: String

    func run() async throws {
      try await gateway.withClient { try Terminal.printJSON(try await $0.jobText(job)) }
    }
  }

  struct Watch: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Show a job's progress until it ends; Ctrl-C leaves it alone.")

    @OptionGroup var gateway: GatewayOptions
    @OptionGroup var previews: PreviewOptions
    @OptionGroup var json: JSONOption
    @Argument(help: "The job.") var job: String

    func run() async throws {
      try await gateway.withClient { client in
        let ended = try await JobsCommand.follow(job, client, previews.preview)
        if json.json { return try Terminal.printJSON(try await client.jobText(ended.id)) }
        try Terminal.print("succeeded")
      }
    }
  }

  struct Fetch: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Write a finished image to a file.")

    @OptionGroup var gateway: GatewayOptions
    @Argument(help: "The job.") var job: String

    @Option(parsing: .unconditional, help: "Which of its images, from 0.")
    var index = 0

    @Option(parsing: .unconditional, help: "Which of the image's layers, from 0 at the bottom, if it has some.")
    var layer: Int?

    @Option(
      name: [.short, .long],
      help: "Where to write the image, whose format is the job's; - is standard output. Default: image.png and so on.")
    var output: String?

    func run() async throws {
      let destination = ImageDestination(output, ImageFileFormat.allCases)
      try destination.check()
      let image = try await gateway.withClient { try await $0.image(of: job, index: index, layer: layer) }
      try destination.write([UInt8](image))
    }
  }

  struct Cancel: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "End a job; the cluster stops working on it at the next step.")

    @OptionGroup var gateway: GatewayOptions
    @OptionGroup var json: JSONOption
    @Argument(help: "The job.") var job: String

    func run() async throws {
      try await gateway.withClient { client in
        let cancelled = try await client.cancel(job)
        if json.json { return try Terminal.printJSON(try await client.jobText(cancelled.id)) }
        try Terminal.print(cancelled.status)
      }
    }
  }

  /// Shows progress until the job ends; anything but success is an error.
  @discardableResult
  static func follow(
    _ id: String, _ client: GatewayClient, _ previews: PreviewStyle = .off
  ) async throws -> GatewayClient.Job {
    var progress = ProgressBar(previews: previews)
    defer { progress.finish() }
    let job = try await client.watch(id, withPreviews: progress.showsPreviews) { job, preview in
      if let preview { progress.show(preview) }
      if let position = job.queuePosition, job.status == "queued" {
        progress.show("queued, position \(position)")
      } else {
        progress.show(job.status, completed: job.step, total: job.totalSteps, secondsLeft: job.secondsLeft)
      }
    }
    progress.finish()
    guard job.status == "succeeded" else {
      let reason = job.images.compactMap { $0.error?.message.prefix(2000) }.first.map { ": \($0)" }
      let status = job.status == "cancelled" ? "was cancelled" : "has \(job.status)"
      throw GatewayClientError.failed(message: "job \(id) \(status)\(reason ?? "; see `jobs show`")")
    }
    return job
  }
}

extension String {
  func padded(to width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }
}
