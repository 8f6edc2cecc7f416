import Diffusion
import GoldenSupport
import Kernels
import ModelRegistry
import QwenImage
import TensorCore
import Testing
import Weights

@Suite struct PromptEncoderTests {
  private static let prompts = [
    "a cat", "", "\n\nwith blank lines in front",
    "ein Bär, <|im_start|>, 猫 and many more words, so that its rows are of several tiles",
    String(repeating: "a very long prompt, ", count: 70), " ",
  ]

  /// Batched and after the remembered prefix, as alone and without it. The probe makes the encoder run whole sequences.
  @Test(arguments: [PrecisionChoice.fp32, .bf16, .int8, .q4]) func batchesGiveTheBytesOfSinglePrompts(
    _ precision: PrecisionChoice
  ) throws {
    let model = try ModelDirectory(Golden.tinyCheckpoint)
    let encoder = try model.encoder(WeightLoading(precision: precision), pool: ThreadPool(threads: 2))
    let alone = try Self.prompts.map { try encoder.embeds($0, probe: Recording().probe).floats() }
    for (index, prompt) in Self.prompts.enumerated() { #expect(try encoder.embeds(prompt).floats() == alone[index]) }
    for count in 2...Self.prompts.count {
      let batch = encoder.encode(
        try Self.prompts.suffix(count).map { try encoder.tokens(PromptInput($0), field: "prompt") })
      #expect(batch.map { $0.embeds.floats() } == alone.suffix(count), "\(count) prompts at \(precision)")
    }
    #expect(encoder.encode([]).isEmpty)
  }

  /// Rows past the first tile of keys, where a query's tile may hold nothing that it sees.
  @Test(arguments: [Precision.fp32, .bf16]) func longSequencesAfterAPrefix(_ precision: Precision) throws {
    var configuration = TextEncoderConfiguration.published
    configuration.layerCount = 1
    configuration.vocabularySize = 1024
    configuration.hiddenSize = 256
    configuration.intermediateSize = 512
    configuration.headCount = 2
    configuration.keyValueHeadCount = 1
    let model = try LanguageModel(
      .synthetic("text_encoder"), configuration: configuration,
      compute: Compute(precision: precision, pool: ThreadPool(threads: 2)))
    let ids = (0..<900).map { $0 * 37 % 1024 }, whole = model(ids)
    for count in [1, 34, 191, 385] {
      let rest = model(
        [Array(ids[count...]), Array(ids[count..<count + 3])], after: model.prefix(Array(ids[..<count])))
      #expect(rest[0].floats() == whole.rows(count..<ids.count).floats(), "after \(count) at \(precision)")
      #expect(rest[1].floats() == whole.rows(count..<count + 3).floats(), "after \(count) at \(precision)")
    }
  }
}
