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

private let pool = ThreadPool(threads: 2)

/// Checkpoints whose prompts have images.
@Suite struct EditCheckpointTests {
  private static let classes = ["QwenImageEditPipeline", "QwenImageEditPlusPipeline", "QwenImageEditInpaintPipeline"]

  private static func copy(of source: URL = Golden.editCheckpoint) throws -> CheckpointCopy {
    let copy = try CheckpointCopy(of: Golden.tinyCheckpoint)
    try copy.write(Data(contentsOf: source.appending(path: "model_index.json")), to: "model_index.json")
    return copy
  }

  // MARK: - Fingerprints

  /// Recorded before images could be read: workers and journals know checkpoints by it.
  @Test func fingerprintsOfTextToImageStay() throws {
    let expected = "eacc2e143ca43a9749874fee682df10f3c4f6fb54e0a896feb23c1faec4f8aa9"
    #expect(try ModelDirectory(Golden.tinyCheckpoint).fingerprint == expected)
    let copy = try CheckpointCopy()
    for name in ["QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline"] {
      try copy.edit("model_index.json") { $0["_class_name"] = name }
      #expect(try ModelDirectory(copy.url).fingerprint == expected)
    }
    // What it does not read may be anything, as before.
    try copy.remove("processor")
    try copy.edit("text_encoder/config.json") { $0["vision_config"] = ["depth": -1] }
    #expect(try ModelDirectory(copy.url).fingerprint == expected)
    try copy.edit("text_encoder/config.json") { $0["vision_config"] = nil }
    #expect(try ModelDirectory(copy.url).fingerprint == expected)
  }

  @Test func fingerprintsOfEditClassesHaveWhatReadsImages() throws {
    let copy = try Self.copy()
    var fingerprints: Set = [try ModelDirectory(Golden.tinyCheckpoint).fingerprint]
    for name in Self.classes {
      try copy.edit("model_index.json") { $0["_class_name"] = name }
      let model = try ModelDirectory(copy.url)
      #expect(try model.className == name && model.card().pipelineClass == name)
      fingerprints.insert(model.fingerprint)
    }
    #expect(fingerprints.count == 4)
    let last = try ModelDirectory(copy.url).fingerprint
    #expect(fingerprints.contains(last))
    try copy.edit("processor/preprocessor_config.json") { $0["max_pixels"] = 1_000_000 }
    #expect(try fingerprints.insert(ModelDirectory(copy.url).fingerprint).inserted)
    try copy.edit("text_encoder/config.json") {
      var vision = $0["vision_config"] as? [String: Any] ?? [:]
      vision["fullatt_block_indexes"] = [1]
      $0["vision_config"] = vision
    }
    #expect(try fingerprints.insert(ModelDirectory(copy.url).fingerprint).inserted)
  }

  // MARK: - Configurations

  @Test func readsTheTinyCheckpoint() throws {
    let family = try ModelDirectory(Golden.editCheckpoint).qwenImage, vision = try #require(family.vision)
    #expect(vision.depth == 4 && vision.hiddenSize == 32 && vision.intermediateSize == 42 && vision.headCount == 2)
    #expect(vision.fullAttentionBlocks == [1, 3] && vision.outputSize == 64 && vision.headDim == 16)
    let inventory = family.inventory(of: .textEncoder)
    let weights = try ModelDirectory(Golden.editCheckpoint).weights(of: .textEncoder)
    #expect(weights.names == inventory.parameters.map(\.name).sorted())
    for parameter in inventory.parameters { _ = try weights.tensor(parameter.name, parameter.shape) }
  }

  /// As published, as transformers 5 writes it, and with nothing but what differs from the published values.
  @Test func readsPublishedValues() throws {
    let directory = try TemporaryDirectory()
    let fields =
      #""depth":32,"hidden_act":"silu","hidden_size":1280,"intermediate_size":3420,"num_heads":16,"in_chans":3,"#
      + #""out_hidden_size":3584,"patch_size":14,"spatial_merge_size":2,"spatial_patch_size":14,"window_size":112,"#
      + #""fullatt_block_indexes":[7,15,23,31],"tokens_per_second":2,"temporal_patch_size":2"#
    for text in [
      #"{"hidden_size":3584,"vision_config":{\#(fields)}}"#,
      #"{"text_config":{"hidden_size":3584},"vision_config":{\#(fields),"in_channels":3,"dtype":"bfloat16"}}"#,
      #"{"vision_config":{}}"#, "{}",
    ] {
      let file = try directory.write(text, as: "config.json")
      #expect(try VisionConfiguration(contentsOf: file, hiddenSize: 3584) == .published)
    }
    let file = try directory.write(#"{"vision_config":{"depth":20}}"#, as: "config.json")
    #expect(try VisionConfiguration(contentsOf: file, hiddenSize: 3584).fullAttentionBlocks == [7, 15])
  }

  @Test func readsEveryLayoutOfTheProcessor() throws {
    func read(_ files: [String: String]) throws -> ImageProcessorConfiguration {
      let directory = try TemporaryDirectory()
      for (name, text) in files { _ = try directory.write(text, as: name) }
      return try ImageProcessorConfiguration(directory: directory.url, vision: .published)
    }
    let published = try read([
      "preprocessor_config.json": try String(
        contentsOf: Golden.tinyCheckpoint.appending(path: "processor/preprocessor_config.json"), encoding: .utf8)
    ])
    #expect(published == .published)
    #expect(try read([:]) == .published && read(["preprocessor_config.json": "{}"]) == .published)
    let sized = try read(["preprocessor_config.json": #"{"size":{"shortest_edge":784,"longest_edge":1568}}"#])
    #expect(sized.minPixels == 784 && sized.maxPixels == 1568)
    let both = try read([
      "preprocessor_config.json": #"{"min_pixels":900,"size":{"shortest_edge":784,"longest_edge":1568}}"#
    ])
    #expect(both.minPixels == 900 && both.maxPixels == 1568)
    let nested = try read([
      "processor_config.json": #"{"image_processor":{"image_mean":[0.5,0.5,0.5],"image_std":[1,1,1]}}"#,
      "preprocessor_config.json": #"{"min_pixels":900}"#,
    ])
    #expect(nested.mean == [0.5, 0.5, 0.5] && nested.standardDeviation == [1, 1, 1] && nested.minPixels == 3136)
    let old = try read([
      "processor_config.json": #"{"processor_class":"Qwen2VLProcessor"}"#,
      "preprocessor_config.json": #"{"min_pixels":900}"#,
    ])
    #expect(old.minPixels == 900)
  }

  /// A field of a file, its value, and what the error must say.
  @Test(arguments: [
    ("vision_config", "depth", "0", "text_encoder/config.json: vision_config.depth is 0, must be in 1...512"),
    ("vision_config", "num_heads", "3", "vision_config.num_heads is 3, must be a divisor of hidden_size 32"),
    (
      "vision_config", "num_heads", "16", "vision_config.hidden_size is 32, must be a multiple of 4 times num_heads, 16"
    ),
    ("vision_config", "window_size", "100", "vision_config.window_size is 100, must be a multiple of patch_size"),
    ("vision_config", "out_hidden_size", "65", "vision_config.out_hidden_size is 65, must be the language model's"),
    ("vision_config", "fullatt_block_indexes", "[4]", "vision_config.fullatt_block_indexes[0] is 4, must be in 0...3"),
    ("vision_config", "in_chans", "4", "vision_config.in_chans is 4, must be 3"),
    ("vision_config", "hidden_act", "\"gelu\"", "vision_config.hidden_act \"gelu\" is not supported"),
    ("vision_config", "patch_size", "\"14\"", "vision_config.patch_size is a string, expected an integer"),
    ("processor", "max_pixels", "0", "processor/preprocessor_config.json: max_pixels is 0"),
    ("processor", "min_pixels", "99999999", "min_pixels is 99999999, must be at most max_pixels, 12845056"),
    ("processor", "image_std", "[1,1,0]", "image_std[2] is 0.0, must be in"),
    ("processor", "image_mean", "[1,1]", "image_mean is 2 elements long"),
    ("processor", "do_resize", "false", "do_resize false is not supported"),
    ("processor", "resample", "2", "resample 2 is not supported, supported: 3 (bicubic)"),
    ("processor", "merge_size", "4", "merge_size is 4, must be 2, as the vision tower has it"),
    ("processor", "image_processor_type", "\"CLIPImageProcessor\"", "image_processor_type \"CLIPImageProcessor\""),
    ("model_index", "processor", "null", "model_index.json: processor is missing"),
    (
      "model_index", "processor", "[\"transformers\",\"CLIPProcessor\"]", "processor \"CLIPProcessor\" is not supported"
    ),
  ])
  func wrongFieldsAreNamed(_ part: String, _ field: String, _ value: String, _ message: String) throws {
    let copy = try Self.copy()
    let new = try JSONSerialization.jsonObject(with: Data(value.utf8), options: .fragmentsAllowed)
    switch part {
    case "vision_config":
      try copy.edit("text_encoder/config.json") {
        var vision = $0["vision_config"] as? [String: Any] ?? [:]
        vision[field] = new
        $0["vision_config"] = vision
      }
    case "processor": try copy.edit("processor/preprocessor_config.json") { $0[field] = new }
    default: try copy.edit("model_index.json") { $0[field] = new }
    }
    let error = #expect(throws: ConfigurationError.self) { try ModelDirectory(copy.url) }
    #expect(error?.description.contains(message) == true, "\(String(describing: error))")
  }

  @Test func aTowerThatIsNotConfiguredIsMissed() throws {
    let copy = try Self.copy()
    try copy.edit("text_encoder/config.json") { $0["vision_config"] = nil }
    let error = #expect(throws: ConfigurationError.self) { try ModelDirectory(copy.url) }
    #expect(error?.description.hasSuffix("text_encoder/config.json: vision_config is missing") == true)
  }

  @Test func aTokenizerWithAnotherImageTokenIsRefused() throws {
    let copy = try Self.copy()
    try copy.edit("text_encoder/config.json") { $0["image_token_id"] = 580 }
    let model = try ModelDirectory(copy.url)
    let error = #expect(throws: PipelineError.self) { try Self.encoder(model, .fp32) }
    #expect(
      error?.description.contains(
        "gives <|image_pad|> the id 579, but image_token_id of text_encoder/config.json is 580")
        == true)
  }

  // MARK: - Written checkpoints

  private static func encoder(_ model: ModelDirectory, _ precision: PrecisionChoice) throws -> any PromptConditioner {
    try model.family.conditioner(
      of: model, loading: WeightLoading(precision: precision), pool: pool, limits: model.card().limits,
      readsImages: true)
  }

  private static let input = PromptInput(
    "make it blue", template: .edit,
    images: [RasterImage(width: 90, height: 70, pixels: (0..<90 * 70 * 3).map { UInt8($0 * 7 % 256) })])

  private static func embeds(_ model: ModelDirectory, _ precision: PrecisionChoice) throws -> [Float] {
    let encoder = try encoder(model, precision)
    return encoder.encode([try encoder.tokens(input, field: "prompt")])[0].embeds.floats()
  }

  /// A packed checkpoint gives the bytes of the published one in the same mode.
  @Test(arguments: [Precision.bf16, .int8, .q4]) func quantisingKeepsTheTower(_ precision: Precision) throws {
    let directory = try TemporaryDirectory(), url = directory.url.appending(path: "m")
    let source = try ModelDirectory(Golden.editCheckpoint)
    _ = try QuantisedCheckpoint.write(source, precision: precision, to: url, pool: pool) { _, _ in }
    let model = try ModelDirectory(url), names = try model.weights(of: .textEncoder).names
    #expect(model.fingerprint == source.fingerprint && model.className == "QwenImageEditPipeline")
    #expect(names.contains("visual.patch_embed.proj.weight") && names.contains("visual.merger.ln_q.weight"))
    #expect(!names.contains { $0.hasPrefix("lm_head") })
    let choice = try #require(PrecisionChoice(rawValue: precision.rawValue))
    #expect(try Self.embeds(model, .auto) == Self.embeds(source, choice))
    let exact = try Self.embeds(source, .fp32)
    #expect(try relativeError(Self.embeds(source, choice), exact) < [.bf16: 0.02, .int8: 0.05, .q4: 0.25][precision]!)

    let plain = directory.url.appending(path: "t")
    _ = try QuantisedCheckpoint.write(
      ModelDirectory(Golden.tinyCheckpoint), precision: precision, to: plain, pool: pool
    ) { _, _ in }
    let text = try ModelDirectory(plain)
    #expect(try !text.weights(of: .textEncoder).names.contains { $0.hasPrefix("visual.") })
    let error = #expect(throws: WeightsError.self) { try Self.encoder(text, .auto) }
    #expect(error?.description.contains("\"visual.patch_embed.proj.weight\"") == true)
  }

  @Test func aCheckpointWithoutItsTowerIsNotQuantised() throws {
    let directory = try TemporaryDirectory(), copy = try Self.copy()
    try copy.merge(.textEncoder) { $0["visual.blocks.2.attn.qkv.weight"] = nil }
    let error = #expect(throws: WeightsError.self) {
      _ = try QuantisedCheckpoint.write(
        ModelDirectory(copy.url), precision: .int8, to: directory.url.appending(path: "m"), pool: pool
      ) { _, _ in }
    }
    #expect(error?.description.contains("\"visual.blocks.2.attn.qkv.weight\"") == true)
  }

  /// The weights of text-to-image checkpoints have the tower too, unless they were left out.
  @Test func textToImageCheckpointsCanReadImages() throws {
    let edit = try Self.embeds(ModelDirectory(Golden.editCheckpoint), .fp32)
    #expect(try Self.embeds(ModelDirectory(Golden.tinyCheckpoint), .fp32) == edit)
  }

  /// They have all parts that pipelines without images in the prompt need.
  @Test func editCheckpointsServeTextToImageImageToImageAndInpainting() throws {
    let copy = try Self.copy()
    for name in Self.classes {
      try copy.edit("model_index.json") { $0["_class_name"] = name }
      let served = try ModelDirectory(copy.url).card().pipelines
      #expect(served.contains(name == "QwenImageEditPlusPipeline" ? .editPlus : .edit))
      #expect(Set(served).isSuperset(of: [.textToImage, .imageToImage, .inpaint, .editInpaint]), "\(name): \(served)")
    }
  }

  @Test(arguments: [(Precision.bf16, false), (.bf16, true), (.int8, true), (.q4, true)])
  func syntheticCheckpointsHaveTheTower(_ precision: Precision, _ isPacked: Bool) throws {
    let directory = try TemporaryDirectory(), url = directory.url.appending(path: "m")
    try SyntheticCheckpoint.write(
      .directory(Golden.editCheckpoint), seed: 5, precision: precision, isPacked: isPacked, families: .standard,
      to: url,
      pool: pool
    ) { _, _ in }
    let model = try ModelDirectory(url)
    #expect(model.className == "QwenImageEditPipeline")
    #expect(try Self.embeds(model, .auto).allSatisfy(\.isFinite))
    let packed = try model.weights(of: .textEncoder).isPacked("visual.blocks.1.mlp.up_proj.weight")
    #expect(packed == (precision == .bf16 && isPacked))
  }
}
