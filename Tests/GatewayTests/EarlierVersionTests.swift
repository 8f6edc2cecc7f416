import ClusterCore
import Foundation
import GatewayDispatch
import GatewayPipelines
import HTTPTesting
import HTTPTypes
import Hummingbird
import Journal
import NIOCore
import Scheduling
import StrictJSON
import Testing
import Transport
import Wire

/// Fixtures/README.md says how the journal was made.
@Suite("A journal of 0.1 is taken over", .timeLimit(.minutes(2)))
struct EarlierVersionTests {
  private static let finishedJob = "job-6a388c5de62ea59396f085c33290d276"
  private static let openJob = "job-7cb0e94558e4f0c9de4a88f0112e9995"
  private static let numericsClass = "bf16/avx512bf16/3"

  private func withJournal(_ body: (ToyCluster) async throws -> Void) async throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "earlier-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let journal = folder.appending(path: "gateway.journal")
    let fixture = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Fixtures/gateway-0.1.journal")
    try FileManager.default.copyItem(at: fixture, to: journal)
    var limits = JournalLimits()
    limits.reserveBytes = 0
    // The fixture gets older every day.
    limits.retentionSeconds = 1 << 32
    try await ToyCluster.run(journal: journal.path, limits: limits, body)
  }

  /// The model of the fixture, as its workers would register today.
  private func card(_ cluster: ToyCluster) async throws -> ModelCard {
    try #require(try await cluster.dispatcher.snapshot(of: Self.openJob, tenant: .anonymous)).request.images[0].card
  }

  @Test("finished jobs are listed and their results can be read")
  func finishedJobs() async throws {
    try await withJournal { cluster in
      let job = try #require(try await cluster.dispatcher.snapshot(of: Self.finishedJob, tenant: .anonymous))
      #expect(job.request.images.map(\.prompt) == ["a red heart"] && job.request.images[0].pipeline == .textToImage)
      #expect(job.request.images[0].steps == 4 && job.request.images[0].seed == 7)
      #expect(job.endedAtMs != nil)
      for (id, index) in [(Self.finishedJob, 0), (Self.openJob, 0)] {
        let image = try #require(try await cluster.dispatcher.result(of: id, index: index))
        #expect(
          image.bytes.withUnsafeBytes { Array($0.prefix(8)) } == [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A])
      }
      var query = JobQuery()
      query.model = "nano-qwen-image"
      #expect(
        try await cluster.dispatcher.jobs(of: .anonymous, query)?.jobs.map(\.id) == [Self.openJob, Self.finishedJob])
      for (state, id) in [(StoredState.open, Self.openJob), (.succeeded, Self.finishedJob)] {
        query.states = [state]
        #expect(try await cluster.dispatcher.jobs(of: .anonymous, query)?.jobs.map(\.id) == [id])
      }
    }
  }

  @Test("an open job resumes from its checkpoint, by a worker of the same numerics class")
  func openJobs() async throws {
    try await withJournal { cluster in
      let card = try await card(cluster)
      #expect(card.pipelines == [.textToImage] && card.model.id == "nano-qwen-image")
      let events = try #require(try await cluster.dispatcher.events(of: Self.openJob, tenant: .anonymous, after: nil))
      try await cluster.join(.textEncoder, card: card)
      try await cluster.join(.vaeDecoder, card: card)
      let denoiser = try await cluster.join(.denoiser, card: card, numericsClass: Self.numericsClass, stepTime: .zero)
      var last: ImageUpdate?
      for await event in events where event.index == 1 { last = event.update }
      guard case .finished = last else {
        Issue.record("ended with \(String(describing: last))")
        return
      }
      #expect(await denoiser.log.firstSteps == [27])
      #expect(await denoiser.log.steps == 200 - 27)
    }
  }

  @Test("a request that was sent before finds its job by its key")
  func idempotencyKeys() async throws {
    try await withJournal { cluster in
      let card = try await card(cluster)
      for stage in [StageName.textEncoder, .vaeDecoder, .denoiser] {
        try await cluster.join(stage, card: card, numericsClass: "other")
      }
      try await cluster.waitUntilReady()
      try await cluster.app().test(.live) { client in
        let headers: HTTPFields = [.contentType: "application/json", HTTPField.Name("idempotency-key")!: "order-17"]
        let body = ByteBuffer(string: #"{"prompt":"a red heart","seed":7,"steps":4}"#)
        let response = try await client.execute(uri: "/v1/jobs", method: .post, headers: headers, body: body)
        #expect(response.status == .accepted, "\(String(buffer: response.body))")
        #expect(try response.json["id"]?.text == Self.finishedJob)
      }
    }
  }
}
