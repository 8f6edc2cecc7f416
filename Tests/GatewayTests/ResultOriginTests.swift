import ClusterCore
import Foundation
import GatewayPipelines
import HTTPTesting
import Scheduling
import StrictJSON
import Testing
import Wire

@Suite("Origins in results", .timeLimit(.minutes(2)))
struct ResultOriginTests {
  private static let request = #"{"prompt":"p","seed":1}"#

  @Test func theJournalHasTheBytesThatClientsGet() async throws {
    let expected = try Toy.marked(Toy.expected(prompt: "p", seed: 1))
    try await ToyCluster.run(provenance: ResultProvenance(namesSourceType: true)) { cluster in
      let workers = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        for _ in 1...2 { #expect(try await client.generate(Self.request).image() == expected) }
        let id = try #require(try await client.get("/v1/jobs").json["data"]?[0]?["id"]?.text)
        for _ in 1...2 {
          let response = try await client.execute(uri: "/v1/jobs/\(id)/result", method: .get)
          #expect(Array(buffer: response.body) == expected)
        }
      }
      // One answer of the decoder is one result.
      #expect(await workers.decoder.log.tasks.count == 2)
    }
  }

  @Test func anAnswerThatIsNoImageIsMadeAgainElsewhere() async throws {
    try await ToyCluster.run(provenance: ResultProvenance(namesSourceType: true)) { cluster in
      try await cluster.join(.textEncoder)
      try await cluster.join(.denoiser)
      let bad = try await cluster.join(.vaeDecoder, name: "bad") { _, body in
        guard case .decodeRequest(let request) = body else { return nil }
        let response = DecodeResponse(
          mediaType: "image/png", size: request.size, computeSeconds: 0)
        let bytes = FrameBuffer(copying: Array("no image".utf8))
        let tensor = WireTensor(name: TensorName.image, dtype: .uint8, shape: [bytes.count], bytes: bytes)
        return .answer(.decodeResponse(response), [tensor])
      }
      try await cluster.waitUntilReady()
      async let image = cluster.image("p", seed: 1)
      try await wait("the bad one has answered") { await !bad.log.tasks.isEmpty }
      try await cluster.join(.vaeDecoder, name: "good")
      #expect(try await image == Toy.marked(Toy.expected(prompt: "p", seed: 1)))
    }
  }
}
