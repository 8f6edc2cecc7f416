import ClusterCore
import Foundation
import Testing
import Wire

@Suite("Step caches on the wire")
struct StepCacheTests {
  private static func request(_ cache: String) throws -> DenoiseRequest {
    var request = DenoiseRequest(
      modelID: "m", size: ImageSize(widthPx: 64, heightPx: 80), steps: 8, trueCFGScale: 1, seed: 5)
    request.cache = try StepCache.parse(cache)
    request.noise = request.requiredNoise
    return request
  }

  @Test("are what protoc packs, in a request that older denoisers refuse")
  func golden() throws {
    let request = try Self.request("dual_block:threshold=0.25,front=2,back=1,warmup=3,max_consecutive=4")
    #expect(request.noise == .torchCPUWithOptions)
    let url = try #require(
      Bundle.module.url(forResource: "cache", withExtension: "bin", subdirectory: "Golden/options"))
    let envelope = Envelope(messageID: 7, body: .denoiseRequest(request)), golden = Array(try Data(contentsOf: url))
    let frames = try WireCodec.encode(envelope)
    #expect(frames[0].array == golden)
    #expect(try WireCodec.decode([FrameBuffer(copying: golden)] + frames.dropFirst()) == envelope)
  }

  @Test("have the fields of their method only")
  func otherFields() throws {
    var request = try Self.request("mask:skip=2+3")
    request.cache?.threshold = 0.1
    #expect(throws: WireError.self) { try WireCodec.encode(Envelope(messageID: 1, body: .denoiseRequest(request))) }
  }

  @Test("bring checkpoints of earlier steps, never of later ones")
  func checkpoints() throws {
    var progress = Progress(completedSteps: 5, steps: 8, stepSeconds: 1)
    progress.checkpointSteps = 3
    let envelope = Envelope(messageID: 1, body: .progress(progress))
    #expect(try WireCodec.decode(WireCodec.encode(envelope)) == envelope)
    progress.checkpointSteps = 6
    #expect(throws: WireError.self) { try WireCodec.encode(Envelope(messageID: 1, body: .progress(progress))) }
  }
}
