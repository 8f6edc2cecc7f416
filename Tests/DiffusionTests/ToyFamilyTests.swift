import ClusterCore
import Diffusion
import Foundation
import Kernels
import TensorCore
import Testing
import Weights

/// A family that the project does not know is one file and one line in a registry.
@Suite struct ToyFamilyTests {
  private static let families = ModelFamilies([ToyFamily.self])
  private static let pool = ThreadPool(threads: 2)

  /// A checkpoint of the toy family with random weights, removed when the test is over.
  private struct Checkpoint: ~Copyable {
    let url = FileManager.default.temporaryDirectory.appending(path: "toy-\(UUID().uuidString)")

    init(_ precision: Precision = .bf16) throws {
      try SyntheticCheckpoint.write(
        .family(ToyFamily.self, .tiny), seed: 3, precision: precision, families: families, to: url, pool: pool
      ) { _, _ in }
    }

    var model: ModelDirectory { get throws { try ModelDirectory(url, families: families) } }

    deinit { try? FileManager.default.removeItem(at: url) }
  }

  private static let request = ImageRequest(
    prompt: "a toy", negativePrompt: "not this", trueCFGScale: 2, steps: 3, size: ImageSize(widthPx: 24, heightPx: 16),
    seed: 9)

  @Test func drawsImagesFromPromptAndSeed() throws {
    let checkpoint = try Checkpoint(), model = try checkpoint.model
    let draw = try LocalModel(model, loading: WeightLoading(), pool: Self.pool)
    let image = try draw(Self.request)
    #expect(image.width == 24 && image.height == 16 && image.channels == 3)
    #expect(try draw(Self.request).pixels == image.pixels)
    var other = Self.request
    other.seed += 1
    #expect(try draw(other).pixels != image.pixels)
    other = Self.request
    other.prompt = "another"
    #expect(try draw(other).pixels != image.pixels)
    other.negativePrompt = nil
    #expect(try draw(other).pixels != image.pixels)
  }

  @Test func itsLimitsAndDefaultsHold() throws {
    let checkpoint = try Checkpoint(), model = try checkpoint.model, card = try model.card()
    #expect(card.pipelineClass == "ToyPipeline" && card.model.fingerprint == model.fingerprint)
    let draw = try LocalModel(model, loading: WeightLoading(), pool: Self.pool)
    let request = ImageRequest(
      card, prompt: "p", negativePrompt: nil, trueCFGScale: nil, steps: nil, width: nil, height: nil, seed: 0)
    #expect(try draw(request).width == 32)
    for (field, change) in [
      ("width", { $0.size.widthPx = 12 }), ("steps", { $0.steps = 51 }),
      ("prompt", { $0.prompt = String(repeating: "p", count: 101) }),
    ] as [(String, (inout ImageRequest) -> Void)] {
      var request = request
      change(&request)
      let error = #expect(throws: PipelineError.self) { try draw(request) }
      guard case .invalidRequest(field, _)? = error else {
        Issue.record("\(field): \(String(describing: error))")
        continue
      }
    }
  }

  /// As the gateway has it: a model whose negative prompt is empty has none, but an empty one that is asked for counts.
  @Test func guidanceNeedsANegativePrompt() throws {
    var card = try Checkpoint().model.card()
    card.defaults.trueCFGScale = 3
    func request(_ negativePrompt: String?) -> ImageRequest {
      ImageRequest(
        card, prompt: "p", negativePrompt: negativePrompt, trueCFGScale: nil, steps: nil, width: nil, height: nil,
        seed: 0)
    }
    #expect(card.defaults.negativePrompt.isEmpty)
    #expect(request(nil).negativePrompt == nil && !request(nil).usesTrueCFG)
    #expect(request("").negativePrompt == "" && request("").usesTrueCFG)
    card.defaults.negativePrompt = " "
    #expect(request(nil).negativePrompt == " " && request(nil).usesTrueCFG)
  }

  @Test func aResumeEndsWithTheSameBytes() throws {
    let checkpoint = try Checkpoint(), model = try checkpoint.model
    try resume(
      model,
      try model.family.predictor(
        of: model, loading: WeightLoading(), pool: Self.pool, options: PredictorOptions()))
  }

  private func resume(_ model: ModelDirectory, _ predictor: some VelocityPredictor) throws {
    let card = try model.card(), grid = card.latents.grid(of: Self.request.size)
    let conditioner = try model.family.conditioner(
      of: model, loading: WeightLoading(), pool: Self.pool, limits: card.limits, readsImages: false)
    let prompts = conditioner.encode([try conditioner.tokens(PromptInput("a toy"), field: "prompt")])
    var input = DenoisingInput(
      prompt: prompts[0], negativePrompt: nil, latents: InitialNoise.torchCPU(seed: 1, grid: grid, card.latents),
      grid: grid, steps: 4, trueCFGScale: 1)
    let denoise = Denoiser(predictor, scheduler: model.scheduler, guidance: model.family.guidance)
    var checkpoints: [Tensor] = []
    let whole = try denoise(input) { checkpoints.append($0.latents.copied()) }
    for (index, latents) in checkpoints.enumerated() {
      input.latents = latents
      input.firstStep = index + 1
      #expect(try denoise(input).floats() == whole.floats(), "resumed after step \(index + 1)")
    }
  }

  /// The quantised modes, and how far they are from fp32, are nothing that a family has to bring.
  @Test func itsWeightsCanBeQuantised() throws {
    let checkpoint = try Checkpoint(), model = try checkpoint.model
    let target = FileManager.default.temporaryDirectory.appending(path: "toy-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: target) }
    let report = try QuantisedCheckpoint.write(model, precision: .int8, to: target, pool: Self.pool) { _, _ in }
    let transformer = try #require(report.components.last)
    #expect(transformer.layers.map(\.name) == ["blocks.1.weight"], "the first block is kept in bf16")
    let quantised = try ModelDirectory(target, families: Self.families)
    #expect(quantised.fingerprint == model.fingerprint)
    #expect(try quantised.weights(of: .transformer).packedPrecision == .int8)
    _ = try LocalModel(quantised, loading: WeightLoading(), pool: Self.pool)(Self.request)
    let accuracy = try ModeAccuracy.measure(
      model, request: Self.request, precisions: [.bf16, .int8], pool: Self.pool)
    #expect(accuracy.allSatisfy { $0.velocity > 0 && $0.velocity < 0.1 }, "\(accuracy)")
  }

  @Test func aRegistryReadsItsFamiliesOnly() throws {
    let checkpoint = try Checkpoint(), none = ModelFamilies([])
    let error = #expect(throws: ConfigurationError.self) { try ModelDirectory(checkpoint.url, families: none) }
    #expect(error?.description.contains("_class_name \"ToyPipeline\" is not supported") == true)
    #expect(Self.families.syntheticNames == ["toy", "toy-tiny", "tiny"] && Self.families.synthetic("other") == nil)
  }
}
