import Diffusion
import Foundation
import GoldenSupport
import Kernels
import QwenImage
import TensorCore
import Testing
import Weights

/// Inputs and control networks that do not fit: each refusal names the field or the file.
@Suite struct ImageInputRefusalTests {
  private static let zeros = Tensor.zeros([24, 64])

  /// A change to a recorded input, and what the error must name.
  private static let refused:
    [(loop: String, field: String, names: String, change: @Sendable (inout DenoisingInput) -> Void)] =
      [
        ("edit_plus", "latents", "expected F32 [30, 64]", { $0.latents = zeros }),
        ("edit_plus", "layers", "is 2; this model makes 1 to 1", { $0.layers = 2 }),
        ("edit_plus", "layers", "is 0", { $0.layers = 0 }),
        ("layered", "layers", "is 65; this model makes 1 to 64", { $0.layers = 65 }),
        ("layered", "latents", "expected F32 [32, 64]", { $0.layers = 2 }),
        ("edit_plus", "references[1]", "is F32 [24, 64]; expected F32 [80, 64]", { $0.references[1].latents = zeros }),
        (
          "edit_plus", "references[0]", "is BF16",
          {
            $0.references[0].latents = Compute(precision: .bf16, pool: ThreadPool(threads: 1)).converted(
              $0.references[0].latents, to: .bf16)
          }
        ),
        (
          "edit_plus", "references[0]", "grid of 0×5", { $0.references[0].grid = TokenGrid(height: 0, width: 5) }
        ),
        (
          "edit_plus", "references", "are 17; at most 16",
          { $0.references = Array(repeating: $0.references[0], count: 17) }
        ),
        ("inpaint", "inpainting.mask", "expected F32 [24, 64]", { $0.inpainting?.mask = .zeros([24, 16]) }),
        ("inpaint", "inpainting.noise", "expected F32 [24, 64]", { $0.inpainting?.noise = .zeros([16, 64]) }),
        (
          "edit", "control_image", "number 1 is for control network 1, but 0 are loaded",
          { input in
            input.references = []
            input.controls = [ControlInput(latents: zeros)]
          }
        ),
        ("controlnet", "controls[0]", "expected F32 [24, 64]", { $0.controls[0].latents = .zeros([24, 68]) }),
        ("controlnet_inpaint", "controls[0]", "expected F32 [24, 68]", { $0.controls[0].latents = zeros }),
        ("controlnet", "controls[0]", "has the scale inf", { $0.controls[0].scale = .infinity }),
        ("controlnet", "controls[0]", "acts from -0.5 to 1.0", { $0.controls[0].range = -0.5...1 }),
        ("controlnet", "controls", "are 9; at most 8", { $0.controls = Array(repeating: $0.controls[0], count: 9) }),
        (
          "controlnet", "controls", "cannot be combined with references",
          { input in
            input.references = [ReferenceLatents(latents: zeros, grid: input.grid)]
          }
        ),
      ]

  @Test(arguments: refused.indices) func namesTheField(index: Int) throws {
    let (name, field, names, change) = Self.refused[index]
    let loop = try RecordedLoop.named(name), denoise = try loop.denoiser(.fp32)
    var input = try loop.input()
    change(&input)
    let error = #expect(throws: PipelineError.self) { try denoise(input) }
    guard case .invalidRequest(field, let reason)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(reason.contains(names), "\(reason)")
  }

  // MARK: - Control networks

  private static let network = golden.appending(path: "tiny/controlnet")

  /// A textual change to `config.json`, and what the error must name.
  private static let broken: [(old: String, new: String, names: String)] = [
    ("QwenImageControlNetModel", "FluxControlNetModel", "_class_name \"FluxControlNetModel\" is not supported"),
    ("\"num_layers\": 1", "\"num_layers\": 0", "num_layers is 0"),
    (
      "\"num_attention_heads\": 3", "\"num_attention_heads\": 4",
      "num_attention_heads times attention_head_dim is 64, the transformer's 48"
    ),
    ("\"joint_attention_dim\": 64", "\"joint_attention_dim\": 32", "joint_attention_dim is 32, the transformer's 64"),
    ("\"extra_condition_channels\": 0", "\"extra_condition_channels\": -1", "extra_condition_channels is -1"),
    ("\"extra_condition_channels\": 0", "\"zero_cond_t\": true", "zero_cond_t true is not supported"),
  ]

  @Test(arguments: broken.indices) func namesTheConfiguration(index: Int) throws {
    let (old, new, names) = Self.broken[index], directory = try TemporaryDirectory()
    let text = try String(contentsOf: Self.network.appending(path: "config.json"), encoding: .utf8)
    try #require(text.contains(old))
    _ = try directory.write(text.replacingOccurrences(of: old, with: new), as: "config.json")
    let error = #expect(throws: ConfigurationError.self) { try load(directory.url) }
    let message = try #require(error).description
    #expect(message.contains("config.json") && message.contains(names), "\(message)")
  }

  @Test func namesMissingWeights() throws {
    let directory = try TemporaryDirectory()
    #expect(throws: ConfigurationError.self) { try load(directory.url) }
    _ = try directory.write(
      String(contentsOf: Self.network.appending(path: "config.json"), encoding: .utf8), as: "config.json")
    let error = #expect(throws: WeightsError.self) { try load(directory.url) }
    #expect(error?.description.contains(directory.url.path) == true)
  }

  /// A network for masks where one without is configured.
  @Test func namesTensorsOfAnotherWidth() throws {
    let directory = try TemporaryDirectory()
    for (source, name) in [
      ("controlnet", "config.json"), ("controlnet-inpaint", "diffusion_pytorch_model.safetensors"),
    ] {
      try FileManager.default.copyItem(
        at: golden.appending(path: "tiny/\(source)/\(name)"), to: directory.url.appending(path: name))
    }
    let error = #expect(throws: WeightsError.self) { try load(directory.url) }
    #expect(error?.description.contains("controlnet_x_embedder.weight") == true)
  }

  private func load(_ url: URL) throws {
    let transformer = try RecordedLoop.named("edit").transformer(.fp32)
    _ = try ControlNetwork(directory: url, for: transformer.configuration, compute: transformer.compute)
  }
}
