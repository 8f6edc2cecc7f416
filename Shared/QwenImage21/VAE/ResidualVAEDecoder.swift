import Diffusion
import Kernels
import TensorCore
import Weights

/// Latents to pixels with transparency: the decoder half of the autoencoder with shortcuts around its stages, for
/// single images (diffusers `AutoencoderKLQwenImage21`).
///
/// Its convolutions are stored without time. Those over time, which single images do not reach, are left in the file.
/// Activations are channels-last fp32.
public struct ResidualVAEDecoder: Sendable {
  /// The checkpoint's configuration.
  public let configuration: ResidualVAEConfiguration
  private let compute: Compute
  private let postQuant: Convolution
  private let convIn: Convolution
  private let middle: MiddleBlock
  private let stages: [UpStage]
  private let normOut: Tensor
  private let convOut: Convolution
  private let band: BandHeight

  private struct UpStage: Sendable {
    let blocks: [ResidualBlock]
    /// To twice the size, which keeps the number of channels, and the way around the stage; the last stage has neither.
    let upsampler: (convolution: Convolution, shortcut: Shortcut)?
  }

  /// Reads the decoder's weights from `vae/`, each of any floating-point type; the encoder is left in the file.
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
    let z = configuration.zDim, layout = configuration.decoderStages
    let (widest, narrowest) = (layout[0].input, layout[layout.count - 1].output)
    postQuant = try reader.convolution("post_quant_conv", input: z, output: z, kernel: 1)
    convIn = try reader.convolution("decoder.conv_in", input: z, output: widest, kernel: 3)
    middle = try MiddleBlock("decoder.mid_block", reader, channels: widest, hasTimeAxis: false)
    stages = try layout.map { stage throws(WeightsError) in try Self.stage(stage, reader, configuration) }
    normOut = try reader.tensor("decoder.norm_out.gamma", [narrowest, 1, 1, 1])
    convOut = try reader.convolution(
      "decoder.conv_out", input: narrowest, output: ResidualVAEConfiguration.imageChannels, kernel: 3)
    try reader.finish(ignoring: CodecParts.decoder.ignores)
  }

  private static func stage(
    _ stage: ResidualVAEConfiguration.Stage, _ reader: ModuleReader, _ configuration: ResidualVAEConfiguration
  ) throws(WeightsError) -> UpStage {
    let name = "decoder.up_blocks.\(stage.index)"
    let blocks = try (0...configuration.resBlockCount).map { block throws(WeightsError) in
      try ResidualBlock(
        "\(name).resnets.\(block)", reader, input: block == 0 ? stage.input : stage.output, output: stage.output,
        hasTimeAxis: false)
    }
    guard stage.scales else { return UpStage(blocks: blocks, upsampler: nil) }
    let convolution = try reader.convolution(
      "\(name).upsampler.resample.1", input: stage.output, output: stage.output, kernel: 3)
    return UpStage(blocks: blocks, upsampler: (convolution, Shortcut(up: stage)))
  }

  /// Decodes normalised latents.
  ///
  /// - Parameter latents: [zDim, h, w], fp32.
  /// - Returns: pixels [16h, 16w, 4] (for the published number of stages) in [-1, 1], fp32; alpha is not premultiplied.
  public func callAsFunction(_ latents: Tensor, probe: Probe = .none) -> Tensor {
    let z = configuration.latentStatistics.denormalised(latents)
    probe.record("decode0.in", channelsFirst(z))
    let decoderProbe = probe.scoped("dec")
    var x = compute.convolution(compute.convolution(z, postQuant), convIn)
    decoderProbe.record("conv_in", channelsFirst(x))
    x = middle(consume x, band: band, compute: compute, probe: decoderProbe)
    x = upsampled(consume x, probe: decoderProbe)
    clampPixels(&x)
    probe.record("decode0.out", channelsFirst(x))
    return x
  }

  /// From the middle's image [h, w, C] to pixels [16h, 16w, 4], band by band: at full size one layer's image of a side
  /// of 2048 pixels would take five gigabytes.
  private func upsampled(_ x: consuming Tensor, probe: Probe) -> Tensor {
    var image: any ImageStream = StoredImage(x)
    for (index, stage) in stages.enumerated() {
      image = stream(image, stage, probe: probe.scoped("up.\(index)"))
      image = image.recorded("up.\(index)", probe, band: band)
    }
    if probe.isActive {
      let whole = image.collect(band: band)
      probe.record("norm_out", channelsFirst(compute.channelRMSNorm(whole, gamma: normOut, silu: false)))
      image = StoredImage(whole)
    }
    return ConvolvedImage(image, norm: normOut, convOut, band: band, compute: compute).collect(band: band)
  }

  private func stream(_ source: any ImageStream, _ stage: UpStage, probe: Probe) -> any ImageStream {
    var image = stage.upsampler == nil ? source : CopiedImage(source)
    for block in stage.blocks { image = block.stream(image, band: band, compute: compute) }
    guard let (convolution, shortcut) = stage.upsampler else { return image }
    image = ConvolvedImage(image, convolution, upsampled: true, band: band, compute: compute)
    image = image.recorded("resampled", probe, band: band)
    probe.record("shortcut", channelsFirst(compute.shortcut(source.window.rows.pixels, shortcut)))
    return ShortcutImage(image, source, shortcut, compute: compute)
  }
}
