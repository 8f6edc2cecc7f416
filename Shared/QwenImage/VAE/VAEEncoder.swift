import Diffusion
import Kernels
import TensorCore
import Weights

/// Pixels to latents: the encoder half of the 3-D causal VAE, for single images (diffusers `AutoencoderKLQwenImage`).
///
/// As in ``VAEDecoder``, 3-D convolutions are 2-D ones, and activations are channels-last fp32.
public struct VAEEncoder: Sendable {
  /// The checkpoint's configuration.
  public let configuration: VAEConfiguration
  private let compute: Compute
  private let convIn: Convolution
  private let blocks: [Block]
  private let middle: MiddleBlock
  private let normOut: Tensor
  private let convOut: Convolution
  private let quant: Convolution
  private let band: BandHeight

  /// Names everything that latents depend on besides the image and the noise: equal strings promise equal bytes.
  public var numericsClass: String { compute.numericsClass }

  /// An element of the reference's flat list of blocks.
  private enum Block: Sendable {
    case residual(ResidualBlock)
    case downsampling(Convolution)
  }

  /// Reads the encoder's weights from `vae/`; the decoder and the temporal convolutions are left in the file.
  ///
  /// - Parameters:
  ///   - compute: in fp32: so the VAE always computes, whatever the precision of the other stages.
  ///   - bandPixels: pixels of the bands in which images are computed; they change time and memory, but no byte of the
  ///     result. Nil: enough of them to keep all threads at work.
  /// - Throws: `WeightsError` naming the file and tensor that is missing, misshapen or unexpected.
  public init(
    _ weights: ComponentWeights, configuration: VAEConfiguration, compute: Compute, bandPixels: Int? = nil
  ) throws(WeightsError) {
    precondition(compute.precision == .fp32, "the VAE computes in fp32")
    band = BandHeight(pixels: bandPixels, compute)
    let reader = ModuleReader(weights, compute: compute, layers: QwenImageFamily.layers)
    self.configuration = configuration
    self.compute = compute
    convIn = try reader.convolution(
      "encoder.conv_in", input: configuration.inputChannels, output: configuration.baseDim, kernel: 3,
      storedTimeTaps: 3)
    blocks = try Self.blocks(reader, configuration)
    let widest = configuration.baseDim * configuration.dimMultipliers[configuration.dimMultipliers.count - 1]
    let moments = 2 * configuration.zDim
    middle = try MiddleBlock("encoder.mid_block", reader, channels: widest, hasTimeAxis: true)
    normOut = try reader.tensor("encoder.norm_out.gamma", [widest, 1, 1, 1])
    convOut = try reader.convolution("encoder.conv_out", input: widest, output: moments, kernel: 3, storedTimeTaps: 3)
    quant = try reader.convolution("quant_conv", input: moments, output: moments, kernel: 1, storedTimeTaps: 1)
    try reader.finish(ignoring: CodecParts.encoder.ignores)
  }

  private static func blocks(
    _ reader: ModuleReader, _ configuration: VAEConfiguration
  ) throws(WeightsError) -> [Block] {
    var blocks: [Block] = []
    var name: String { "encoder.down_blocks.\(blocks.count)" }
    var channels = configuration.baseDim
    for (level, multiplier) in configuration.dimMultipliers.enumerated() {
      let width = configuration.baseDim * multiplier
      for _ in 0..<configuration.resBlockCount {
        blocks.append(.residual(try ResidualBlock(name, reader, input: channels, output: width, hasTimeAxis: true)))
        channels = width
      }
      guard level + 1 < configuration.dimMultipliers.count else { continue }
      blocks.append(
        .downsampling(
          try reader.convolution("\(name).resample.1", input: channels, output: channels, kernel: 3, stride: 2)))
    }
    return blocks
  }

  /// Encodes an image.
  ///
  /// - Parameters:
  ///   - pixels: [H, W, channels] in [-1, 1], fp32; H and W are multiples of the configuration's `spatialScale`.
  ///   - noise: [zDim, h, w] normal numbers, fp32, that the posterior is sampled with; nil: its mean is taken.
  /// - Returns: normalised latents [zDim, h, w], fp32.
  public func callAsFunction(_ pixels: Tensor, noise: Tensor?, probe: Probe = .none) -> Tensor {
    requirePixels(pixels, channels: configuration.inputChannels, scale: configuration.spatialScale)
    probe.record("encode0.in", channelsFirst(pixels))
    let encoderProbe = probe.scoped("enc")
    var x = downsampled(pixels, probe: encoderProbe)
    x = middle(consume x, band: band, compute: compute, probe: encoderProbe)
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
    for (index, block) in blocks.enumerated() {
      image =
        switch block {
        case .residual(let block): block.stream(image, band: band, compute: compute)
        case .downsampling(let convolution): DownsampledImage(image, convolution, band: band, compute: compute)
        }
      image = image.recorded("down.\(index)", probe, band: band)
    }
    return image.collect(band: band)
  }
}
