import Diffusion
import Foundation
import GoldenSupport
import ImageCodec
import Kernels
import QwenImage21
import TensorCore
import Testing

/// Prompts, with and without images, through tokenizer, vision tower and language model.
@Suite struct PromptEncoderTests {
  /// Compares everything that the reference recorded of its text encoder. A batch is padded there, on the left in the
  /// text encoder, on the right behind it.
  @Test(arguments: RecordedPrompts.all) func everyIntermediateAgreesInFP32(_ recorded: RecordedPrompts) throws {
    let encoder = try TinyTextEncoder().encoder(), reference = try recorded.reference()
    var compared: Set<String> = []
    func compare(_ name: String, _ actual: [Float], _ expected: [Float]) {
      let error = relativeError(actual, expected)
      #expect(error <= 1e-4, "\(recorded.name): \(name), relative error \(error)")
      compared.insert(name)
    }
    for (number, image) in try recorded.images().enumerated() {
      let name = number == 0 ? "image.resized_u8" : "image.resized_u8#\(number)"
      guard reference.names.contains(name) else { continue }
      #expect(try reference.floats(name) == image.pixels.map(Float.init), "\(recorded.name): \(name)")
      compared.insert(name)
    }
    for (branch, prompts) in try recorded.branches() {
      for (index, prompt) in prompts.enumerated() {
        let recording = Recording()
        let result = encoder.encode(try encoder.tokens(prompt, field: "prompt"), probe: recording.probe)
        for (name, tensor) in recording.all {
          let isShared = name.hasPrefix("vis.") || ["pixel_values", "image_grid_thw"].contains(name)
          let full = name.hasPrefix("vis.") ? name : isShared ? "te.\(name)" : "te.\(branch).\(name)"
          guard reference.names.contains(full) else { continue }
          // Positions of padded text count the padding, which changes nothing.
          guard prompts.count == 1 || name != "position_ids" else { continue }
          compare(full, tensor.floats(), try last(tensor.elementCount, of: reference, full, index, of: prompts.count))
        }
        try compareResult(result, prompt, reference, branch, sample: index, of: prompts.count, compare)
        compared.insert("image_pad_mask.\(branch)")
      }
    }
    let missing = reference.names.subtracting(compared).filter { name in
      let isOfText = ["te.", "vis.", "prompt_embeds.", "image"].contains { name.hasPrefix($0) }
      return isOfText && !name.hasSuffix("attention_mask")
        && !(recorded.name.hasSuffix("batch2") && name.hasSuffix("position_ids"))
    }
    #expect(missing.isEmpty, "reference tensors that nothing was compared with: \(missing.sorted())")
  }

  /// Compares what comes out: the rows of text, and where the images between them are. The reference has rows of images
  /// too, which its denoising network does not use.
  private func compareResult(
    _ result: PromptConditioning, _ prompt: PromptInput, _ reference: ReferenceTensors, _ branch: String, sample: Int,
    of samples: Int, _ compare: (String, [Float], [Float]) -> Void
  ) throws {
    let name = "prompt_embeds.\(branch)", shape = try reference.shape(name), (length, width) = (shape[1], shape[2])
    let row = sample * (shape[0] / samples)
    let rows = Array(try reference.floats(name)[row * length * width..<(row + 1) * length * width])
    let masks = try reference.floats("image_pad_mask.\(branch)")
    let mask = masks.count == length ? masks : Array(masks[sample * length..<(sample + 1) * length])
    let text = (0..<length).filter { mask[$0] == 0 }
    let expected = text.flatMap { rows[$0 * width..<($0 + 1) * width] }
    compare(name, result.embeds.floats(), Array(expected.prefix(result.embeds.elementCount)))
    #expect(expected.dropFirst(result.embeds.elementCount).allSatisfy { $0 == 0 })
    let places = (0..<length).filter { mask[$0] == 1 && mask[$0 - 1] == 0 }.map { place in
      text.count { $0 < place }
    }
    #expect(result.imagePlaces == places && places.count == prompt.images.count)
    let tokens = prompt.images.reduce(0) { $0 + $1.width * $1.height / 1024 }
    #expect(length - text.count == tokens)
  }

  /// The last elements of one sample of a recorded batch.
  private func last(
    _ count: Int, of reference: ReferenceTensors, _ name: String, _ index: Int, of samples: Int
  ) throws -> [Float] {
    let all = try reference.floats(name), each = all.count / samples
    return Array(all[index * each..<(index + 1) * each].suffix(samples == 1 ? each : count))
  }

  /// bf16 must not be further from fp32 than 1.5 times what torch's own bf16 run is. It was recorded for a prompt
  /// alone; those with images are held to the same.
  @Test(arguments: RecordedPrompts.all) func bf16StaysWithinTheYardstick(_ recorded: RecordedPrompts) throws {
    let text = try ReferenceTensors(Golden.reference("t2i_64x64.safetensors"))
    let yardstick = relativeError(
      try text.floats("bf16.te.cond.hidden_pre_norm"), try text.floats("te.cond.hidden_pre_norm"))
    let reference = try recorded.reference(), encoder = try TinyTextEncoder().encoder(.bf16)
    let prompts = try recorded.branches()[0].prompts
    for (index, prompt) in prompts.enumerated() {
      let recording = Recording()
      _ = encoder.encode(try encoder.tokens(prompt, field: "prompt"), probe: recording.probe)
      let hidden = try #require(recording.tensor("hidden_pre_norm"))
      let exact = try last(hidden.elementCount, of: reference, "te.cond.hidden_pre_norm", index, of: prompts.count)
      let error = relativeError(hidden.floats(), exact)
      #expect(error > 0 && error <= 1.5 * yardstick, "\(recorded.name): \(error), torch on text \(yardstick)")
    }
  }

  // MARK: - Batches

  private static func image(_ width: Int, _ height: Int, seed: Int, channels: Int = 3) -> RasterImage {
    let pixels = (0..<channels * width * height).map { UInt8(truncatingIfNeeded: $0 * $0 / (seed + 3) + $0 * seed) }
    return RasterImage(width: width, height: height, channels: channels, pixels: pixels)
  }

  /// Prompts with and without images, with images that others have too, and without text.
  private static let prompts: [PromptInput] = {
    let (a, b, c) = (image(96, 64, seed: 1), image(32, 160, seed: 2, channels: 4), image(32, 32, seed: 5))
    return [
      PromptInput("make it blue", template: .edit, images: [a]), PromptInput("a cat"),
      PromptInput("", template: .edit, images: [a]),
      PromptInput("as in <image2>", template: .editPlus, images: [a, b]),
      PromptInput("\n\nwith blank lines in front", template: .edit, images: [b]),
      PromptInput(" of both", template: .editPlus, images: [a, b]),
      PromptInput("and swapped", template: .editPlus, images: [b, a]),
      PromptInput("the same twice", template: .editPlus, images: [c, c, a]), PromptInput(""),
      PromptInput(String(repeating: "a long prompt, ", count: 60)),
      PromptInput("ten", template: .editPlus, images: Array(repeating: c, count: 9) + [a]),
    ]
  }()

  /// Batched, remembered, and with any number of threads, as alone. The probe makes the encoder run whole sequences and
  /// read all images anew.
  @Test(arguments: Precision.allCases) func batchesGiveTheBytesOfSinglePrompts(_ precision: Precision) throws {
    let tiny = try TinyTextEncoder(), encoder = try tiny.encoder(precision)
    let tokens = try Self.prompts.map { try encoder.tokens($0, field: "prompt") }
    let alone = tokens.map { encoder.encode($0, probe: Recording().probe).embeds }
    let imageTokens = Self.prompts.map { $0.images.reduce(0) { $0 + $1.width * $1.height / 1024 } }
    #expect(zip(alone, imageTokens).map { $0.shape[0] + $1 } == tokens.map(\.count))
    #expect(Set(alone.map { $0.floats() }).count == alone.count)
    #expect(encoder.encode(tokens).map { $0.embeds.floats() } == alone.map { $0.floats() }, "in a batch")
    for (index, prompt) in tokens.enumerated() {
      #expect(encoder.encode([prompt])[0].embeds.floats() == alone[index].floats(), "prompt \(index), remembered")
    }
    let other = try tiny.encoder(precision, threads: 3)
    for (index, prompt) in tokens.enumerated().reversed() {
      #expect(other.encode([prompt])[0].embeds.floats() == alone[index].floats(), "prompt \(index), other threads")
    }
    #expect(encoder.encode([]).isEmpty)
  }

  /// How far the quantised modes are from fp32 on these small networks.
  @Test(arguments: [(Precision.int8, 0.1), (.q4, 0.3)]) func quantisedModesStayNear(
    _ precision: Precision, _ limit: Double
  ) throws {
    let tiny = try TinyTextEncoder(), exact = try tiny.encoder(), encoder = try tiny.encoder(precision)
    for prompt in Self.prompts {
      let tokens = try exact.tokens(prompt, field: "prompt")
      let error = relativeError(
        encoder.encode([tokens])[0].embeds.floats(), exact.encode([tokens])[0].embeds.floats())
      #expect(error > 0 && error < limit, "\(prompt.text) at \(precision): \(error)")
    }
  }

  /// A prompt alone has the same embeddings whether the vision tower is there or not.
  @Test func theTowerChangesNothingForText() throws {
    let without = try TinyTextEncoder().encoder(.bf16, readsImages: false), with = try TinyTextEncoder().encoder(.bf16)
    for prompt in ["a cat", "", "<think> and <|vision_start|>"] {
      let tokens = try with.tokens(PromptInput(prompt), field: "prompt")
      #expect(try without.tokens(PromptInput(prompt), field: "prompt").ids == tokens.ids)
      #expect(without.encode([tokens])[0].embeds.floats() == with.encode([tokens])[0].embeds.floats())
    }
    #expect(without.numericsClass == with.numericsClass)
  }

  // MARK: - Refusals

  @Test func requestsThatDoNotFitAreRefused() throws {
    let tiny = try TinyTextEncoder(), encoder = try tiny.encoder(maxPromptTokens: 20), a = Self.image(64, 64, seed: 4)
    let long = String(repeating: "1", count: 21)
    let cases: [(PromptInput, String)] = [
      (PromptInput("x", images: [a]), "prompt comes with images, which text-to-image does not take"),
      (PromptInput("x", template: .edit), "image must be 1 to 10; there are 0"),
      (PromptInput("x", template: .editPlus, images: Array(repeating: a, count: 11)), "image must be 1 to 10; there"),
      (PromptInput("x <|image_pad|>"), "prompt contains <|image_pad|>, which stands for an image; remove it"),
      (PromptInput("x <|image_pad|>", template: .edit, images: [a]), "prompt contains <|image_pad|>"),
      (
        PromptInput("x", template: .edit, images: [Self.image(64, 80, seed: 1)]),
        "image is 64×80 pixels; both sides must be multiples of 32"
      ),
      (
        PromptInput("x", template: .edit, images: [Self.image(32, 6432, seed: 1)]),
        "image is 32×6432 pixels; the longer side may be at most 200 times the shorter"
      ),
      (
        PromptInput("x", template: .edit, images: [Self.image(4128, 4096, seed: 1)]),
        "image has 4128×4096 pixels after it was resized; this model takes 1024 to 16777216 pixels"
      ),
      (
        PromptInput("x", template: .editPlus, images: Array(repeating: Self.image(2048, 2048, seed: 1), count: 5)),
        "image has 20480 tokens in the text encoder, all images together; the limit is 16384"
      ),
      (PromptInput(long), "prompt has 21 tokens; the limit is 20"),
      (PromptInput(long, template: .edit, images: [a]), "prompt has 21 tokens; the limit is 20"),
    ]
    for (input, message) in cases {
      let error = #expect(throws: PipelineError.self) { try encoder.tokens(input, field: "prompt") }
      #expect(error?.description.hasPrefix(message) == true, "\(String(describing: error)), expected \(message)")
    }
    for images in [[], [a], [a, a]] {
      let input = PromptInput(
        String(long.dropLast()), template: images.isEmpty ? .textToImage : .editPlus, images: images)
      #expect(try encoder.tokens(input, field: "prompt").droppedCount == 14)
    }
  }

  @Test func imagesNeedTheTower() throws {
    let encoder = try TinyTextEncoder().encoder(readsImages: false)
    let error = #expect(throws: PipelineError.self) {
      try encoder.tokens(PromptInput("x", template: .edit, images: [Self.image(64, 64, seed: 4)]), field: "prompt")
    }
    #expect(error?.description == "prompt is about images, but this text encoder was loaded without its vision tower")
  }

  /// With the published limits small references cannot be read.
  @Test func smallReferencesAreRefusedByThePublishedLimits() throws {
    var tiny = try TinyTextEncoder()
    tiny.images.processor = .qwen3Published
    let encoder = try tiny.encoder()
    let error = #expect(throws: PipelineError.self) {
      try encoder.tokens(PromptInput("x", template: .edit, images: [Self.image(256, 224, seed: 4)]), field: "prompt")
    }
    let message = try #require(error?.description)
    #expect(message.contains("this model takes 65536 to 16777216 pixels"), "\(message)")
    _ = try encoder.tokens(PromptInput("x", template: .edit, images: [Self.image(256, 256, seed: 4)]), field: "prompt")
  }
}
