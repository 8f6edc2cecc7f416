import ClusterCore
import Diffusion
import Foundation
import Kernels
import ModelRegistry
import QwenImage
import TensorCore
import Testing
import Weights

/// Limits and defaults of checkpoints, and the requests they refuse.
@Suite struct ModelCardTests {
  private static let valid = ImageRequest(
    prompt: "p", negativePrompt: " ", trueCFGScale: 4, steps: 4, size: ImageSize(widthPx: 64, heightPx: 64), seed: 0)

  @Test func aCheckpointWithoutDefaultsGetsThePublishedOnes() throws {
    let card = try ModelDirectory(Golden.tinyCheckpoint).card()
    #expect(card.model.id == "checkpoint" && card.defaults.steps == 50 && card.defaults.trueCFGScale == 4)
    let request = ImageRequest(
      card, prompt: "p", negativePrompt: nil, trueCFGScale: nil, steps: nil, width: nil, height: nil, seed: 1)
    #expect(
      request.size == ImageSize(widthPx: 1024, heightPx: 1024) && request.negativePrompt == " " && request.usesTrueCFG)
  }

  @Test(arguments: [
    (#"{"width": 100}"#, "width"), (#"{"steps": 0}"#, "steps"),
    (#"{"recommended_sizes": ["64"]}"#, "recommended_sizes"),
    (#"{"id": 3}"#, "generation_defaults.json"), ("[", "generation_defaults.json"),
    (#"{"widht": 64}"#, "there is no field \"widht\"; known are id, width, height"),
    (#"{"width": "64"}"#, "width is a string, expected an integer"), (#"{"max_steps": 0}"#, "max_steps is 0"),
    (#"{"min_side": 512, "max_side": 256}"#, "min_side is 512, must be at most max_side, 256"),
    (#"{"max_side": 9223372036854775807}"#, "max_side is 9223372036854775807"),
    (#"{"recommended_sizes": ["64x64", "64x0"]}"#, "recommended_sizes is \"64x0\""),
  ])
  func wrongDefaultsAreNamed(text: String, name: String) throws {
    let copy = try TemporaryDirectory()
    let url = copy.url.appending(path: "model")
    try FileManager.default.copyItem(at: Golden.tinyCheckpoint, to: url)
    try Data(text.utf8).write(to: url.appending(path: "generation_defaults.json"))
    let model = try ModelDirectory(url)
    let error = #expect(throws: PipelineError.self) { try model.card() }
    #expect(error?.description.contains(name) == true, "\(String(describing: error))")
  }

  @Test func everyFieldOutOfRangeIsNamed() throws {
    let limits = try ModelDirectory(Golden.tinyCheckpoint).card().limits
    let changes: [(String, (inout ImageRequest) -> Void)] = [
      ("width", { $0.size.widthPx = 65 }), ("width", { $0.size.widthPx = 0 }),
      ("height", { $0.size.heightPx = 1 << 20 }),
      ("steps", { $0.steps = 0 }),
      ("steps", { $0.steps = 1000 }), ("true_cfg_scale", { $0.trueCFGScale = .nan }),
      ("true_cfg_scale", { $0.trueCFGScale = -1 }),
      ("prompt", { $0.prompt = String(repeating: "x", count: 40_000) }), ("prompt", { $0.prompt = "a\0b" }),
      ("negative_prompt", { $0.negativePrompt = "\0" }),
      ("size", { $0.size = ImageSize(widthPx: 4096, heightPx: 2064) }),
    ]
    for (field, change) in changes {
      var request = Self.valid
      change(&request)
      let error = #expect(throws: PipelineError.self) { try limits.validate(request) }
      guard case .invalidRequest(field, _)? = error else {
        Issue.record("\(field): \(String(describing: error))")
        continue
      }
    }
    for (width, height) in [(2048, 2048), (3072, 1024), (4096, 2048)] {
      var request = Self.valid
      request.size = ImageSize(widthPx: width, heightPx: height)
      #expect(throws: Never.self) { try limits.validate(request) }
    }
    #expect(throws: Never.self) { try limits.validate(Self.valid) }
  }

  @Test func promptsThatAreTooLongAreRefusedWithTheirLength() throws {
    let pipeline = try loadTinyPipeline()
    var request = Self.valid
    request.prompt = String(repeating: "a b c ", count: 300)
    let error = #expect(throws: PipelineError.self) { try pipeline(request) }
    #expect(error?.description.contains("the limit is 507") == true)
  }

  /// Resuming from the latents after any step gives the bytes of the undisturbed run.
  @Test func aResumedRunEndsWithTheSameBytes() throws {
    let model = try ModelDirectory(Golden.tinyCheckpoint)
    let denoiser = try model.denoiser(WeightLoading(), pool: ThreadPool(threads: 2))
    let grid = TokenGrid(height: 5, width: 3)
    let embeds = Tensor(SyntheticWeights.uniforms("embeds", count: 9 * 64), shape: [9, 64])
    let noise = InitialNoise.torchCPU(seed: 8, grid: grid, model.qwenImage.latents)
    var input = denoisingInput(embeds, embeds.rows(0..<4), noise, grid, steps: 5, scale: 3)
    var checkpoints: [Tensor] = [], expected: [Tensor] = []
    let whole = try denoiser(input) {
      checkpoints.append($0.latents.copied())
      expected.append($0.expectedLatents)
    }
    #expect(checkpoints.count == 5)
    // The last step ends without noise; before, a step to the end leads elsewhere than to the next noise level.
    #expect(expected[4].floats() == whole.floats() && expected[3].floats() != checkpoints[3].floats())
    for (index, checkpoint) in checkpoints.enumerated() {
      input.latents = checkpoint
      input.firstStep = index + 1
      #expect(try denoiser(input).floats() == whole.floats(), "resumed after step \(index + 1)")
    }
  }
}

private func loadTinyPipeline() throws -> LocalModel {
  try LocalModel(ModelDirectory(Golden.tinyCheckpoint), loading: WeightLoading(), pool: ThreadPool(threads: 2))
}
