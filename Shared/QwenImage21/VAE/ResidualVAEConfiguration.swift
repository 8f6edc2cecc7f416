import Diffusion
import Foundation

/// `vae/config.json`: the autoencoder with shortcuts around its stages, for images with transparency (diffusers
/// `AutoencoderKLQwenImage21`).
public struct ResidualVAEConfiguration: Sendable, Equatable, Codable {
  /// Width of the encoder's outermost stage.
  public var baseDim: Int
  /// Width of the decoder's outermost stage.
  public var decoderBaseDim: Int
  /// Latent channels.
  public var zDim: Int
  /// Width of each stage as a multiple of that of the outermost one, which comes first.
  public var dimMultipliers: [Int]
  /// Residual blocks per encoder stage; decoder stages have one more.
  public var resBlockCount: Int
  /// Per-channel mean of the latents: `z_normalised = (z - mean) / std`.
  public var latentsMean: [Double]
  /// Per-channel standard deviation of the latents.
  public var latentsStd: [Double]
  /// Which of the spatial reductions also halve time, outermost first. For single images it decides which channels the
  /// shortcuts join.
  public var temporalDownsample: [Bool]

  /// Image channels: red, green, blue, alpha.
  public static let imageChannels = 4

  /// Image pixels per latent pixel along each side.
  public var spatialScale: Int { 1 << (dimMultipliers.count - 1) }

  /// By which latents are normalised.
  var latentStatistics: LatentStatistics { LatentStatistics(means: latentsMean, deviations: latentsStd) }

  /// The values published with Qwen-Image-2.1.
  public static let published = ResidualVAEConfiguration(
    baseDim: 96, decoderBaseDim: 144, zDim: 64, dimMultipliers: [1, 2, 4, 8, 8], resBlockCount: 2,
    latentsMean: publishedMean, latentsStd: publishedStd, temporalDownsample: [false, true, true, true])

  private static let publishedMean = [
    0.5126, 0.7721, -0.0631, 1.3506, -0.7855, -2.1025, -0.3458, 1.3722, 1.8873, -1.7177, -0.6510, 0.2732, 0.7562,
    -0.6163, -1.0277, 3.8363, 2.0210, 0.0472, 0.9320, 2.0087, 2.4954, -0.1391, -1.4249, 1.8464, -0.5236, 1.2826,
    3.7046, -1.3035, 2.7286, -1.4518, -1.9036, -1.9955, -0.0342, -1.0265, -0.7636, 3.0555, 0.0746, -3.0751, -0.1076,
    1.7376, -1.0914, -1.9435, -0.2784, -1.3680, 0.4809, -0.4433, 0.3764, 0.5729, -2.0595, 1.0960, -1.3260, -2.0211,
    -5.0179, 0.5275, 4.0162, 1.8505, 0.3026, 1.9373, 1.4937, 0.2632, 0.5547, -1.7121, -0.1562, 0.0304,
  ]
  private static let publishedStd = [
    3.2001, 3.2936, 3.4321, 3.0091, 3.1061, 4.0379, 4.0705, 3.7910, 3.0785, 3.6500, 3.9308, 3.0904, 2.8778, 3.7675,
    3.7320, 5.0756, 3.2864, 4.0397, 3.1317, 4.0443, 2.9249, 3.9454, 3.0988, 4.2489, 3.4896, 3.8513, 3.9323, 3.4719,
    3.7498, 4.2830, 3.5694, 4.2467, 3.9037, 3.2947, 5.0770, 3.5075, 3.2700, 3.4767, 2.8063, 5.1125, 3.5327, 4.7833,
    3.1286, 4.1819, 3.8527, 3.8312, 3.5605, 4.3875, 3.9624, 4.0168, 3.5643, 4.0550, 5.5614, 4.2963, 4.4080, 3.4959,
    3.8747, 3.7608, 3.5735, 3.1490, 3.7662, 3.6746, 3.4563, 3.8161,
  ]

  /// The fields that the file may have.
  private static let fieldNames = [
    "_class_name", "_diffusers_version", "_name_or_path", "base_dim", "decoder_base_dim", "z_dim", "dim_mult",
    "num_res_blocks", "attn_scales", "temperal_downsample", "dropout", "latents_mean", "latents_std", "is_residual",
    "in_channels", "out_channels", "patch_size", "scale_factor_spatial", "scale_factor_temporal",
  ]

  /// Reads the configuration.
  public init(contentsOf url: URL) throws(ConfigurationError) {
    let fields = try ConfigurationFields(contentsOf: url)
    try fields.require("_class_name", oneOf: ["AutoencoderKLQwenImage21"])
    try fields.requireUnquantised()
    try fields.requireOnly(Self.fieldNames)
    baseDim = try fields.integer("base_dim", in: 1...4096)
    decoderBaseDim = try fields.integer("decoder_base_dim", in: 1...4096, default: baseDim)
    zDim = try fields.integer("z_dim", in: 1...1024)
    dimMultipliers = try fields.integers("dim_mult", count: 2...8, in: 1...64)
    resBlockCount = try fields.integer("num_res_blocks", in: 1...64)
    // diffusers spells it so.
    temporalDownsample = try fields.booleans(
      "temperal_downsample", count: (dimMultipliers.count - 1)...(dimMultipliers.count - 1))
    latentsMean = try fields.numbers("latents_mean", count: zDim...zDim, in: -1e6...1e6)
    latentsStd = try fields.numbers("latents_std", count: zDim...zDim, in: 1e-6...1e6)
    try checkShape(fields)
    try checkShortcuts(fields)
  }

  /// Requires what is the same in all autoencoders of this class, and fits the number of stages.
  private func checkShape(_ fields: ConfigurationFields) throws(ConfigurationError) {
    // Without them it is another network, with weights of the same names.
    guard try fields.boolean("is_residual", default: false) else {
      throw .unsupported(file: fields.file, field: "is_residual", value: "false", supported: ["true"])
    }
    for field in ["in_channels", "out_channels"] {
      let channels = try fields.integer(field, in: 1...4096)
      guard channels == Self.imageChannels else {
        throw .unsupported(
          file: fields.file, field: field, value: "\(channels)", supported: ["\(Self.imageChannels)"])
      }
    }
    if fields.value("attn_scales") != nil, try !fields.numbers("attn_scales", count: 0...64, in: 0...1e6).isEmpty {
      throw .unsupported(file: fields.file, field: "attn_scales", value: "with elements", supported: ["[]"])
    }
    if fields.value("patch_size") != nil {
      let size = try fields.integer("patch_size", in: 1...4096)
      throw .unsupported(file: fields.file, field: "patch_size", value: "\(size)", supported: ["null"])
    }
    // Of training only.
    _ = try fields.number("dropout", in: 0...1, default: 0)
    let temporalScale = 1 << temporalDownsample.count { $0 }
    for (field, scale) in [("scale_factor_spatial", spatialScale), ("scale_factor_temporal", temporalScale)] {
      let found = try fields.integer(field, in: 1...4096, default: scale)
      guard found == scale else {
        throw fields.outOfRange(field, found, "\(scale), which follows from dim_mult and temperal_downsample")
      }
    }
  }

  /// Requires that every channel at the end of a shortcut stands for as many at its beginning, or the reverse.
  private func checkShortcuts(_ fields: ConfigurationFields) throws(ConfigurationError) {
    for stage in encoderStages where stage.averagedValues % stage.output != 0 {
      throw fields.outOfRange(
        "dim_mult", dimMultipliers,
        "such that the encoder's shortcuts, here from \(stage.input) to \(stage.output) channels, join whole channels")
    }
    for stage in decoderStages where stage.repeatedValues % stage.input != 0 {
      throw fields.outOfRange(
        "dim_mult", dimMultipliers,
        "such that the decoder's shortcuts, here from \(stage.input) to \(stage.output) channels, join whole channels")
    }
  }

  init(
    baseDim: Int, decoderBaseDim: Int, zDim: Int, dimMultipliers: [Int], resBlockCount: Int, latentsMean: [Double],
    latentsStd: [Double], temporalDownsample: [Bool]
  ) {
    self.baseDim = baseDim
    self.decoderBaseDim = decoderBaseDim
    self.zDim = zDim
    self.dimMultipliers = dimMultipliers
    self.resBlockCount = resBlockCount
    self.latentsMean = latentsMean
    self.latentsStd = latentsStd
    self.temporalDownsample = temporalDownsample
  }
}

// MARK: - Stages

extension ResidualVAEConfiguration {
  /// A stage of either half: residual blocks, then, but for the last one, another size.
  struct Stage {
    let index: Int
    /// Channels of its image, and of the next stage's.
    let input: Int, output: Int
    /// Whether it halves or doubles the image's sides.
    let scales: Bool
    /// 2 where it halves or doubles time too, else 1.
    let frames: Int

    /// What the encoder's shortcut averages, for all channels of a pixel of its result together.
    var averagedValues: Int { input * frames * (scales ? 4 : 1) }
    /// What the decoder's shortcut makes of a pixel.
    var repeatedValues: Int { output * frames * 4 }
  }

  /// Outermost first.
  var encoderStages: [Stage] {
    stages(dimMultipliers.map { $0 * baseDim }, first: baseDim, scalesTime: temporalDownsample)
  }

  /// Innermost first.
  var decoderStages: [Stage] {
    let widths = dimMultipliers.reversed().map { $0 * decoderBaseDim }
    return stages(widths, first: widths[0], scalesTime: temporalDownsample.reversed())
  }

  private func stages(_ widths: [Int], first: Int, scalesTime: [Bool]) -> [Stage] {
    widths.indices.map { index in
      let scales = index + 1 < widths.count
      return Stage(
        index: index, input: index == 0 ? first : widths[index - 1], output: widths[index], scales: scales,
        frames: scales && scalesTime[index] ? 2 : 1)
    }
  }
}
