import ClusterCore
import Diffusion
import Foundation
import GoldenSupport
import ImageCodec
import Kernels
import QwenImage21
import StrictJSON
import TensorCore
import Testing

/// Whole calls of diffusers' pipeline, from the files of prompts and references to that of the image.
@Suite struct RecordedPipelineTests {
  private static let families = ModelFamilies([QwenImage21Family.self])

  /// Without the second prompts of the two batches: padding changes what is made of them.
  @Test(arguments: DenoisingCase.names) func imagesAgree(_ name: String) throws {
    let document = try JSON(Array(Data(contentsOf: Golden.reference("\(name).json"))))
    let call = try #require(document["call"])
    let isTurbo = document["checkpoint"]?.text == "checkpoint-turbo"
    let directory = try ModelDirectory(
      isTurbo ? Golden.turboCheckpoint : Golden.checkpoint, families: Self.families)
    let card = try directory.card()
    #expect(card.limits.scheduleSteps == (isTurbo ? 8 : nil))

    var inputs = PipelineInputs()
    inputs.outputResolutionPx = call["output_resolution"]?.integer
    for file in call["image"]?.elements ?? [] {
      let url = Golden.checkpoint.deletingLastPathComponent().appending(path: "inputs/\(try #require(file.text))")
      inputs.images.append(try PNG.decode([UInt8](Data(contentsOf: url))).image)
    }
    let pipeline = try card.pipeline(named: nil, for: inputs.summary)
    #expect(pipeline == (inputs.images.isEmpty ? .textToImage : .editPlus))
    // The pipeline makes sides that are no multiples of 32 smaller; this project wants to be asked for what it makes.
    let asked = call["height"]?.integer.flatMap { height in
      call["width"]?.integer.map { ImageSize(widthPx: $0, heightPx: height).floored(to: 32) }
    }
    let size = card.size(
      for: pipeline, asked, inputs.summary.sizes, outputResolutionPx: inputs.outputResolutionPx)
    let request = ImageRequest(
      card, prompt: try #require(call["prompt"]?.text ?? call["prompt"]?[0]?.text),
      negativePrompt: call["negative_prompt"]?.text, trueCFGScale: call["true_cfg_scale"]?.double,
      steps: call["num_inference_steps"]?.integer, width: size.widthPx, height: size.heightPx,
      seed: UInt64(try #require(document["seed"]?.integer)))
    let model = try LocalModel(
      directory, for: pipeline, loading: WeightLoading(precision: .fp32, cache: .none), pool: ThreadPool(threads: 2),
      options: PredictorOptions(usesPrefixCache: call["use_kv_cache"] != .bool(false)))
    let made = try model(pipeline, request, inputs)[0]

    let files = ["\(name).png", "\(name).0.png"].map(Golden.reference)
    let file = try #require(files.first { FileManager.default.fileExists(atPath: $0.path) })
    let recorded = try PNG.decode([UInt8](Data(contentsOf: file))).image
    #expect(made.channels == 4 && made.size == recorded.size)
    let far = zip(made.pixels, recorded.pixels).count { abs(Int($0) - Int($1)) > 1 }
    #expect(far == 0, "\(far) of \(made.pixels.count) values are further than 1/255")
  }

  /// What other programs would make of the checkpoint, or what is not in it, is named.
  @Test func checkpointsAreChecked() throws {
    let copy = try TemporaryCheckpoint()
    try copy.edit("model_index.json", "QwenImage21Pipeline", "QwenImage21EditPipeline")
    #expect(throws: ConfigurationError.self) { try ModelDirectory(copy.url, families: Self.families) }
    try copy.edit("model_index.json", "QwenImage21EditPipeline", "QwenImage21Pipeline")
    try copy.edit("transformer/config.json", #""context_in_dim": 48"#, #""context_in_dim": 64"#)
    let error = #expect(throws: ConfigurationError.self) { try ModelDirectory(copy.url, families: Self.families) }
    #expect("\(try #require(error))".contains("context_in_dim is 64, the text encoder's hidden_size 48"))
  }

  /// Published configurations give the published sizes, and files that can be read.
  @Test func syntheticCheckpointsAreOfThePublishedSize() throws {
    let folder = try TemporaryCheckpoint(empty: true)
    for (path, data) in try QwenImage21Family.syntheticFiles(.published, withTokenizer: true) {
      let file = folder.url.appending(path: path)
      try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
      try data.write(to: file)
    }
    let directory = try ModelDirectory(folder.url, families: Self.families), family = directory.family
    #expect(family.inventory(of: .transformer).valueCount == 7_115_124_736)
    #expect(family.inventory(of: .textEncoder).valueCount == 8_767_123_696)
    #expect(family.inventory(of: .vae).valueCount == 337_740_404)
    let card = try directory.card()
    #expect(card.defaults.steps == 40 && card.defaults.size == ImageSize(widthPx: 1024, heightPx: 1024))
    #expect(card.references.maxCount == 10 && card.hasTransparency)
    // What a checkpoint says of areas leaves the number of images as it is.
    try Data(#"{"reference_area": 65536}"#.utf8).write(to: folder.url.appending(path: "generation_defaults.json"))
    let references = try ModelDirectory(folder.url, families: Self.families).card().references
    #expect(references == ReferenceAreas(referencePx: 65536, conditionPx: 1024 * 1024, maxCount: 10))
    let tokenizer = try Tokenizer(directory: directory.url(of: .tokenizer))
    #expect(tokenizer.id(of: "</think>") == 151_668)
    let system = "<|im_start|>system\nComprehend and analyze the provided prompt.<|im_end|>\n"
    #expect(tokenizer.encode(system).count == 14)
  }

  /// A distilled checkpoint with random weights is read as one: its steps are those of the recorded one, and none are
  /// added.
  @Test func syntheticTurboCheckpointsFixTheirSteps() throws {
    #expect(
      Self.families.syntheticNames == [
        "qwen-image-2.1", "qwen-image-2.1-tiny", "qwen-image-2.1-turbo", "qwen-image-2.1-turbo-tiny", "tiny",
      ])
    let folder = try TemporaryCheckpoint(empty: true), pool = ThreadPool(threads: 2)
    let url = folder.url.appending(path: "model")
    try SyntheticCheckpoint.write(
      #require(Self.families.synthetic("qwen-image-2.1-turbo-tiny")), seed: 5, precision: .bf16,
      families: Self.families, to: url, pool: pool
    ) { _, _ in }
    let directory = try ModelDirectory(url, families: Self.families), card = try directory.card()
    let recorded = try ModelDirectory(Golden.turboCheckpoint, families: Self.families)
    #expect(directory.scheduler == recorded.scheduler && directory.scheduler.sampleSigmas?.count == 8)
    #expect(card.limits.scheduleSteps == 8 && card.defaults.steps == 8)

    let model = try LocalModel(
      directory, for: .textToImage, loading: WeightLoading(precision: .bf16, cache: .none), pool: pool)
    let request = ImageRequest(
      card, prompt: "a red heart", negativePrompt: nil, trueCFGScale: nil, steps: nil, width: 64, height: 64, seed: 1)
    let image = try model(.textToImage, request, PipelineInputs())[0]
    #expect(image.size == ImageSize(widthPx: 64, heightPx: 64) && Set(image.pixels).count > 4)
  }

  /// That of the published sizes differs from the first release in nothing but its steps.
  @Test func syntheticTurboCheckpointsAreOfThePublishedSize() throws {
    let base = try QwenImage21Family.syntheticFiles(.published, withTokenizer: false)
    let turbo = try QwenImage21Family.syntheticFiles(
      .published, release: "qwen-image-2.1-turbo", withTokenizer: false)
    let differing = base.keys.filter { base[$0] != turbo[$0] }.sorted()
    #expect(base.keys == turbo.keys && differing == ["model_index.json", "scheduler/scheduler_config.json"])
  }
}
