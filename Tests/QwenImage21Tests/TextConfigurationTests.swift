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
import Weights

/// The configuration of the text encoder, its tokenizer, and what its files hold.
@Suite struct TextConfigurationTests {
  private static let visionFields =
    #""deepstack_visual_indexes":[8,16,24],"depth":27,"hidden_act":"gelu_pytorch_tanh","hidden_size":1152,"#
    + #""in_channels":3,"initializer_range":0.02,"intermediate_size":4304,"model_type":"qwen3_vl","num_heads":16,"#
    + #""num_position_embeddings":2304,"out_hidden_size":4096,"patch_size":16,"spatial_merge_size":2,"#
    + #""temporal_patch_size":2"#
  private static let textFields =
    #""attention_bias":false,"attention_dropout":0.0,"bos_token_id":151643,"dtype":"bfloat16","eos_token_id":151645,"#
    + #""head_dim":128,"hidden_act":"silu","hidden_size":4096,"initializer_range":0.02,"intermediate_size":12288,"#
    + #""max_position_embeddings":262144,"model_type":"qwen3_vl_text","num_attention_heads":32,"#
    + #""num_hidden_layers":36,"num_key_value_heads":8,"rms_norm_eps":1e-06,"use_cache":true,"vocab_size":151936"#
  private static let topFields =
    #""architectures":["Qwen3VLForConditionalGeneration"],"image_token_id":151655,"model_type":"qwen3_vl","#
    + #""tie_word_embeddings":false,"transformers_version":"4.57.1","video_token_id":151656,"#
    + #""vision_end_token_id":151653,"vision_start_token_id":151652"#
  private static let published =
    #""rope_scaling":{"mrope_interleaved":true,"mrope_section":[24,20,20],"rope_type":"default"},"rope_theta":5000000"#
  private static let rewritten =
    #""rope_parameters":{"mrope_interleaved":true,"mrope_section":[24,20,20],"rope_type":"default","#
    + #""rope_theta":5000000.0}"#

  private static func write(_ text: String, to folder: URL, as name: String) throws -> URL {
    let url = folder.appending(path: name)
    try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
    try Data(text.utf8).write(to: url)
    return url
  }

  /// As published, and as transformers 5 writes it.
  @Test(arguments: [published, rewritten]) func readsPublishedValues(_ rope: String) throws {
    try withTemporaryFolder { folder in
      let text =
        #"{\#(Self.topFields),"text_config":{\#(Self.textFields),\#(rope)},"vision_config":{\#(Self.visionFields)}}"#
      let file = try Self.write(text, to: folder, as: "text_encoder/config.json")
      let configuration = try Qwen3TextConfiguration(contentsOf: file)
      #expect(configuration == .published)
      let processor =
        #"{"size":{"longest_edge":16777216,"shortest_edge":65536},"patch_size":16,"temporal_patch_size":2,"#
        + #""merge_size":2,"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5],"resample":3,"#
        + #""rescale_factor":0.00392156862745098,"do_convert_rgb":true,"do_normalize":true,"do_rescale":true,"#
        + #""do_resize":true,"min_pixels":null,"max_pixels":null,"image_processor_type":"Qwen2VLImageProcessorFast"}"#
      _ = try Self.write(processor, to: folder, as: "processor/preprocessor_config.json")
      let images = try Qwen3PromptImages(contentsOf: folder, text: configuration)
      #expect(images.vision == .published && images.processor == .qwen3Published)
      #expect(images.vision.headDim == 72 && images.vision.geometry.patchValues == 1536)
    }
  }

  @Test func readsTheTinyCheckpoint() throws {
    let tiny = try TinyTextEncoder(), text = tiny.text, vision = tiny.images.vision
    #expect(text.headDim == 16 && text.headCount == 4 && text.hiddenSize == 48 && text.mropeSection == [4, 2, 2])
    #expect(text.imageTokenID == 518 && text.vocabularySize == 576)
    #expect(vision.positionSide == 6 && vision.deepStackBlocks == [1, 2] && vision.depth == 4)
    #expect(tiny.images.processor.minPixels == 1024 && tiny.images.processor.maxPixels == 16_777_216)
  }

  /// A field of a file, its value, and what the error must say.
  @Test(arguments: [
    ("top", "model_type", "\"qwen2_5_vl\"", "text_encoder/config.json: model_type \"qwen2_5_vl\" is not supported"),
    ("top", "image_token_id", "576", "image_token_id is 576, must be in 0...575"),
    ("top", "quantization_config", "{\"quant_method\":\"fp8\"}", "quantization_config \"fp8\" is not supported"),
    ("top", "vision_config", "null", "config.json: vision_config is missing"),
    ("text_config", "hidden_act", "\"gelu\"", "text_config.hidden_act \"gelu\" is not supported"),
    ("text_config", "attention_bias", "true", "text_config.attention_bias true is not supported"),
    ("text_config", "use_sliding_window", "true", "text_config.use_sliding_window true is not supported"),
    ("text_config", "head_dim", "15", "text_config.head_dim is 15, must be an even number"),
    ("text_config", "num_key_value_heads", "3", "text_config.num_key_value_heads is 3, must be a divisor of"),
    ("text_config", "num_hidden_layers", "0", "text_config.num_hidden_layers is 0, must be in 1...512"),
    ("text_config", "num_hidden_layers", "1", "vision_config.deepstack_visual_indexes is [1, 2], must be no more than"),
    ("text_config", "rope_scaling", "null", "text_config.rope_scaling.mrope_section is missing"),
    ("text_config", "rope_theta", "null", "text_config.rope_theta is missing"),
    ("rope_scaling", "rope_type", "\"yarn\"", "text_config.rope_scaling.rope_type \"yarn\" is not supported"),
    ("rope_scaling", "mrope_interleaved", "false", "mrope_interleaved false is not supported"),
    (
      "rope_scaling", "mrope_section", "[4,4,4]",
      "text_config.rope_scaling.mrope_section is [4, 4, 4], must be 8 in sum"
    ),
    ("rope_scaling", "mrope_section", "[4,4]", "text_config.rope_scaling.mrope_section is 2 elements long"),
    ("vision_config", "depth", "0", "vision_config.depth is 0, must be in 1...512"),
    ("vision_config", "depth", "2", "vision_config.deepstack_visual_indexes[1] is 2, must be in 0...1"),
    ("vision_config", "deepstack_visual_indexes", "[2,1]", "vision_config.deepstack_visual_indexes is [2, 1], must be"),
    ("vision_config", "num_position_embeddings", "35", "num_position_embeddings is 35, must be the square of a number"),
    ("vision_config", "num_heads", "3", "vision_config.num_heads is 3, must be a divisor of hidden_size 32"),
    ("vision_config", "num_heads", "16", "vision_config.hidden_size is 32, must be a multiple of 4 times num_heads"),
    ("vision_config", "out_hidden_size", "64", "vision_config.out_hidden_size is 64, must be the language model's"),
    ("vision_config", "in_channels", "4", "vision_config.in_channels is 4, must be 3"),
    ("vision_config", "hidden_act", "\"gelu\"", "vision_config.hidden_act \"gelu\" is not supported"),
    ("vision_config", "model_type", "\"qwen3_5\"", "vision_config.model_type \"qwen3_5\" is not supported"),
    (
      "processor", "patch_size", "14", "processor/preprocessor_config.json: patch_size is 14, must be 16, as the vision"
    ),
    ("processor", "do_resize", "false", "do_resize false is not supported"),
    ("processor", "resample", "1", "resample 1 is not supported, supported: 3 (bicubic)"),
    ("processor", "image_std", "[1,1,0]", "image_std[2] is 0.0, must be in"),
    ("processor", "image_processor_type", "\"CLIPImageProcessor\"", "image_processor_type \"CLIPImageProcessor\""),
  ])
  func wrongFieldsAreNamed(_ part: String, _ field: String, _ value: String, _ message: String) throws {
    try withTemporaryFolder { folder in
      let new = try JSONSerialization.jsonObject(with: Data(value.utf8), options: .fragmentsAllowed)
      for name in ["text_encoder/config.json", "processor/preprocessor_config.json"] {
        let data = try Data(contentsOf: Golden.checkpoint.appending(path: name))
        let object = try JSONSerialization.jsonObject(with: data)
        var document = try #require(object as? [String: Any])
        if name.hasPrefix("text") == (part != "processor") {
          func change(_ object: inout [String: Any], _ path: ArraySlice<String>) {
            guard let key = path.first else { return object[field] = new }
            var inner = object[key] as? [String: Any] ?? [:]
            change(&inner, path.dropFirst())
            object[key] = inner
          }
          change(
            &document,
            ["top", "processor"].contains(part)
              ? []
              : part == "rope_scaling"
                ? ["text_config", part] : [part])
        }
        let text = String(decoding: try JSONSerialization.data(withJSONObject: document), as: UTF8.self)
        _ = try Self.write(text, to: folder, as: name)
      }
      let error = #expect(throws: ConfigurationError.self) {
        let file = folder.appending(path: "text_encoder/config.json")
        _ = try Qwen3PromptImages(contentsOf: folder, text: Qwen3TextConfiguration(contentsOf: file))
      }
      #expect(error?.description.contains(message) == true, "\(String(describing: error))")
    }
  }

  // MARK: - Tensors

  @Test func publishedParameterCounts() throws {
    let inventory = ParameterInventory(qwen3: .published)
    #expect(inventory.valueCount == 8_767_123_696 && inventory.parameters.count == 750)
    let vision = inventory.parameters.filter { $0.name.hasPrefix("model.visual.") }
    #expect(vision.count == 351 && vision.reduce(0) { $0 + $1.shape.elementCount } == 576_388_336)
    let layer = inventory.parameters.filter { $0.name.hasPrefix("model.language_model.layers.35.") }
    #expect(layer.count == 11 && layer.reduce(0) { $0 + $1.shape.elementCount } == 192_946_432)
  }

  @Test func everyTensorOfTheReferenceCheckpointIsListed() throws {
    let tiny = try TinyTextEncoder(), weights = try tiny.weights()
    let inventory = ParameterInventory(qwen3: tiny.text, vision: tiny.images.vision)
    #expect(weights.names == inventory.parameters.map(\.name).sorted() && weights.names.count == 116)
    for parameter in inventory.parameters { _ = try weights.tensor(parameter.name, parameter.shape) }
  }

  @Test func namesOfOtherClassesAreKnown() {
    let names = [
      "model.language_model.layers.0.mlp.up_proj.weight": "model.language_model.layers.0.mlp.up_proj.weight",
      "model.layers.0.mlp.up_proj.weight": "model.language_model.layers.0.mlp.up_proj.weight",
      "language_model.layers.0.mlp.up_proj.weight": "model.language_model.layers.0.mlp.up_proj.weight",
      "layers.0.mlp.up_proj.weight": "model.language_model.layers.0.mlp.up_proj.weight",
      "model.embed_tokens.weight": "model.language_model.embed_tokens.weight",
      "norm.weight": "model.language_model.norm.weight", "visual.pos_embed.weight": "model.visual.pos_embed.weight",
      "model.visual.pos_embed.weight": "model.visual.pos_embed.weight", "lm_head.weight": "lm_head.weight",
    ]
    for (stored, published) in names { #expect(Qwen3TextConfiguration.publishedTensorName(stored) == published) }
  }

  // MARK: - Tokenizer

  /// Recorded texts and ids: added tokens, templates with a prompt in place, and single texts.
  private func check(_ tokenizer: Tokenizer, _ vocabulary: String) throws {
    let document = try JSON(Array(Data(contentsOf: Golden.reference("tokenizer.json"))))
    let vectors = try #require(document[vocabulary]), prompt = try #require(document["prompt"]?.text)
    guard case .object(let specials)? = vectors["specials"], case .object(let templates)? = document["templates"] else {
      Issue.record("no added tokens or templates")
      return
    }
    #expect(specials.count == 26 && templates.count == 5)
    for (token, id) in specials { #expect(tokenizer.id(of: token) == id.integer && tokenizer.encode(token).count == 1) }
    for (name, template) in templates {
      let text = try #require(template.text).replacingOccurrences(of: "{}", with: prompt)
      let expected = vectors["template_ids_with_prompt"]?[name]?.elements?.compactMap(\.integer)
      #expect(tokenizer.encode(text) == expected, "template \(name)")
    }
    let cases = try #require(vectors["cases"]?.elements)
    #expect(cases.count > 20)
    for vector in cases {
      let text = try #require(vector["text"]?.text)
      #expect(tokenizer.encode(text) == vector["ids"]?.elements?.compactMap(\.integer), "\(text.debugDescription)")
    }
    #expect(vectors["drop_idx"]?.integer == 14)
  }

  @Test func tinyVocabularyAgreesWithTheReference() throws {
    try check(Tokenizer(directory: Golden.checkpoint.appending(path: "processor")), "checkpoint")
  }

  /// The published vocabulary is that of the first family, with four added tokens more.
  @Test func publishedVocabularyAgreesWithTheReference() throws {
    try withTemporaryFolder { folder in
      let source = golden.appending(path: "qwen2-tokenizer")
      for name in ["vocab.json", "merges.txt"] {
        try Data(gunzip(source.appending(path: name + ".gz"))).write(to: folder.appending(path: name))
      }
      let data = try Data(contentsOf: source.appending(path: "added_tokens.json"))
      var added = try JSONDecoder().decode([String: Int].self, from: data)
      for (index, token) in ["<tool_response>", "</tool_response>", "<think>", "</think>"].enumerated() {
        added[token] = 151_665 + index
      }
      try JSONEncoder().encode(added).write(to: folder.appending(path: "added_tokens.json"))
      let tokenizer = try Tokenizer(directory: folder)
      #expect(tokenizer.idCount == 151_669)
      try check(tokenizer, "published_vocabulary")
    }
  }

  // MARK: - Sizes of references

  /// Sizes of references, and what the text encoder's processor would make of them by its limits.
  @Test func referenceSizesAgreeWithTheReference() throws {
    let document = try JSON(Array(Data(contentsOf: Golden.reference("preprocess.json"))))
    let rows = try #require(document["rows"]?.elements)
    #expect(rows.count > 30)
    func preprocessor(_ minPixels: Int) -> ImagePreprocessor {
      var processor = ImageProcessorConfiguration.qwen3Published
      processor.minPixels = minPixels
      return ImagePreprocessor(
        geometry: Qwen3VisionConfiguration.published.geometry, processor: processor, pool: ThreadPool(threads: 1))
    }
    for row in rows {
      func pair(_ name: String) throws -> (Int, Int) {
        let elements = try #require(row[name]?.elements), values = elements.compactMap(\.integer)
        return (values[0], values[1])
      }
      let resolution = try #require(row["output_resolution"]?.integer)
      let (width, height) = try pair("image"), expected = try pair("size")
      let size = ReferenceResizing.size(
        of: ImageSize(widthPx: width, heightPx: height), outputResolution: resolution)
      #expect((size.widthPx, size.heightPx) == expected, "\(width)×\(height) at \(resolution)")
      for limit in [1024, 65_536] {
        let shown = try pair("vl_hw_min\(limit)"),
          grid = preprocessor(limit).grid(ofWidth: size.widthPx, height: size.heightPx)
        #expect((grid.height * 16, grid.width * 16) == shown, "\(size) with \(limit)")
      }
    }
  }

  /// Grey and opaque images get an alpha of 255; one that has the size already keeps its pixels.
  @Test func referencesKeepTheirAlpha() {
    let grey = RasterImage(width: 40, height: 30, channels: 1, pixels: Array(repeating: 7, count: 1200))
    let resized = ReferenceResizing.resized(grey, outputResolution: 64)
    #expect(resized.channels == 4 && resized.width == 64 && resized.height == 64)
    #expect(
      stride(from: 0, to: resized.pixels.count, by: 4).allSatisfy { resized.pixels[$0..<$0 + 4] == [7, 7, 7, 255] })
    let image = RasterImage(
      width: 64, height: 64, channels: 4, pixels: (0..<64 * 64 * 4).map { UInt8(truncatingIfNeeded: $0 * 7) })
    #expect(ReferenceResizing.resized(image, outputResolution: 64) == image)
  }
}

/// Calls `body` with a folder that is removed afterwards.
func withTemporaryFolder(_ body: (URL) throws -> Void) throws {
  let folder = FileManager.default.temporaryDirectory.appending(path: "qwen-image-21-\(UUID().uuidString)")
  try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(at: folder) }
  try body(folder)
}
