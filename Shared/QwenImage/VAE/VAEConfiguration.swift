import Diffusion
import Foundation

/// `vae/config.json`: the causal video autoencoder (diffusers `AutoencoderKLQwenImage`).
public struct VAEConfiguration: Sendable, Equatable, Codable {
  /// Width of the outermost stage.
  public var baseDim: Int
  /// Latent channels.
  public var zDim: Int
  /// Width of each stage as a multiple of ``baseDim``, outermost first.
  public var dimMultipliers: [Int]
  /// Residual blocks per encoder stage; decoder stages have one more.
  public var resBlockCount: Int
  /// Per-channel mean of the latents: `z_normalised = (z - mean) / std`.
  public var latentsMean: [Double]
  /// Per-channel standard deviation of the latents.
  public var latentsStd: [Double]
  /// Image channels: 3 (RGB) or 4 (RGBA).
  public var inputChannels: Int
  /// Which of the spatial reductions also halve time, outermost first.
  public var temporalDownsample: [Bool]

  /// By which latents are normalised.
  var latentStatistics: LatentStatistics { LatentStatistics(means: latentsMean, deviations: latentsStd) }

  /// Image pixels per latent pixel along each side.
  public var spatialScale: Int { 1 << (dimMultipliers.count - 1) }

  /// The values published with Qwen-Image.
  public static let published = VAEConfiguration(
    baseDim: 96, zDim: 16, dimMultipliers: [1, 2, 4, 4], resBlockCount: 2,
    latentsMean: [
      -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922,
      -0.9497, 0.2503,
      -0.2921,
    ],
    latentsStd: [
      2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253,
      2.8251, 1.9160,
    ],
    inputChannels: 3, temporalDownsample: [false, true, true])

  /// Reads the configuration.
  public init(contentsOf url: URL) throws(ConfigurationError) {
    let fields = try ConfigurationFields(contentsOf: url)
    try fields.require("_class_name", oneOf: ["AutoencoderKLQwenImage"])
    try fields.requireUnquantised()
    baseDim = try fields.integer("base_dim", in: 1...4096)
    zDim = try fields.integer("z_dim", in: 1...1024)
    dimMultipliers = try fields.integers("dim_mult", count: 2...8, in: 1...64)
    // Every stage but the outermost ends in a convolution to half its channels.
    for multiplier in dimMultipliers.dropFirst() where baseDim * multiplier % 2 != 0 {
      throw fields.outOfRange(
        "dim_mult", dimMultipliers, "even in all but the first element where base_dim, here \(baseDim), is odd")
    }
    resBlockCount = try fields.integer("num_res_blocks", in: 1...64)
    // diffusers spells it so.
    temporalDownsample = try fields.booleans(
      "temperal_downsample", count: (dimMultipliers.count - 1)...(dimMultipliers.count - 1))
    latentsMean = try fields.numbers("latents_mean", count: zDim...zDim, in: -1e6...1e6)
    latentsStd = try fields.numbers("latents_std", count: zDim...zDim, in: 1e-6...1e6)
    inputChannels = try fields.integer("input_channels", in: 3...4, default: 3)
    if fields.value("attn_scales") != nil, try !fields.numbers("attn_scales", count: 0...64, in: 0...1e6).isEmpty {
      throw .unsupported(file: fields.file, field: "attn_scales", value: "with elements", supported: ["[]"])
    }
  }

  init(
    baseDim: Int, zDim: Int, dimMultipliers: [Int], resBlockCount: Int, latentsMean: [Double], latentsStd: [Double],
    inputChannels: Int,
    temporalDownsample: [Bool]
  ) {
    self.baseDim = baseDim
    self.zDim = zDim
    self.dimMultipliers = dimMultipliers
    self.resBlockCount = resBlockCount
    self.latentsMean = latentsMean
    self.latentsStd = latentsStd
    self.inputChannels = inputChannels
    self.temporalDownsample = temporalDownsample
  }
}
