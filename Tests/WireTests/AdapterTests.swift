import ClusterCore
import Foundation
import Testing
import Wire

@Suite("Adapters on the wire")
struct AdapterTests {
  private static let digest = String(repeating: "0a", count: 32)

  private static func request(_ adapters: [ChosenAdapter]) -> DenoiseRequest {
    var request = DenoiseRequest(
      modelID: "m", size: ImageSize(widthPx: 64, heightPx: 80), steps: 4, trueCFGScale: 1, seed: 5)
    request.adapters = adapters
    request.noise = request.requiredNoise
    return request
  }

  @Test("are what protoc packs, in a request that older denoisers refuse")
  func golden() throws {
    let request = Self.request([
      ChosenAdapter(name: "style", digest: Self.digest, scale: 0.8),
      ChosenAdapter(name: "A.b-c_9", digest: String(repeating: "f", count: 64), scale: -10),
    ])
    #expect(request.noise == .torchCPUWithOptions && request.noise.rawValue == 3)
    let url = try #require(
      Bundle.module.url(forResource: "adapters", withExtension: "bin", subdirectory: "Golden/options"))
    let envelope = Envelope(messageID: 7, body: .denoiseRequest(request)), golden = Array(try Data(contentsOf: url))
    let frames = try WireCodec.encode(envelope)
    #expect(frames[0].array == golden)
    #expect(try WireCodec.decode([FrameBuffer(copying: golden)] + frames.dropFirst()) == envelope)
  }

  @Test("need the kind of noise that says so")
  func noise() throws {
    var request = Self.request([ChosenAdapter(name: "style", digest: Self.digest, scale: 1)])
    request.sigmas = [1, 0.7, 0.4, 0.1]
    #expect(request.requiredNoise == .torchCPUWithOptions)
    for kind in [NoiseKind.torchCPU, .torchCPUWithSigmas] {
      request.noise = kind
      #expect(failure(.denoiseRequest(request))?.field == "denoise_request.noise")
    }
    request.adapters = []
    #expect(request.requiredNoise == .torchCPUWithSigmas)
    request.noise = .torchCPUWithOptions
    #expect(failure(.denoiseRequest(request))?.field == "denoise_request.noise")
  }

  private func failure(_ body: Body) -> WireError? {
    do throws(WireError) {
      _ = try WireCodec.encode(Envelope(messageID: 1, body: body))
      return nil
    } catch { return error }
  }

  @Test("have names that are safe, digests, and scales within bounds")
  func refusals() {
    func field(_ name: String, _ digest: String = Self.digest, scale: Double = 1) -> String? {
      failure(.denoiseRequest(Self.request([ChosenAdapter(name: name, digest: digest, scale: scale)])))?.field
    }
    #expect(field("style") == nil)
    for name in ["", ".", "..", ".x", "a/b", "a b", "é", String(repeating: "a", count: 129)] {
      #expect(field(name) == "denoise_request.adapters[0].name", "\(name)")
    }
    for digest in ["", "0a", Self.digest.uppercased(), Self.digest + "0"] {
      #expect(field("a", digest) == "denoise_request.adapters[0].digest", "\(digest)")
    }
    for scale in [Double.nan, .infinity, 10.5, -11] {
      #expect(field("a", scale: scale) == "denoise_request.adapters[0].scale", "\(scale)")
    }
    let served = ServedAdapter(name: "a", digest: Self.digest)
    for (total, offset, count, name) in [(1001, 0, 1, "total"), (1, 2, 0, "offset"), (2, 1, 2, "adapters")] {
      let announcement = AdapterAnnouncement(
        sessionID: "s", total: total, offset: offset, adapters: Array(repeating: served, count: count))
      #expect(failure(.servedAdapters(announcement))?.field == "served_adapters.\(name)")
    }
  }

  @Test("are announced in parts, which count when all are there", arguments: [0, 1, 256, 257, 1000])
  func parts(count: Int) throws {
    let list = (0..<count).map {
      ServedAdapter(name: String(repeating: "n", count: 124) + "\(1000 + $0)", digest: Self.digest, isLoaded: true)
    }
    let parts = AdapterAnnouncement.parts(of: list, sessionID: "s")
    #expect(parts.count == max(1, (count + 255) / 256))
    var collected: [ServedAdapter] = [], complete: [ServedAdapter]?
    for part in parts {
      #expect(complete == nil)
      _ = try WireCodec.encode(Envelope(messageID: 1, body: .servedAdapters(part)))
      complete = part.added(to: &collected)
    }
    #expect(complete == list && collected.isEmpty)
    // A part without those before it gives nothing, and does not spoil the next list.
    guard let last = parts.last, parts.count > 1 else { return }
    #expect(last.added(to: &collected) == nil && collected.isEmpty)
    #expect(parts.compactMap { $0.added(to: &collected) } == [list])
  }
}
