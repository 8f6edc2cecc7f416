import ClusterCore
import Diffusion
import Foundation
import GoldenSupport
import ImageCodec
import Kernels
import ModelRegistry
import QwenImage
import TensorCore
import Testing
import Weights

/// A recorded call with images, as the text encoder sees it.
private struct EditCase {
  let name: String
  let template: PromptInput.Template
  /// The recorded images that the text encoder was shown.
  let images: [String]

  static let all = [
    EditCase(name: "edit", template: .edit, images: ["image.resized_u8"]),
    EditCase(name: "edit_outsize", template: .edit, images: ["image.resized_u8"]),
    EditCase(name: "edit_plus", template: .editPlus, images: ["image.resized_u8", "image.resized_u8#2"]),
    EditCase(name: "edit_plus_2511", template: .editPlus, images: ["image.resized_u8", "image.resized_u8#2"]),
  ]

  /// The prompt and the negative prompt.
  func prompts() throws -> [(name: String, input: PromptInput)] {
    struct Recorded: Decodable {
      struct Call: Decodable {
        let prompt: String
        let negative_prompt: String
      }
      let call: Call
    }
    let call = try JSONDecoder().decode(Recorded.self, from: Data(contentsOf: Golden.reference("\(name).json"))).call
    let file = try SafetensorsFile(Golden.reference("\(name).safetensors"))
    let images = try images.map { name in
      let tensor = try file.tensor(name)
      let pixels = tensor.withElements(as: UInt8.self) { values in values.indices.map { values[$0] } }
      return RasterImage(width: tensor.shape[1], height: tensor.shape[0], pixels: pixels)
    }
    return [("cond", call.prompt), ("uncond", call.negative_prompt)].map {
      ($0.0, PromptInput($0.1, template: template, images: images))
    }
  }

  /// Everything that the text encoder records, under the reference's names: it records what concerns images once.
  func record(_ encoder: any PromptConditioner) throws -> Recording {
    let recording = Recording()
    for (name, input) in try prompts() {
      let probe = Probe { tensorName, tensor in
        let own = tensorName.replacing("te.\(name).", with: "", maxReplacements: 1)
        let isOfImages = own.hasPrefix("vis.") || own == "pixel_values" || own == "image_grid_thw"
        recording.probe.record(own.hasPrefix("vis.") ? own : isOfImages ? "te.\(own)" : tensorName, tensor)
      }
      let embeds = encoder.encode(
        try encoder.tokens(input, field: "prompt"), probe: probe.scoped("te.\(name)")
      ).embeds
      recording.probe.record("prompt_embeds.\(name)", embeds)
    }
    return recording
  }
}

/// Prompts with images.
@Suite struct PromptImageTests {
  private static func encoder(
    _ precision: PrecisionChoice = .fp32, threads: Int = 2, readsImages: Bool = true
  ) throws -> any PromptConditioner {
    let model = try ModelDirectory(Golden.editCheckpoint)
    return try model.family.conditioner(
      of: model, loading: WeightLoading(precision: precision), pool: ThreadPool(threads: threads),
      limits: model.card().limits, readsImages: readsImages)
  }

  @Test(arguments: EditCase.all.indices) func everyIntermediateAgreesInFP32(_ index: Int) throws {
    let reference = EditCase.all[index]
    try expectAgreement(
      reference.record(Self.encoder()), with: ReferenceTensors(Golden.reference("\(reference.name).safetensors")),
      tolerance: 1e-4
    ) { name in
      !["te.", "vis.", "prompt_embeds."].contains { name.hasPrefix($0) } || name.hasSuffix("attention_mask")
    }
  }

  /// These calls were not recorded in bf16; those with a prompt alone were, through the same language model.
  @Test(arguments: EditCase.all.indices) func bf16StaysWithinTheYardstickOfText(_ index: Int) throws {
    let reference = EditCase.all[index]
    let text = try ReferenceTensors(Golden.reference("t2i_64x64.safetensors"))
    let yardstick = relativeError(
      try text.floats("bf16.te.cond.last_hidden_state"), try text.floats("te.cond.last_hidden_state"))
    let recording = try reference.record(Self.encoder(.bf16))
    let exact = try ReferenceTensors(Golden.reference("\(reference.name).safetensors"))
    for name in ["prompt_embeds.cond", "prompt_embeds.uncond"] {
      let error = relativeError(try #require(recording.tensor(name)).floats(), try exact.floats(name))
      #expect(error > 0 && error <= 1.5 * yardstick, "\(reference.name) \(name): \(error), torch on text \(yardstick)")
    }
  }

  private static func image(_ width: Int, _ height: Int, seed: UInt64) -> RasterImage {
    var generator = SeededGenerator(state: seed)
    return RasterImage(
      width: width, height: height,
      pixels: (0..<3 * width * height).map { _ in UInt8.random(in: 0...255, using: &generator) })
  }

  /// Prompts with and without images, with images that others have too, and without text.
  private static let prompts: [PromptInput] = {
    let (a, b, c) = (image(120, 90, seed: 1), image(60, 300, seed: 2), image(29, 31, seed: 3))
    return [
      PromptInput("make it blue", template: .edit, images: [a]), PromptInput("a cat"),
      PromptInput("", template: .edit, images: [a]),
      PromptInput("as in the second one", template: .editPlus, images: [a, b]),
      PromptInput("\n\nwith blank lines in front", template: .edit, images: [b]),
      PromptInput(" ", template: .editPlus, images: [a, b]),
      PromptInput("and swapped", template: .editPlus, images: [b, a]),
      PromptInput("\n no image", template: .editPlus), PromptInput("no image", template: .editPlus),
      PromptInput("the same twice", template: .editPlus, images: [c, c, a]), PromptInput(" "),
      PromptInput("make it blue", template: .editPlus, images: [a]),
    ]
  }()

  /// Batched, remembered, and with any number of threads, as alone. The probe makes the encoder run whole sequences and
  /// read all images anew.
  @Test(arguments: [PrecisionChoice.fp32, .bf16, .int8, .q4]) func batchesGiveTheBytesOfSinglePrompts(
    _ precision: PrecisionChoice
  ) throws {
    let encoder = try Self.encoder(precision)
    let tokens = try Self.prompts.map { try encoder.tokens($0, field: "prompt") }
    let alone = tokens.map { encoder.encode($0, probe: Recording().probe).embeds }
    #expect(alone.map { $0.shape[0] } == tokens.map(\.count) && Set(alone.map { $0.floats() }).count == alone.count)
    #expect(encoder.encode(tokens).map { $0.embeds.floats() } == alone.map { $0.floats() }, "in a batch")
    for (index, prompt) in tokens.enumerated() {
      #expect(encoder.encode([prompt])[0].embeds.floats() == alone[index].floats(), "prompt \(index), remembered")
    }
    let other = try Self.encoder(precision, threads: 3)
    for (index, prompt) in tokens.enumerated().reversed() {
      #expect(other.encode([prompt])[0].embeds.floats() == alone[index].floats(), "prompt \(index), other threads")
    }
  }

  /// A prompt alone has the same embeddings whether the vision tower is there or not.
  @Test func theTowerChangesNothingForText() throws {
    let without = try Self.encoder(.bf16, readsImages: false), with = try Self.encoder(.bf16)
    for prompt in ["a cat", "", "<|image_pad|> and <|vision_start|>"] {
      #expect(try without.embeds(prompt).floats() == with.embeds(prompt).floats())
    }
    #expect(without.numericsClass == with.numericsClass)
  }

  @Test func requestsThatDoNotFitAreRefused() throws {
    let encoder = try Self.encoder(), a = Self.image(64, 64, seed: 4)
    let narrow = RasterImage(width: 1, height: 400, pixels: Array(repeating: 9, count: 1200))
    let large = RasterImage(width: 4000, height: 3000, pixels: Array(repeating: 9, count: 36_000_000))
    let cases: [(PromptInput, String)] = [
      (PromptInput("x", images: [a]), "prompt comes with images, which text-to-image does not take"),
      (PromptInput("x", template: .edit), "image must be one; there are 0"),
      (PromptInput("x", template: .edit, images: [a, a]), "image must be one; there are 2"),
      (PromptInput("x <|image_pad|>", template: .edit, images: [a]), "prompt contains <|image_pad|>"),
      (PromptInput("<|image_pad|>", template: .editPlus), "prompt contains <|image_pad|>"),
      (PromptInput("x", template: .edit, images: [narrow]), "image is 1×400 pixels"),
      (PromptInput("x", template: .editPlus, images: [large, large]), "image has 30602 tokens"),
      (
        PromptInput(String(repeating: "1", count: 508), template: .edit, images: [a]),
        "prompt has 508 tokens; the limit is 507"
      ),
      (PromptInput(String(repeating: "1", count: 508), template: .editPlus, images: [a, a]), "prompt has 508 tokens"),
      (PromptInput(String(repeating: "1", count: 508), template: .editPlus), "prompt has 508 tokens"),
    ]
    for (input, message) in cases {
      let error = #expect(throws: PipelineError.self) { try encoder.tokens(input, field: "prompt") }
      #expect(error?.description.hasPrefix(message) == true, "\(String(describing: error)), expected \(message)")
    }
    for template in [PromptInput.Template.edit, .editPlus] {
      let input = PromptInput(String(repeating: "1", count: 507), template: template, images: [a])
      #expect(try encoder.tokens(input, field: "prompt").droppedCount == 64)
    }
  }

  @Test func imagesNeedTheTower() throws {
    let encoder = try Self.encoder(readsImages: false)
    let error = #expect(throws: PipelineError.self) {
      try encoder.tokens(
        PromptInput("x", template: .edit, images: [Self.image(64, 64, seed: 4)]), field: "prompt")
    }
    #expect(error?.description == "prompt is about images, but this text encoder was loaded without its vision tower")
  }

  /// The published vocabulary is not there; the tiny one's tokens of the template are as many.
  @Test func tokensHaveTheImagesInTheirPlaces() throws {
    let encoder = try Self.encoder(), a = Self.image(120, 90, seed: 1), b = Self.image(60, 300, seed: 2)
    let tokens = try encoder.tokens(PromptInput("x", template: .editPlus, images: [a, b]), field: "prompt")
    let runs = tokens.ids.split(whereSeparator: { $0 != 579 }).map(\.count)
    #expect(runs == [4 * 3, 2 * 11] && tokens.images == [a, b] && tokens.droppedCount == 64)
    #expect(tokens.count == tokens.ids.count - 64)
  }
}
