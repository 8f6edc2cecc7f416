import Diffusion
import Foundation

/// `vision_config` of `text_encoder/config.json`: the vision tower of Qwen2.5-VL (transformers
/// `Qwen2_5_VLVisionConfig`).
public struct VisionConfiguration: Sendable, Equatable, Codable {
  /// Number of blocks.
  public var depth: Int
  /// Width of the residual stream.
  public var hiddenSize: Int
  /// Width inside the gated MLP.
  public var intermediateSize: Int
  /// Number of heads.
  public var headCount: Int
  /// Pixels of a patch along each side.
  public var patchSize: Int
  /// Frames of a patch; an image counts as that many equal ones.
  public var temporalPatchSize: Int
  /// Patches of a merged token along each side.
  public var mergeSize: Int
  /// Pixels of an attention window along each side.
  public var windowSize: Int
  /// Blocks whose attention sees the whole image instead of a window.
  public var fullAttentionBlocks: [Int]
  /// Width of a merged token: that of the language model.
  public var outputSize: Int

  /// The values published with Qwen-Image-Edit (Qwen2.5-VL-7B-Instruct).
  public static let published = VisionConfiguration(
    depth: 32, hiddenSize: 1280, intermediateSize: 3420, headCount: 16, patchSize: 14, temporalPatchSize: 2,
    mergeSize: 2, windowSize: 112, fullAttentionBlocks: [7, 15, 23, 31], outputSize: 3584)

  /// Epsilon of every RMSNorm, which no configuration file has.
  static let rmsNormEpsilon: Float = 1e-6
  /// Base of the rotary frequencies, which no configuration file has.
  static let ropeTheta = 10_000.0

  /// Width of a head.
  public var headDim: Int { hiddenSize / headCount }
  /// How images are cut into patches.
  public var geometry: PatchGeometry {
    PatchGeometry(patchSize: patchSize, temporalPatchSize: temporalPatchSize, mergeSize: mergeSize)
  }
  /// Values of a patch: channels, frames, rows and columns.
  public var patchValues: Int { geometry.patchValues }
  /// Patches of a merged token.
  public var mergedPatches: Int { geometry.mergedPatches }
  /// Pixels of a merged token along each side; sides of images are multiples of it.
  public var tokenEdgePx: Int { geometry.tokenEdgePx }
  /// Merged tokens of a window along each side.
  var windowTokens: Int { windowSize / tokenEdgePx }

  /// Reads `vision_config` of the file; fields that it lacks have their published values.
  ///
  /// - Parameters:
  ///   - url: `text_encoder/config.json`. A language model of the published width may come without `vision_config`.
  ///   - languageWidth: the language model's width.
  public init(contentsOf url: URL, hiddenSize languageWidth: Int) throws(ConfigurationError) {
    let top = try ConfigurationFields(contentsOf: url)
    let standard = Self.published
    guard let fields = try top.object("vision_config") else {
      guard languageWidth == standard.outputSize else {
        throw .missing(file: url.path, field: "vision_config")
      }
      self = standard
      return
    }
    try fields.require("hidden_act", oneOf: ["silu"])
    depth = try fields.integer("depth", in: 1...512, default: standard.depth)
    hiddenSize = try fields.integer("hidden_size", in: 1...65536, default: standard.hiddenSize)
    intermediateSize = try fields.integer("intermediate_size", in: 1...262_144, default: standard.intermediateSize)
    headCount = try fields.integer("num_heads", in: 1...1024, default: standard.headCount)
    patchSize = try fields.integer("patch_size", in: 1...256, default: standard.patchSize)
    temporalPatchSize = try fields.integer("temporal_patch_size", in: 1...16, default: standard.temporalPatchSize)
    mergeSize = try fields.integer("spatial_merge_size", in: 1...16, default: standard.mergeSize)
    windowSize = try fields.integer("window_size", in: 1...65536, default: standard.windowSize)
    outputSize = try fields.integer("out_hidden_size", in: 1...65536, default: standard.outputSize)
    fullAttentionBlocks =
      fields.value("fullatt_block_indexes") == nil
      ? standard.fullAttentionBlocks.filter { [depth] in $0 < depth }
      : try fields.integers("fullatt_block_indexes", count: 0...depth, in: 0...(depth - 1))
    try check(fields, languageWidth)
  }

  private func check(_ fields: ConfigurationFields, _ languageWidth: Int) throws(ConfigurationError) {
    // Both names occur, also together.
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
    guard windowSize % tokenEdgePx == 0 else {
      throw fields.outOfRange(
        "window_size", windowSize, "a multiple of patch_size times spatial_merge_size, \(tokenEdgePx)")
    }
    guard outputSize == languageWidth else {
      throw fields.outOfRange("out_hidden_size", outputSize, "the language model's hidden_size, \(languageWidth)")
    }
  }

  init(
    depth: Int, hiddenSize: Int, intermediateSize: Int, headCount: Int, patchSize: Int, temporalPatchSize: Int,
    mergeSize: Int, windowSize: Int, fullAttentionBlocks: [Int], outputSize: Int
  ) {
    self.depth = depth
    self.hiddenSize = hiddenSize
    self.intermediateSize = intermediateSize
    self.headCount = headCount
    self.patchSize = patchSize
    self.temporalPatchSize = temporalPatchSize
    self.mergeSize = mergeSize
    self.windowSize = windowSize
    self.fullAttentionBlocks = fullAttentionBlocks
    self.outputSize = outputSize
  }
}
