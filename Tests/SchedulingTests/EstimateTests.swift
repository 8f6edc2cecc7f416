import ClusterCore
import Scheduling
import Testing

@Suite("What is to be expected of jobs")
struct EstimateTests {
  /// Seconds to the beginning and to the end of each job.
  private static func estimates(_ bench: Bench, _ ids: [String]) -> [[Double?]] {
    let all = bench.scheduler.estimates(now: bench.now)
    return ids.map { id in all[ImageJobID(id)].map { [$0.secondsToStart, $0.secondsToEnd] } ?? [] }
  }

  /// A job of two steps in one second to encode, `step` for each step and one second to decode; returns what follows
  /// from its end.
  private static func run(_ id: String, on bench: inout Bench, step: Duration = .seconds(2)) throws {
    let denoise = try bench.bringToDenoiser(id, steps: 2)
    for number in 1...2 { try bench.step(denoise, number, after: step) }
    let decode = offers(try bench.complete(denoise, after: .zero)).first
    try bench.complete(decode)
  }

  @Test func nothingIsExpectedBeforeSomethingWasMeasured() throws {
    var bench = Bench()
    _ = bench.joinAll()
    bench.submit("a")
    #expect(Self.estimates(bench, ["a", "unknown"]) == [[], []])
  }

  @Test func jobsFollowEachOtherOnOneDenoiser() throws {
    var bench = Bench()
    _ = bench.joinAll()
    try Self.run("a", on: &bench)
    for id in ["b", "c", "d"] { bench.submit(id, steps: 2) }
    // Prompts are encoded, images decoded, while another one is denoised.
    #expect(Self.estimates(bench, ["b", "c", "d"]) == [[1, 6], [5, 10], [9, 14]])
    // Time that has passed is no longer to come.
    bench.now = bench.now + .milliseconds(500)
    #expect(Self.estimates(bench, ["b", "d"]) == [[0.5, 5.5], [8.5, 13.5]])
  }

  @Test func aJobThatRunsHasItsRemainingStepsToCome() throws {
    var bench = Bench()
    _ = bench.joinAll()
    try Self.run("a", on: &bench)
    let b = try bench.bringToDenoiser("b", steps: 2)
    bench.submit("c", prompt: "prompt of b", steps: 2)
    #expect(Self.estimates(bench, ["b", "c"]) == [[nil, 5], [4, 9]])
    try bench.step(b, 1, after: .seconds(2))
    bench.now = bench.now + .seconds(1)
    #expect(Self.estimates(bench, ["b", "c"]) == [[nil, 2], [1, 6]])
    // It is late, but will not end in the past.
    bench.now = bench.now + .seconds(5)
    #expect(Self.estimates(bench, ["b", "c"]) == [[nil, 1], [0, 5]])
  }

  @Test func severalDenoisersShareTheQueue() throws {
    var bench = Bench()
    _ = bench.joinAll()
    try Self.run("a", on: &bench)
    bench.join(.denoiser)
    for id in ["b", "c", "d"] { bench.submit(id, prompt: "prompt of a", steps: 2) }
    // The prompt is known; two denoisers, one decoder.
    #expect(Self.estimates(bench, ["b", "c", "d"]) == [[nil, 5], [nil, 6], [4, 9]])
  }

  @Test func aSlowDenoiserCountsAsOne() throws {
    var bench = Bench()
    _ = bench.joinAll()
    try Self.run("a", on: &bench)
    bench.send(.workerDraining(WorkerID(2)))
    bench.send(.workerLeft(WorkerID(2), reason: "test"))
    bench.join(.denoiser)
    try Self.run("b", on: &bench, step: .seconds(6))
    bench.submit("c", prompt: "prompt of a", steps: 2)
    #expect(Self.estimates(bench, ["c"]) == [[nil, 13]])
    // One that was never measured is as the others were lately.
    bench.join(.denoiser, credits: 1)
    bench.submit("d", prompt: "prompt of a", steps: 4)
    #expect(Self.estimates(bench, ["d"])[0][1]! < 26)
  }

  @Test func aSlowFirstTaskDoesNotCountForLong() throws {
    var bench = Bench()
    _ = bench.joinAll()
    try Self.run("a", on: &bench, step: .seconds(20))
    try Self.run("b", on: &bench)
    bench.submit("c", prompt: "prompt of a", steps: 2)
    #expect(Self.estimates(bench, ["c"]) == [[nil, 5]])
  }

  @Test func theDecoderMayBeWhatJobsWaitFor() throws {
    var bench = Bench()
    _ = bench.joinAll()
    try Self.run("a", on: &bench, step: .milliseconds(100))
    for id in ["b", "c", "d"] { bench.submit(id, prompt: "prompt of a", steps: 2) }
    let ends = Self.estimates(bench, ["b", "c", "d"]).map { $0[1]! }
    #expect(zip(ends, [1.2, 2.2, 3.2]).allSatisfy { abs($0 - $1) < 1e-9 }, "\(ends)")
  }

  @Test func jobsWithoutAWorkerDoNotDelayTheOthers() throws {
    var bench = Bench()
    _ = bench.joinAll()
    try Self.run("a", on: &bench)
    bench.submit("other", steps: 2, model: ModelIdentity(id: "other", fingerprint: "f"))
    bench.submit("b", prompt: "prompt of a", steps: 2)
    #expect(Self.estimates(bench, ["other", "b"]) == [[], [nil, 5]])
  }
}
