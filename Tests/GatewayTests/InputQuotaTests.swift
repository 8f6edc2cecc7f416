import ClusterCore
import Foundation
import Gateway
import GatewayDispatch
import GatewayPipelines
import ImageCodec
import Journal
import Scheduling
import TestSupport
import Testing

/// The images that open jobs begin with: how many there may be, and how long they stay.
@Suite("Images of open jobs", .timeLimit(.minutes(2)))
struct InputQuotaTests {
  /// Decoded, of a 64×64 image.
  static let imageBytes = 64 * 64 * 3

  /// A job that begins with 64×64 images of these shades.
  static func job(_ shade: UInt8, tenant: String = "t", n: Int = 1, steps: Int = 4, seed: Int = 5) throws -> JobRequest
  {
    let parts = [
      Intake.prompt, Intake.text("n", "\(n)"), Intake.text("seed", "\(seed)"), Intake.text("steps", "\(steps)"),
      Intake.text("strength", "1"), Intake.part("image", try Intake.png(shade: shade)),
    ]
    let (images, inputs) = try Intake.images(of: parts, card: Intake.imageToImageCard)
    var request = JobRequest(images)
    request.inputs = inputs
    request.tenant = TenantID(tenant)
    request.isDetached = true
    return request
  }

  static func limit(all: Int, tenant: Int) -> (inout DispatcherConfiguration) -> Void {
    { configuration in
      configuration.maxInputBytes = all * imageBytes
      configuration.maxTenantInputBytes = tenant * imageBytes
    }
  }

  private func refusal(_ cluster: ToyCluster, _ request: JobRequest) async -> Status? {
    do throws(Status) {
      _ = try await cluster.dispatcher.submit(request)
      return nil
    } catch {
      return error
    }
  }

  @Test func eachTenantAndAllTogetherHaveALimit() async throws {
    try await ToyCluster.run(Self.limit(all: 3, tenant: 2)) { cluster in
      let dispatcher = cluster.dispatcher
      let first = try await dispatcher.submit(Self.job(1))
      _ = try await dispatcher.submit(Self.job(2))
      let own = try #require(try await refusal(cluster, Self.job(3)))
      #expect(own.code == .resourceExhausted && own.retryAfterSeconds == 10 && own.resource == .tenantQueue)
      #expect(own.message.contains("have 12288 bytes, and those of the jobs of this tenant 24576; the limit is 24576"))
      _ = try await dispatcher.submit(Self.job(3, tenant: "u"))
      let all = try #require(try await refusal(cluster, Self.job(4, tenant: "v")))
      #expect(all.code == .resourceExhausted && all.resource == .queue)
      #expect(all.message.contains("have 12288 bytes, and those of the jobs of all tenants 36864; the limit is 36864"))
      // An image that is there already takes no more memory, though it counts for its tenant.
      let shared = try await dispatcher.submit(Self.job(1, tenant: "v"))
      try await dispatcher.cancel(first.id, tenant: TenantID("t"), reason: Status(.cancelled, "enough"))
      #expect(try await refusal(cluster, Self.job(5))?.resource == .queue, "the other job still has it")
      try await dispatcher.cancel(shared.id, tenant: TenantID("v"), reason: Status(.cancelled, "enough"))
      #expect(try await refusal(cluster, Self.job(5)) == nil)
      #expect(try await refusal(cluster, Self.job(6))?.resource == .tenantQueue)
    }
  }

  @Test func whatIsAboveTheLimitAloneIsRefusedForGood() async throws {
    try await ToyCluster.run(Self.limit(all: 0, tenant: 2)) { cluster in
      let refused = try #require(try await refusal(cluster, Self.job(1)))
      #expect(refused.code == .invalidArgument && refused.field == "image" && refused.retryAfterSeconds == nil)
      #expect(refused.message == "the images of the request have 12288 bytes when they are decoded, the limit is 0")
      // Jobs without images have nothing to do with it.
      var plain = JobRequest(try ImageRequestTests.jobs(#"{"prompt": "a cat"}"#))
      plain.isDetached = true
      #expect(await refusal(cluster, plain) == nil)
    }
  }

  /// A job that is refused by the journal, and one whose time is over, keep nothing.
  @Test func refusedAndExpiredJobsLetGo() async throws {
    var limits = JournalLimits()
    limits.maxBytes = 1 << 20
    limits.reserveBytes = limits.maxBytes
    try await ToyCluster.run(Self.limit(all: 1, tenant: 1), limits: limits) { cluster in
      for shade in UInt8(1)...3 {
        let refused = await refusal(cluster, try Self.job(shade))
        #expect(refused?.resource == .storage)
      }
    }
    try await ToyCluster.run({
      Self.limit(all: 1, tenant: 1)(&$0)
      $0.jobTimeout = .milliseconds(300)
    }) { cluster in
      for shade in UInt8(1)...3 {
        let request = try Self.job(shade)
        try await wait("the job before has expired") { await refusal(cluster, request) == nil }
      }
    }
  }

  /// Accepted, computed with its images by every stage, and gone from memory and journal with its end.
  @Test func finishedJobsLetGo() async throws {
    let path = NSTemporaryDirectory() + "inputs-\(UInt64.random(in: 0 ... .max))"
    defer {
      for suffix in ["", "-wal", "-shm", ".lock", ".reserve"] {
        try? FileManager.default.removeItem(atPath: path + suffix)
      }
    }
    try await ToyCluster.run(Self.limit(all: 1, tenant: 1), journal: path) { cluster in
      try await joinAll(cluster, stepTime: .milliseconds(1))
      for shade in UInt8(1)...4 {
        let ticket = try await cluster.dispatcher.submit(Self.job(shade, n: 3))
        let results = try await ticket.results().map { $0.bytes.withUnsafeBytes { Array($0) } }
        #expect(results == Self.expected(shade, n: 3))
      }
    }
    let store = try SQLiteJournalStore(path: path)
    #expect(try store.problems() == [])
    #expect(try store.counts() == (0, 4))
  }

  /// A gateway that ends in the middle of a job of three images: the next one has the images, counts them, sends them
  /// to the stages again, and gives the same bytes.
  @Test func restoredJobsHaveTheirImages() async throws {
    let path = NSTemporaryDirectory() + "inputs-\(UInt64.random(in: 0 ... .max))"
    defer {
      for suffix in ["", "-wal", "-shm", ".lock", ".reserve"] {
        try? FileManager.default.removeItem(atPath: path + suffix)
      }
    }
    let id = try await ToyCluster.run(Self.limit(all: 2, tenant: 2), journal: path) { cluster in
      let time = ManualTime(), stepTime = Duration.milliseconds(30)
      let denoiser = try await joinAll(cluster, stepTime: stepTime, time: time)
      let ticket = try await cluster.dispatcher.submit(Self.job(1, n: 3, steps: 8))
      _ = try await cluster.dispatcher.submit(Self.job(2, n: 1, steps: 50))
      // In the middle of an image, after the first.
      try await time.advance(by: stepTime, times: 11)
      try await wait("one image is done") { await denoiser.log.steps >= 11 }
      return ticket.id
    }
    try await ToyCluster.run(Self.limit(all: 2, tenant: 2), journal: path) { cluster in
      let refused = try #require(try await refusal(cluster, Self.job(3)))
      #expect(refused.message.contains("those of the jobs of this tenant \(2 * Self.imageBytes)"), "\(refused.message)")
      let denoiser = try await joinAll(cluster, stepTime: .milliseconds(1))
      let events = try #require(try await cluster.dispatcher.events(of: id, tenant: TenantID("t"), after: nil))
      for await _ in events {}
      let expected = Self.expected(1, n: 3, steps: 8)
      for index in 0..<3 {
        let result = try #require(try await cluster.dispatcher.result(of: id, index: index))
        #expect(result.bytes.withUnsafeBytes { Array($0) } == expected[index], "image \(index)")
      }
      let steps = await denoiser.log.steps
      #expect(steps < 24 + 50, "some of the steps were not made again")
      try await wait("the images have gone") { try await refusal(cluster, Self.job(3)) == nil }
    }
    #expect(try SQLiteJournalStore(path: path).problems() == [])
  }

  private static func expected(_ shade: UInt8, n: Int, steps: Int = 4) -> [[UInt8]] {
    let pixels = Intake.image(shade: shade).pixels
    return (0..<n).map { Toy.expected(prompt: "a cat", seed: UInt64(5 + $0), steps: steps, from: pixels) }
  }

  /// A worker of each stage; returns the denoiser.
  @discardableResult
  private func joinAll(
    _ cluster: ToyCluster, stepTime: Duration, time: any TimeSource = SystemTime()
  ) async throws -> ToyWorker {
    let card = Intake.imageToImageCard
    for stage in [StageName.textEncoder, .vaeEncoder, .vaeDecoder] { try await cluster.join(stage, card: card) }
    return try await cluster.join(.denoiser, card: card, stepTime: stepTime, time: time)
  }
}
