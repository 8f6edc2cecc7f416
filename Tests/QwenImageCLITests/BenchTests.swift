import Foundation
import QwenImageCLI
import Testing

/// `qwen-image bench`: what it measures, and how it says it.
@Suite(.timeLimit(.minutes(2))) struct BenchTests {
  @Test func percentilesAreValuesThatWereMeasured() throws {
    let hundred = try #require(BenchReport.Distribution((1...100).map { Double($0) }.shuffled()))
    #expect([hundred.p50, hundred.p90, hundred.p99] == [50, 90, 99])
    #expect(hundred.max == 100 && hundred.mean == 50.5)
    let one = try #require(BenchReport.Distribution([3]))
    #expect([one.p50, one.p90, one.p99, one.mean, one.max] == [3, 3, 3, 3, 3])
    let three = try #require(BenchReport.Distribution([1, 2, 9]))
    #expect([three.p50, three.p90, three.p99] == [2, 9, 9])
    #expect(BenchReport.Distribution([]) == nil)
  }

  @Test func aRequestIsMeasuredByItsEvents() {
    var trace = BenchTrace()
    trace.note(stage: "queued", step: 0, steps: 8, queuePosition: 2, seconds: 0.5)
    trace.note(stage: "text-encoder", step: 0, steps: 8, queuePosition: nil, seconds: 1)
    trace.note(stage: "denoiser", step: 0, steps: 8, queuePosition: 1, seconds: 1.5)
    trace.note(stage: "denoiser", step: 0, steps: 8, queuePosition: nil, seconds: 2)
    trace.note(stage: "denoiser", step: 3, steps: 8, queuePosition: nil, seconds: 5)
    trace.note(stage: "denoiser", step: 8, steps: 8, queuePosition: nil, seconds: 10)
    // Of another attempt, which begins at a checkpoint.
    trace.note(stage: "denoiser", step: 8, steps: 8, queuePosition: nil, seconds: 11)
    trace.note(stage: "vae-decoder", step: 8, steps: 8, queuePosition: nil, seconds: 12)
    let sample = trace.sample(seconds: 13, size: "64x64")
    #expect(sample.latencySeconds == 13 && sample.queueSeconds == 2 && sample.stepSeconds == 1 && sample.steps == 8)
    let empty = BenchTrace().sample(seconds: 1, size: nil)
    #expect(empty.queueSeconds == nil && empty.stepSeconds == nil)
  }

  private static func sample(_ seconds: Double) -> BenchSample {
    var trace = BenchTrace()
    trace.note(stage: "denoiser", step: 0, steps: 4, queuePosition: nil, seconds: seconds / 2)
    trace.note(stage: "denoiser", step: 4, steps: 4, queuePosition: nil, seconds: seconds)
    return trace.sample(seconds: seconds, size: "64x64")
  }

  @Test func aReportHasALineForEachFact() {
    let report = BenchReport(
      samples: [Self.sample(2), Self.sample(4)], failures: ["b", "a", "b"], concurrency: 3, warmUp: 1, seconds: 8)
    #expect(report.requests == 5 && report.failed == 3 && report.imagesPerSecond == 0.25)
    #expect(report.failures.map { "\($0.count) \($0.reason)" } == ["2 b", "1 a"])
    #expect(
      report.lines == [
        "5 requests, 3 at a time, after 1 to warm up: 64x64, 4 steps",
        "images/s  0.250 (2 in 8.00 s)",
        "latency   mean 3.00 s  p50 2.00 s  p90 4.00 s  p99 4.00 s  max 4.00 s",
        "queue     mean 1.50 s  p50 1.00 s  p90 2.00 s  p99 2.00 s  max 2.00 s",
        "step      mean 0.375 s  p50 0.250 s  p90 0.500 s  p99 0.500 s  max 0.500 s",
        "failed    3", "          2 × b", "          1 × a",
      ])
    let none = BenchReport(samples: [], failures: ["x"], concurrency: 1, warmUp: 0, seconds: 0)
    #expect(none.imagesPerSecond == 0 && none.lines.count == 4 && none.latencySeconds == nil)
    let many = BenchReport(samples: [], failures: (0..<90).map { "\($0)" }, concurrency: 1, warmUp: 0, seconds: 1)
    #expect(many.failures.count == BenchReport.maxReasons && many.failed == 90)
  }

  private static let image = FakeServer.events([
    ("image_generation.progress", #"{"stage":"queued","step":0,"steps":2,"queue_position":1}"#),
    ("image_generation.progress", #"{"stage":"denoiser","step":0,"steps":2}"#),
    ("image_generation.progress", #"{"stage":"denoiser","step":2,"steps":2}"#),
    (
      "image_generation.completed",
      #"{"b64_json":"\#(Data(fakePNG).base64EncodedString())","seed":1,"size":"64x64"}"#
    ),
  ])

  private static func bodies(_ requests: [String]) throws -> [[String: Any]] {
    try requests.map { request in
      let body = try #require(request.components(separatedBy: "\r\n\r\n").last)
      return try #require(try JSONSerialization.jsonObject(with: Data(body.utf8)) as? [String: Any])
    }
  }

  @Test func promptsTakeTurnsAndSeedsFollowOneAnother() async throws {
    try await FakeServer.with({ _ in Self.image }) { server in
      let result = try await CommandLineTool.run([
        "bench", "--gateway", server.address, "-n", "4", "--warm-up", "2", "-p", "a", "-p", "b", "--seed", "10",
        "--steps", "2", "--json",
      ])
      #expect(result.isSuccess, "\(result)")
      let report = try #require(try JSONSerialization.jsonObject(with: Data(result.output)) as? [String: Any])
      #expect(report["requests"] as? Int == 4 && report["failed"] as? Int == 0 && report["warm_up"] as? Int == 2)
      #expect(report["size"] as? String == "64x64" && report["steps"] as? Int == 2)
      #expect((report["latency_seconds"] as? [String: Double])?.count == 5)
      let bodies = try Self.bodies(server.requests)
      #expect(bodies.map { $0["prompt"] as? String } == ["a", "b", "a", "b", "a", "b"])
      #expect(bodies.map { $0["seed"] as? Int } == [10, 11, 12, 13, 14, 15])
      #expect(bodies.allSatisfy { $0["num_inference_steps"] as? Int == 2 && $0["n"] == nil })
    }
  }

  @Test func failuresAreCountedByTheirReason() async throws {
    let refusal = try FakeServer.error("429 Too Many Requests", "the queue is full", headers: ["retry-after: 7"])
    try await FakeServer.with({ $0.contains(#""seed":1"#) ? refusal : Self.image }) { server in
      let result = try await CommandLineTool.run([
        "bench", "--gateway", server.address, "-n", "2", "--warm-up", "0", "-c", "2",
      ])
      #expect(result.status == .exited(1))
      #expect(
        result.text.hasSuffix(
          "failed    1\n          1 × the gateway refused the request (429): the queue is full; try again in 7 s\n"),
        "\(result)")
    }
  }

  @Test func withoutAGatewayNothingIsMeasured() async throws {
    let server = try FakeServer { _ in nil }
    server.stop()
    let result = try await CommandLineTool.run(["bench", "--gateway", server.address, "-n", "100000"])
    #expect(result.status == .exited(1) && result.output.isEmpty && result.errors.contains("no gateway can be reached"))
  }

  @Test(arguments: [
    (["-n", "0"], "--requests is 0; it must be from 1 to 100000"),
    (["-c", "257"], "--concurrency is 257; it must be from 1 to 256"),
    (["--warm-up", "-1"], "--warm-up is -1; it must be from 0 to 1000"),
  ]) func limitsAreNamed(arguments: [String], message: String) async throws {
    let result = try await CommandLineTool.run(["bench"] + arguments)
    #expect(result.status == .exited(64) && result.errors.contains(message), "\(result)")
  }
}
