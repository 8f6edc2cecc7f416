import Diffusion
import Kernels
import TensorCore
import Weights

/// Pixels with transparency to latents: the encoder half of the autoencoder with shortcuts around its stages, for
/// single images (diffusers `AutoencoderKLQwenImage21`).
///
/// As in ``ResidualVAEDecoder``, activations are channels-last fp32.
public struct ResidualVAEEncoder: Sendable {
  /// The checkpoint's configuration.
  public let configuration: ResidualVAEConfiguration
  private let compute: Compute
  private let convIn: Convolution
  private let stages: [DownStage]
  private let middle: MiddleBlock
  private let normOut: Tensor
  private let convOut: Convolution
  private let quant: Convolution
  private let band: BandHeight

  private struct DownStage: Sendable {
    let blocks: [ResidualBlock]
    /// To half the size; the last stage has none.
    let downsampler: Convolution?
    let shortcut: Shortcut
  }

  /// Reads the encoder's weights from `vae/`, each of any floating-point type; the decoder is left in the file.
  ///
  /// - Parameters:
  ///   - compute: in fp32, whatever the precision of the other stages.
  ///   - bandPixels: pixels of the bands in which images are computed; they change time and memory, but no byte of the
  ///     result. Nil: enough of them to keep all threads at work.
  /// - Throws: `WeightsError` naming the file and tensor that is missing, misshapen or unexpected.
  public init(
    _ weights: ComponentWeights, configuration: ResidualVAEConfiguration, compute: Compute, bandPixels: Int? = nil
  ) throws(WeightsError) {
    precondition(compute.precision == .fp32, "the VAE computes in fp32")
    band = BandHeight(pixels: bandPixels, compute)
    let reader = ModuleReader(weights, compute: compute, layers: QwenImage21Codec.layers)
    self.configuration = configuration
    self.compute = compute
    let layout = configuration.encoderStages, widest = layout[layout.count - 1].output, moments = 2 * configuration.zDim
    convIn = try reader.convolution(
      "encoder.conv_in", input: ResidualVAEConfiguration.imageChannels, output: configuration.baseDim, kernel: 3)
    stages = try layout.map { stage throws(WeightsError) in try Self.stage(stage, reader, configuration) }
    middle = try MiddleBlock("encoder.mid_block", reader, channels: widest, hasTimeAxis: false)
    normOut = try reader.tensor("encoder.norm_out.gamma", [widest, 1, 1, 1])
    convOut = try reader.convolution("encoder.conv_out", input: widest, output: moments, kernel: 3)
    quant = try reader.convolution("quant_conv", input: moments, output: moments, kernel: 1)
    try reader.finish(ignoring: CodecParts.encoder.ignores)
  }

  private static func stage(
    _ stage: ResidualVAEConfiguration.Stage, _ reader: ModuleReader, _ configuration: ResidualVAEConfiguration
  ) throws(WeightsError) -> DownStage {
    let name = "encoder.down_blocks.\(stage.index)"
    let blocks = try (0..<configuration.resBlockCount).map { block throws(WeightsError) in
      try ResidualBlock(
        "\(name).resnets.\(block)", reader, input: block == 0 ? stage.input : stage.output, output: stage.output,
        hasTimeAxis: false)
    }
    let downsampler =
      stage.scales
      ? try reader.convolution(
        "\(name).downsampler.resample.1", input: stage.output, output: stage.output, kernel: 3, stride: 2) : nil
    return DownStage(blocks: blocks, downsampler: downsampler, shortcut: Shortcut(down: stage))
  }

  /// Encodes an image.
  ///
  /// - Parameters:
  ///   - pixels: [H, W, 4] in [-1, 1], fp32, alpha too, which is not premultiplied; H and W are multiples of the
  ///     configuration's `spatialScale`.
  ///   - noise: [zDim, h, w] normal numbers, fp32, that the posterior is sampled with; nil: its mean is taken.
  /// - Returns: normalised latents [zDim, h, w], fp32.
  public func callAsFunction(_ pixels: Tensor, noise: Tensor?, probe: Probe = .none) -> Tensor {
    requirePixels(pixels, channels: ResidualVAEConfiguration.imageChannels, scale: configuration.spatialScale)
    probe.record("encode0.in", channelsFirst(pixels))
    let encoderProbe = probe.scoped("enc")
    var x = downsampled(pixels, probe: encoderProbe)
    x = middle(consume x, band: band, compute: compute, probe: encoderProbe)
    encoderProbe.record("norm_out", channelsFirst(compute.channelRMSNorm(x, gamma: normOut, silu: false)))
    x = ConvolvedImage(StoredImage(consume x), norm: normOut, convOut, band: band, compute: compute)
      .collect(band: band)
    let moments = channelsFirst(compute.convolution(x, quant))
    probe.record("encode0.moments", moments)
    return configuration.latentStatistics.normalised(posterior: moments, noise: noise, compute)
  }

  /// From pixels to the middle's image [h, w, C], band by band: at full size one layer's image of a side of 2048 pixels
  /// would take 1.6 gigabytes.
  private func downsampled(_ pixels: Tensor, probe: Probe) -> Tensor {
    var image: any ImageStream = ConvolvedImage(StoredImage(pixels), convIn, band: band, compute: compute)
    image = image.recorded("conv_in", probe, band: band)
    for (index, stage) in stages.enumerated() {
      image = stream(image, stage, probe: probe.scoped("down.\(index)"))
      image = image.recorded("down.\(index)", probe, band: band)
    }
    return image.collect(band: band)
  }

  private func stream(_ source: any ImageStream, _ stage: DownStage, probe: Probe) -> any ImageStream {
    var image: any ImageStream = CopiedImage(source)
    for (index, block) in stage.blocks.enumerated() {
      image = block.stream(image, band: band, compute: compute).recorded("resnet.\(index)", probe, band: band)
    }
    if let downsampler = stage.downsampler {
      image = DownsampledImage(image, downsampler, band: band, compute: compute)
        .recorded("resampled", probe, band: band)
    }
    probe.record("shortcut", channelsFirst(compute.shortcut(source.window.rows.pixels, stage.shortcut)))
    return ShortcutImage(image, source, stage.shortcut, compute: compute)
  }
}
