import ArgumentParser
import Foundation
import ImageCodec

/// `qwen-image bench`: how fast a cluster is, as its clients see it.
struct BenchCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench", abstract: "Measure a running cluster through its gateway.",
    discussion: """
      Sends requests for one image each, so many at a time, and says what they took: images per second; the latency \
      from the request to the image; the queue, from the request to its first denoising step; and a step. Seeds \
      follow one another; prompts take turns, and after the first time the gateway has them encoded. Percentiles \
      are values that were measured.

      Exits with 1 when a request has failed. Ctrl-C ends the requests and reports those that were done.
      """)

  @OptionGroup var gateway: GatewayOptions

  @Option(name: [.customShort("n"), .long], parsing: .unconditional, help: "Requests that are measured, to 100000.")
  var requests = 20

  @Option(name: [.short, .long], parsing: .unconditional, help: "Requests at a time, from 1 to 256.")
  var concurrency = 1

  @Option(parsing: .unconditional, help: "Requests before them, at the same concurrency, to 1000.")
  var warmUp = 1

  @Option(
    name: [.short, .long], parsing: .unconditionalSingleValue,
    help: "What to draw. Repeat it for several, which take turns. Default: a blue star.")
  var prompt: [String] = []

  @OptionGroup var sampling: SamplingOptions

  @OptionGroup var model: ModelChoiceOptions

  @Flag(help: "Print one JSON object, with times in seconds.")
  var json = false

  func validate() throws {
    for (name, value, range) in [
      ("--requests", requests, 1...100_000), ("--concurrency", concurrency, 1...256), ("--warm-up", warmUp, 0...1000),
    ] where !range.contains(value) {
      throw ValidationError("\(name) is \(value); it must be from \(range.lowerBound) to \(range.upperBound)")
    }
  }

  func run() async throws {
    let measurements = Measurements()
    let work = Task {
      try await gateway.withClient(maxConnections: concurrency) { client in
        let body = try await client.completed(body)
        let start = sampling.seed.fixed ?? 0
        try await send(warmUp, body, from: start, client, to: Measurements())
        await measurements.begin()
        try await send(requests, body, from: start + UInt64(warmUp), client, to: measurements)
      }
    }
    let interruption = Interruption { work.cancel() }
    do { try await work.value } catch {
      guard interruption.isInterrupted else { throw error }
    }
    let report = await measurements.report(concurrency: concurrency, warmUp: warmUp)
    if report.requests > 0 || !interruption.isInterrupted { try show(report) }
    if interruption.isInterrupted { throw ExitCode(Interruption.exitStatus) }
    if report.failed > 0 { throw ExitCode.failure }
  }

  private func show(_ report: BenchReport) throws {
    guard json else {
      for line in report.lines { try Terminal.print(line) }
      return
    }
    try Terminal.printJSON(report, isPretty: true)
  }

  /// The request, but for its prompt and its seed.
  private var body: GatewayClient.Body {
    var options = RequestOptions()
    (options.prompt, options.sampling) = ("", sampling)
    return options.body(.png, model: model)
  }

  /// Sends `count` requests, so many at a time.
  private func send(
    _ count: Int, _ body: GatewayClient.Body, from seed: UInt64, _ client: GatewayClient, to measurements: Measurements
  ) async throws {
    let prompts = prompt.isEmpty ? ["a blue star"] : prompt
    var progress = ProgressBar()
    defer { progress.finish() }
    let start = ContinuousClock.now
    try await withThrowingTaskGroup(of: Void.self) { group in
      var sent = 0, done = 0
      func sendNext() {
        guard sent < count else { return }
        var body = body
        body.prompt = prompts[sent % prompts.count]
        // Seeds are at most what a JSON number holds.
        body.seed = (seed &+ UInt64(sent)) & SeedChoice.max
        sent += 1
        group.addTask { [body] in try await measure(body, client, measurements) }
      }
      for _ in 0..<min(concurrency, count) { sendNext() }
      while try await group.next() != nil {
        done += 1
        sendNext()
        let seconds = (ContinuousClock.now - start) / .seconds(1)
        progress.show(
          "requests", completed: done, total: count, secondsLeft: seconds / Double(done) * Double(count - done))
      }
    }
  }

  private func measure(
    _ body: GatewayClient.Body, _ client: GatewayClient, _ measurements: Measurements
  ) async throws {
    var trace = BenchTrace()
    let start = ContinuousClock.now
    do {
      for try await event in client.generate(body) {
        let seconds = (ContinuousClock.now - start) / .seconds(1)
        switch event {
        case .preview: continue
        case .progress(let update):
          trace.note(
            stage: update.stage, step: update.step, steps: update.steps, queuePosition: update.queuePosition,
            seconds: seconds)
        case .completed(let result):
          return await measurements.add(trace.sample(seconds: seconds, size: result.size))
        }
      }
      try Task.checkCancellation()
      throw GatewayClientError.incomplete
    } catch let error as CancellationError {
      throw error
    } catch {
      try Task.checkCancellation()
      let error = client.explained(error)
      // Where there is no gateway, no other request would fare better.
      if case GatewayClientError.unreachable = error { throw error }
      await measurements.add(failure: "\(error)")
    }
  }

  /// Collects what the requests took.
  private actor Measurements {
    private var samples: [BenchSample] = []
    private var failures: [String] = []
    private var start = ContinuousClock.now
    private var end = ContinuousClock.now

    func begin() {
      start = .now
      end = start
    }

    func add(_ sample: BenchSample) {
      samples.append(sample)
      end = .now
    }

    func add(failure: String) {
      failures.append(String(failure.prefix(500)))
      end = .now
    }

    func report(concurrency: Int, warmUp: Int) -> BenchReport {
      BenchReport(
        samples: samples, failures: failures, concurrency: concurrency, warmUp: warmUp,
        seconds: (end - start) / .seconds(1))
    }
  }
}
