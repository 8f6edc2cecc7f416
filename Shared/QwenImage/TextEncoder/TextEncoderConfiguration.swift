import Diffusion
import Foundation

/// `text_encoder/config.json`: the language model of Qwen2.5-VL (transformers `Qwen2_5_VLTextConfig`).
public struct TextEncoderConfiguration: Sendable, Equatable, Codable {
  /// Width of the residual stream.
  public var hiddenSize: Int
  /// Width inside the gated MLP.
  public var intermediateSize: Int
  /// Number of decoder layers.
  public var layerCount: Int
  /// Number of query heads.
  public var headCount: Int
  /// Number of key and value heads; divides ``headCount``.
  public var keyValueHeadCount: Int
  /// Width of a head.
  public var headDim: Int
  /// Epsilon of every RMSNorm.
  public var rmsNormEpsilon: Double
  /// Base of the rotary frequencies.
  public var ropeTheta: Double
  /// How many of the `headDim / 2` rotary frequencies belong to time, height and width.
  public var mropeSection: [Int]
  /// Rows of the embedding table.
  public var vocabularySize: Int
  /// Longest sequence the model was trained for, in tokens.
  public var maxPositions: Int
  /// Whether `lm_head` is the embedding table.
  public var tieWordEmbeddings: Bool
  /// Id of `<|image_pad|>`.
  public var imageTokenID: Int

  /// The values published with Qwen-Image (Qwen2.5-VL-7B-Instruct).
  public static let published = TextEncoderConfiguration(
    hiddenSize: 3584, intermediateSize: 18944, layerCount: 28, headCount: 28, keyValueHeadCount: 4, headDim: 128,
    rmsNormEpsilon: 1e-6,
    ropeTheta: 1e6, mropeSection: [16, 24, 24], vocabularySize: 152_064, maxPositions: 128_000,
    tieWordEmbeddings: false,
    imageTokenID: 151_655)

  /// The axis of each rotary frequency: the first ones turn by the time, the next ones by the row, the last ones by the
  /// column.
  var rotaryAxes: [Int] {
    mropeSection.enumerated().flatMap { Array(repeating: $0.offset, count: $0.element) }
  }

  /// Reads the configuration in either of its two shapes: text fields at the top level (as published) or in
  /// `text_config` only, with `rope_parameters` instead of `rope_theta` and `rope_scaling` (as transformers 5 writes
  /// it).
  public init(contentsOf url: URL) throws(ConfigurationError) {
    let top = try ConfigurationFields(contentsOf: url)
    // Where both exist, transformers uses text_config.
    let fields = try top.object("text_config")?.falling(backOn: top) ?? top
    try top.require("model_type", oneOf: ["qwen2_5_vl", "qwen2_5_vl_text"])
    try top.requireUnquantised()
    try fields.requireUnquantised()
    try fields.require("hidden_act", oneOf: ["silu"])
    try fields.requireOff("use_sliding_window")

    hiddenSize = try fields.integer("hidden_size", in: 1...65536)
    intermediateSize = try fields.integer("intermediate_size", in: 1...262_144)
    layerCount = try fields.integer("num_hidden_layers", in: 1...512)
    headCount = try fields.integer("num_attention_heads", in: 1...1024)
    keyValueHeadCount = try fields.integer("num_key_value_heads", in: 1...1024)
    rmsNormEpsilon = try fields.number("rms_norm_eps", in: 1e-12...1e-2)
    vocabularySize = try fields.integer("vocab_size", in: 1...4_194_304)
    maxPositions = try fields.integer("max_position_embeddings", in: 1...16_777_216)
    tieWordEmbeddings = try fields.boolean("tie_word_embeddings", default: false)
    imageTokenID = try top.integer("image_token_id", in: 0...(vocabularySize - 1), default: Self.published.imageTokenID)

    guard hiddenSize % headCount == 0 else {
      throw fields.outOfRange("num_attention_heads", headCount, "a divisor of hidden_size \(hiddenSize)")
    }
    headDim = hiddenSize / headCount
    guard headDim % 2 == 0 else {
      throw fields.outOfRange("hidden_size", hiddenSize, "an even multiple of num_attention_heads \(headCount)")
    }
    guard headCount % keyValueHeadCount == 0 else {
      throw fields.outOfRange("num_key_value_heads", keyValueHeadCount, "a divisor of num_attention_heads \(headCount)")
    }

    let parameters = try fields.object("rope_parameters")
    let scaling = try fields.object("rope_scaling")
    guard let rope = parameters ?? scaling else { throw .missing(file: top.file, field: "rope_scaling.mrope_section") }
    // "mrope" is what the first releases called it; transformers maps it to "default".
    try rope.require("rope_type", oneOf: ["default", "mrope"])
    try rope.require("type", oneOf: ["default", "mrope"])
    ropeTheta = try (rope.value("rope_theta") == nil ? fields : rope).number("rope_theta", in: 1...1e12)
    mropeSection = try rope.integers("mrope_section", count: 3...3, in: 0...4096)
    guard mropeSection.reduce(0, +) == headDim / 2 else {
      throw rope.outOfRange("mrope_section", mropeSection, "\(headDim / 2) in sum, half of the head width \(headDim)")
    }
  }

  init(
    hiddenSize: Int, intermediateSize: Int, layerCount: Int, headCount: Int, keyValueHeadCount: Int, headDim: Int,
    rmsNormEpsilon: Double,
    ropeTheta: Double, mropeSection: [Int], vocabularySize: Int, maxPositions: Int, tieWordEmbeddings: Bool,
    imageTokenID: Int
  ) {
    self.hiddenSize = hiddenSize
    self.intermediateSize = intermediateSize
    self.layerCount = layerCount
    self.headCount = headCount
    self.keyValueHeadCount = keyValueHeadCount
    self.headDim = headDim
    self.rmsNormEpsilon = rmsNormEpsilon
    self.ropeTheta = ropeTheta
    self.mropeSection = mropeSection
    self.vocabularySize = vocabularySize
    self.maxPositions = maxPositions
    self.tieWordEmbeddings = tieWordEmbeddings
    self.imageTokenID = imageTokenID
  }

  /// How classes and versions of transformers begin a tensor's name, and how it is published: the whole model (since
  /// 4.52), the model without its output head (`Qwen2_5_VLModel`), and the language model alone
  /// (`Qwen2_5_VLTextModel`).
  private static let publishedPrefixes = [
    ("model.language_model.", "model."), ("model.visual.", "visual."), ("language_model.", "model."),
    ("layers.", "model.layers."),
    ("embed_tokens.", "model.embed_tokens."), ("norm.", "model.norm."),
  ]

  /// The published name of a tensor that transformers may have written under its in-memory name:
  /// `model.language_model.…` → `model.…`, `model.visual.…` → `visual.…`, and what other classes of it write; anything
  /// else unchanged.
  public static func publishedTensorName(_ stored: String) -> String {
    guard let (prefix, published) = publishedPrefixes.first(where: { stored.hasPrefix($0.0) }) else { return stored }
    return published + stored.dropFirst(prefix.count)
  }

  /// Whether a tensor, by its published name, belongs to the parts that no prompt needs: the vision tower, the output
  /// head, and rotary frequencies, which old versions of transformers wrote and every version computes.
  static func isUnused(_ name: String) -> Bool {
    name.hasPrefix("visual.") || name == "lm_head.weight" || name.hasSuffix(".rotary_emb.inv_freq")
  }
}
