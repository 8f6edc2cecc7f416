import Diffusion
import Foundation

/// `text_config` of `text_encoder/config.json`: the language model of Qwen3-VL (transformers `Qwen3VLTextConfig`).
public struct Qwen3TextConfiguration: Sendable, Equatable, Codable {
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
  /// Width of a head, which does not follow from the other widths.
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

  /// The values published with Qwen-Image-2.1 (Qwen3-VL-8B-Instruct).
  public static let published = Qwen3TextConfiguration(
    hiddenSize: 4096, intermediateSize: 12_288, layerCount: 36, headCount: 32, keyValueHeadCount: 8, headDim: 128,
    rmsNormEpsilon: 1e-6, ropeTheta: 5e6, mropeSection: [24, 20, 20], vocabularySize: 151_936, maxPositions: 262_144,
    tieWordEmbeddings: false, imageTokenID: 151_655)

  /// Reads the configuration, with `rope_theta` and `rope_scaling` (as published) or `rope_parameters` (as transformers
  /// 5 writes it).
  public init(contentsOf url: URL) throws(ConfigurationError) {
    let top = try ConfigurationFields(contentsOf: url)
    // The language model alone has its fields at the top level.
    let fields = try top.object("text_config")?.falling(backOn: top) ?? top
    try top.require("model_type", oneOf: ["qwen3_vl", "qwen3_vl_text"])
    try fields.require("model_type", oneOf: ["qwen3_vl", "qwen3_vl_text"])
    try top.requireUnquantised()
    try fields.requireUnquantised()
    try fields.require("hidden_act", oneOf: ["silu"])
    try fields.requireOff("attention_bias")
    try fields.requireOff("use_sliding_window")

    hiddenSize = try fields.integer("hidden_size", in: 1...65536)
    intermediateSize = try fields.integer("intermediate_size", in: 1...262_144)
    layerCount = try fields.integer("num_hidden_layers", in: 1...512)
    headCount = try fields.integer("num_attention_heads", in: 1...1024)
    keyValueHeadCount = try fields.integer("num_key_value_heads", in: 1...1024)
    headDim = try fields.integer("head_dim", in: 2...1024, default: Self.published.headDim)
    rmsNormEpsilon = try fields.number("rms_norm_eps", in: 1e-12...1e-2)
    vocabularySize = try fields.integer("vocab_size", in: 1...4_194_304)
    maxPositions = try fields.integer("max_position_embeddings", in: 1...16_777_216)
    tieWordEmbeddings = try top.boolean("tie_word_embeddings", default: false)
    imageTokenID = try top.integer("image_token_id", in: 0...(vocabularySize - 1), default: Self.published.imageTokenID)

    guard headDim % 2 == 0 else { throw fields.outOfRange("head_dim", headDim, "an even number") }
    guard headCount % keyValueHeadCount == 0 else {
      throw fields.outOfRange("num_key_value_heads", keyValueHeadCount, "a divisor of num_attention_heads \(headCount)")
    }

    let parameters = try fields.object("rope_parameters"), scaling = try fields.object("rope_scaling")
    guard let rope = parameters ?? scaling else {
      throw .missing(file: top.file, field: "text_config.rope_scaling.mrope_section")
    }
    for name in ["rope_type", "type"] { try rope.require(name, oneOf: ["default", "mrope"]) }
    guard try rope.boolean("mrope_interleaved", default: true) else {
      throw .unsupported(
        file: top.file, field: "mrope_interleaved", value: "false", supported: ["true: the axes take turns"])
    }
    ropeTheta = try (rope.value("rope_theta") == nil ? fields : rope).number("rope_theta", in: 1...1e12)
    mropeSection = try rope.integers("mrope_section", count: 3...3, in: 0...4096)
    guard mropeSection.reduce(0, +) == headDim / 2 else {
      throw rope.outOfRange("mrope_section", mropeSection, "\(headDim / 2) in sum, half of head_dim \(headDim)")
    }
  }

  init(
    hiddenSize: Int, intermediateSize: Int, layerCount: Int, headCount: Int, keyValueHeadCount: Int, headDim: Int,
    rmsNormEpsilon: Double, ropeTheta: Double, mropeSection: [Int], vocabularySize: Int, maxPositions: Int,
    tieWordEmbeddings: Bool, imageTokenID: Int
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

  /// The axis of each rotary frequency: 0 is time, 1 the row, 2 the column. The axes take turns, until the row and the
  /// column have as many as ``mropeSection`` says.
  var rotaryAxes: [Int] {
    (0..<headDim / 2).map { index in
      let axis = index % 3
      return index < 3 * mropeSection[axis] ? axis : 0
    }
  }

  /// How classes of transformers, and versions of them, begin a tensor's name, and how it is published: the model
  /// without its output head (`Qwen3VLModel`), the language model alone (`Qwen3VLTextModel`), and the names of the
  /// family before.
  private static let publishedPrefixes = [
    ("model.language_model.", "model.language_model."), ("model.visual.", "model.visual."),
    ("language_model.", "model.language_model."), ("visual.", "model.visual."),
    ("model.layers.", "model.language_model.layers."), ("model.embed_tokens.", "model.language_model.embed_tokens."),
    ("model.norm.", "model.language_model.norm."), ("layers.", "model.language_model.layers."),
    ("embed_tokens.", "model.language_model.embed_tokens."), ("norm.", "model.language_model.norm."),
  ]

  /// The published name of a tensor that may be stored under the name that another class has for it; anything else
  /// unchanged.
  public static func publishedTensorName(_ stored: String) -> String {
    guard let (prefix, published) = publishedPrefixes.first(where: { stored.hasPrefix($0.0) }) else { return stored }
    return published + stored.dropFirst(prefix.count)
  }

  /// Whether a tensor, by its published name, belongs to the parts that no prompt alone needs: the vision tower, the
  /// output head and the norm before it, and rotary frequencies, which are computed.
  static func isUnused(_ name: String) -> Bool {
    name.hasPrefix("model.visual.") || name == "lm_head.weight" || name == "model.language_model.norm.weight"
      || name.hasSuffix(".rotary_emb.inv_freq")
  }
}
