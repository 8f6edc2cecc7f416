import Diffusion
import Foundation

/// `vision_config` of `text_encoder/config.json`: the vision tower of Qwen3-VL (transformers `Qwen3VLVisionConfig`).
public struct Qwen3VisionConfiguration: Sendable, Equatable, Codable {
  /// Number of blocks.
  public var depth: Int
  /// Width of the residual stream.
  public var hiddenSize: Int
  /// Width inside the MLP.
  public var intermediateSize: Int
  /// Number of heads.
  public var headCount: Int
  /// Pixels of a patch along each side.
  public var patchSize: Int
  /// Frames of a patch; an image counts as that many equal ones.
  public var temporalPatchSize: Int
  /// Patches of a merged token along each side.
  public var mergeSize: Int
  /// Rows and columns of the table of positions.
  public var positionSide: Int
  /// Blocks whose results the language model adds to its own after its first layers, in order (DeepStack).
  public var deepStackBlocks: [Int]
  /// Width of a merged token: that of the language model.
  public var outputSize: Int

  /// The values published with Qwen-Image-2.1 (Qwen3-VL-8B-Instruct).
  public static let published = Qwen3VisionConfiguration(
    depth: 27, hiddenSize: 1152, intermediateSize: 4304, headCount: 16, patchSize: 16, temporalPatchSize: 2,
    mergeSize: 2, positionSide: 48, deepStackBlocks: [8, 16, 24], outputSize: 4096)

  /// Epsilon of every LayerNorm, which no configuration file has.
  static let normEpsilon: Float = 1e-6
  /// Base of the rotary frequencies, which no configuration file has.
  static let ropeTheta = 10_000.0

  /// Width of a head.
  public var headDim: Int { hiddenSize / headCount }
  /// How images are cut into patches.
  public var geometry: PatchGeometry {
    PatchGeometry(patchSize: patchSize, temporalPatchSize: temporalPatchSize, mergeSize: mergeSize)
  }

  /// Reads `vision_config` of the file; fields that it lacks have their published values.
  ///
  /// - Parameters:
  ///   - url: `text_encoder/config.json`.
  ///   - text: the language model's configuration.
  public init(contentsOf url: URL, text: Qwen3TextConfiguration) throws(ConfigurationError) {
    let standard = Self.published
    guard let fields = try ConfigurationFields(contentsOf: url).object("vision_config") else {
      throw .missing(file: url.path, field: "vision_config")
    }
    try fields.require("model_type", oneOf: ["qwen3_vl", "qwen3_vl_vision"])
    try fields.require("hidden_act", oneOf: ["gelu_pytorch_tanh"])
    depth = try fields.integer("depth", in: 1...512, default: standard.depth)
    hiddenSize = try fields.integer("hidden_size", in: 1...65536, default: standard.hiddenSize)
    intermediateSize = try fields.integer("intermediate_size", in: 1...262_144, default: standard.intermediateSize)
    headCount = try fields.integer("num_heads", in: 1...1024, default: standard.headCount)
    patchSize = try fields.integer("patch_size", in: 1...256, default: standard.patchSize)
    temporalPatchSize = try fields.integer("temporal_patch_size", in: 1...16, default: standard.temporalPatchSize)
    mergeSize = try fields.integer("spatial_merge_size", in: 1...16, default: standard.mergeSize)
    outputSize = try fields.integer("out_hidden_size", in: 1...65536, default: standard.outputSize)
    let positions = try fields.integer(
      "num_position_embeddings", in: 1...1_048_576, default: standard.positionSide * standard.positionSide)
    positionSide = Int(Double(positions).squareRoot().rounded())
    deepStackBlocks =
      fields.value("deepstack_visual_indexes") == nil
      ? standard.deepStackBlocks
      : try fields.integers("deepstack_visual_indexes", count: 0...depth, in: 0...(depth - 1))
    guard positionSide * positionSide == positions else {
      throw fields.outOfRange("num_position_embeddings", positions, "the square of a number")
    }
    try check(fields, text)
  }

  private func check(_ fields: ConfigurationFields, _ text: Qwen3TextConfiguration) throws(ConfigurationError) {
    for name in ["in_chans", "in_channels"] {
      let channels = try fields.integer(name, in: 1...64, default: PatchGeometry.channels)
      guard channels == PatchGeometry.channels else {
        throw fields.outOfRange(name, channels, "\(PatchGeometry.channels)")
      }
    }
    guard hiddenSize % headCount == 0 else {
      throw fields.outOfRange("num_heads", headCount, "a divisor of hidden_size \(hiddenSize)")
    }
    // Half of a head's frequencies belong to the row, half to the column, and each turns two channels.
    guard headDim % 4 == 0 else {
      throw fields.outOfRange("hidden_size", hiddenSize, "a multiple of 4 times num_heads, \(headCount)")
    }
    guard outputSize == text.hiddenSize else {
      throw fields.outOfRange("out_hidden_size", outputSize, "the language model's hidden_size, \(text.hiddenSize)")
    }
    guard zip(deepStackBlocks, deepStackBlocks.dropFirst()).allSatisfy(<), deepStackBlocks.allSatisfy({ $0 < depth })
    else {
      throw fields.outOfRange("deepstack_visual_indexes", deepStackBlocks, "blocks below depth \(depth), ascending")
    }
    guard deepStackBlocks.count <= text.layerCount else {
      throw fields.outOfRange(
        "deepstack_visual_indexes", deepStackBlocks, "no more than num_hidden_layers, \(text.layerCount)")
    }
  }

  init(
    depth: Int, hiddenSize: Int, intermediateSize: Int, headCount: Int, patchSize: Int, temporalPatchSize: Int,
    mergeSize: Int, positionSide: Int, deepStackBlocks: [Int], outputSize: Int
  ) {
    self.depth = depth
    self.hiddenSize = hiddenSize
    self.intermediateSize = intermediateSize
    self.headCount = headCount
    self.patchSize = patchSize
    self.temporalPatchSize = temporalPatchSize
    self.mergeSize = mergeSize
    self.positionSide = positionSide
    self.deepStackBlocks = deepStackBlocks
    self.outputSize = outputSize
  }
}
