import ClusterCore
import Gateway
import GatewayAPI
import GatewayPipelines
import ImageCodec
import StrictJSON
import Testing
import Wire

@Suite("Requests with a step cache")
struct StepCacheRequestTests {
  private static var card: ModelCard {
    var card = Intake.card
    card.limits.denoiserBlocks = 5
    return card
  }

  private func image(_ cache: String, _ more: String = "", card: ModelCard = card) throws -> ImageSpec {
    let body = #"{"prompt": "a cat", "steps": 8, "cache": \#(cache)\#(more)}"#
    return try #require(try Intake.images(ofJSON: body, .generation, card: card).images.first)
  }

  @Test func presetsBecomeSettings() throws {
    #expect(try image(#""off""#).cache == nil)
    #expect(try image("null").cache == nil)
    #expect(try image("\"\"").cache == nil)
    for preset in [StepCache.Preset.balanced, .fast] {
      #expect(try image("\"\(preset.rawValue)\"").cache == preset.cache)
    }
    let mask = try image(#"{"method": "mask", "skip": [3, 5], "order": 1}"#)
    #expect(mask.cache?.skip == [3, 5] && mask.cache?.order == 1)
    // A form's fields are texts.
    for (text, method) in [("fast", StepCache.Method.firstBlock), (#"{"method": "taylor"}"#, .taylor)] {
      let form = try Intake.images(
        of: [Intake.prompt, Intake.text("cache", text)], .generation, card: Self.card)
      #expect(form.images[0].cache?.method == method)
    }
  }

  @Test(arguments: [
    (#""slow""#, "cache"), ("1", "cache"), ("[1]", "cache"), (#"{"threshold": 0.1}"#, "cache.method"),
    (#"{"method": 3}"#, "cache.method"), (#"{"method": "magic"}"#, "cache.method"),
    (#"{"method": "first_block", "threshold": "0.1"}"#, "cache.threshold"),
    (#"{"method": "first_block", "threshold": 1e999}"#, "cache.threshold"),
    (#"{"method": "first_block", "warmup": 2.5}"#, "cache.warmup"),
    (#"{"method": "first_block", "interval": 2}"#, "cache.interval"),
    (#"{"method": "dual_block", "front": 3, "back": 2}"#, "cache.front"),
    (#"{"method": "mask", "skip": [2, 9]}"#, "cache.skip"), (#"{"method": "mask", "skip": [2, "3"]}"#, "cache.skip"),
  ])
  func refusalsNameTheSetting(_ cache: String, _ param: String) throws {
    let error = try #require(throws: APIError.self) { try image(cache) }
    #expect(error.param == param && error.code.row.status.code == 400, "\(error)")
  }

  @Test func denoisersThatServeNoneAreAskedForNone() throws {
    let error = try #require(throws: APIError.self) { try image(#""fast""#, card: Intake.card) }
    #expect(error.param == "cache" && error.code == .unsupportedValue)
    #expect(try image(#""off""#, card: Intake.card).cache == nil)
  }

  /// Journal and denoiser get exact settings; files and jobs say them.
  @Test func settingsTravelWithTheJob() throws {
    let spec = try image(#"{"method": "taylor", "order": 2}"#)
    let cache = try #require(spec.cache)
    let stored = try StoredRequest.request(from: StoredRequest(JobRequest([spec])).encoded(), tenant: .anonymous)
    #expect(stored.images == [spec] && stored.images[0].cache == cache)
    let task = try #require(PipelineRegistry.standard[.textToImage]).tasks(spec)[1]
    let message = task.message(TaskInput(inputs: [], checkpointInterval: .zero))
    guard case .denoiseRequest(let request) = message.body else { throw APIError(.invalidValue, "no request") }
    #expect(request.cache == cache && request.noise == .torchCPUWithOptions)
    let metadata = spec.metadata
    #expect(metadata.cache == cache && metadata.texts[1].text.contains("Step cache: \"taylor:interval=4,order=2"))
    #expect(try ImageMetadata(texts: metadata.texts)?.cache == cache)
    // A checkpoint has up to as many velocities as the extrapolation needs.
    let rule = try #require(task.checkpoint), shape = spec.latentsShape
    func tensor(_ shape: [Int]) -> WireTensor {
      let bytes = [UInt8](repeating: 0, count: 4 * shape.reduce(1, *))
      return WireTensor(name: TensorName.latents, dtype: .fp32, shape: shape, bytes: FrameBuffer(copying: bytes))
    }
    #expect(rule.accepts(tensor(shape)) && rule.accepts(tensor([2] + shape)) && rule.accepts(tensor([4] + shape)))
    #expect(!rule.accepts(tensor([5] + shape)) && !rule.accepts(tensor([1] + shape)))
    #expect(!task.output.accepts(tensor([2] + shape)))
  }

  @Test func editsOfASequenceHaveTheRequestsCache() throws {
    let url = Intake.dataURL(try Intake.png())
    let body = #"""
      {"prompt": "x", "image": "\#(url)", "steps": 8, "cache": "fast",
       "edit_instructions": [{"prompt": "a"}, {"prompt": "b"}]}
      """#
    let spec = try #require(try Intake.images(ofJSON: body, card: Self.card).images.first)
    #expect(spec.edits.map(\.cache) == [StepCache.Preset.fast.cache, StepCache.Preset.fast.cache])
    #expect(spec.metadata.cache == StepCache.Preset.fast.cache)
    let stored = try StoredRequest.request(from: StoredRequest(JobRequest([spec])).encoded(), tenant: .anonymous)
    #expect(stored.images.first?.edits.map(\.cache) == spec.edits.map(\.cache))
  }
}
