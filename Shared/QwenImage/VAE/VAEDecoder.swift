import Diffusion
import Kernels
import TensorCore
import Weights

/// Latents to pixels: the decoder half of the 3-D causal VAE, for single images (diffusers `AutoencoderKLQwenImage`).
///
/// With one frame every causal 3×3×3 convolution sees data through its last temporal tap only, so all of them are 2-D
/// here: a third of the reference's work. Activations are channels-last fp32.
public struct VAEDecoder: Sendable {
  /// The checkpoint's configuration.
  public let configuration: VAEConfiguration
  private let compute: Compute
  private let postQuant: Convolution
  private let convIn: Convolution
  private let middle: MiddleBlock
  private let stages: [UpStage]
  private let normOut: Tensor
  private let convOut: Convolution
  private let band: BandHeight

  /// Names everything that decoded pixels depend on besides the latents: equal strings promise equal bytes.
  public var numericsClass: String { compute.numericsClass }

  /// Latent pixels are this many pixels wide and high.
  public static let spatialScale = 8

  private struct UpStage: Sendable {
    let blocks: [ResidualBlock]
    let upsampler: Convolution?
  }

  /// Reads the decoder's weights from `vae/`; the encoder and the temporal convolutions are left in the file.
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
    let z = configuration.zDim
    let multipliers = configuration.dimMultipliers
    let widest = configuration.baseDim * multipliers[multipliers.count - 1]
    postQuant = try reader.convolution("post_quant_conv", input: z, output: z, kernel: 1, storedTimeTaps: 1)
    convIn = try reader.convolution("decoder.conv_in", input: z, output: widest, kernel: 3, storedTimeTaps: 3)
    middle = try MiddleBlock("decoder.mid_block", reader, channels: widest, hasTimeAxis: true)
    var stages: [UpStage] = []
    var input = widest
    for (index, multiplier) in multipliers.reversed().enumerated() {
      let output = configuration.baseDim * multiplier
      let isLast = index + 1 == multipliers.count
      stages.append(try Self.stage(index, reader, configuration, input: input, output: output, upsamples: !isLast))
      input = isLast ? output : output / 2
    }
    self.stages = stages
    normOut = try reader.tensor("decoder.norm_out.gamma", [input, 1, 1, 1])
    convOut = try reader.convolution(
      "decoder.conv_out", input: input, output: configuration.inputChannels, kernel: 3, storedTimeTaps: 3)
    try reader.finish(ignoring: CodecParts.decoder.ignores)
  }

  private static func stage(
    _ index: Int, _ reader: ModuleReader, _ configuration: VAEConfiguration, input: Int, output: Int, upsamples: Bool
  ) throws(WeightsError) -> UpStage {
    let name = "decoder.up_blocks.\(index)"
    var blocks: [ResidualBlock] = []
    for block in 0...configuration.resBlockCount {
      blocks.append(
        try ResidualBlock(
          "\(name).resnets.\(block)", reader, input: block == 0 ? input : output, output: output, hasTimeAxis: true))
    }
    let upsampler =
      upsamples
      ? try reader.convolution("\(name).upsamplers.0.resample.1", input: output, output: output / 2, kernel: 3) : nil
    return UpStage(blocks: blocks, upsampler: upsampler)
  }

  /// Decodes normalised latents.
  ///
  /// - Parameter latents: [zDim, h, w], as the denoiser leaves them, fp32.
  /// - Returns: pixels [8h, 8w, channels] in [-1, 1], fp32.
  public func callAsFunction(_ latents: Tensor, probe: Probe = .none) -> Tensor {
    let z = configuration.latentStatistics.denormalised(latents)
    probe.record("decode0.in", channelsFirst(z))
    var x = compute.convolution(compute.convolution(z, postQuant), convIn)
    probe.record("dec.conv_in", channelsFirst(x))
    x = middle(consume x, band: band, compute: compute, probe: probe.scoped("dec"))
    x = upsampled(consume x, probe: probe)
    clampPixels(&x)
    probe.record("decode0.out", channelsFirst(x))
    return x
  }

  /// From the middle's image [h, w, C] to pixels [8h, 8w, channels], band by band: at full size one layer's image
  /// may take half a gigabyte, all bands together take a third of one.
  private func upsampled(_ x: consuming Tensor, probe: Probe) -> Tensor {
    var image: any ImageStream = StoredImage(x)
    for (index, stage) in stages.enumerated() {
      for block in stage.blocks { image = block.stream(image, band: band, compute: compute) }
      if let upsampler = stage.upsampler {
        image = ConvolvedImage(image, upsampler, upsampled: true, band: band, compute: compute)
      }
      image = image.recorded("dec.up.\(index)", probe, band: band)
    }
    return ConvolvedImage(image, norm: normOut, convOut, band: band, compute: compute).collect(band: band)
  }
}
