import ClusterCore
import Diffusion
import Kernels
import TensorCore
import Weights

/// The autoencoder, or one half of it. A call of the half that was not loaded traps.
public struct QwenImage21Codec: LatentCodec {
  private let encoder: ResidualVAEEncoder?
  private let decoder: ResidualVAEDecoder?

  /// Names everything that results depend on besides weights and inputs.
  public let numericsClass: String
  /// Channels of images: red, green, blue, alpha.
  public var imageChannels: Int { ResidualVAEConfiguration.imageChannels }

  /// Latent pixels per token along each side.
  static let patch = 1
  /// The autoencoder has no layers that are quantised.
  static let layers = LayerPrecision(version: 1, repeated: [], modulations: [])

  /// Reads the weights of the halves in `parts`, of which there is one at least; the other's tensors may be missing.
  ///
  /// - Parameter compute: in fp32.
  /// - Throws: `WeightsError` naming the file and tensor that is missing, misshapen or unexpected.
  public init(
    _ weights: ComponentWeights, configuration: ResidualVAEConfiguration, compute: Compute, parts: CodecParts
  ) throws(WeightsError) {
    precondition(!parts.isEmpty, "an autoencoder without encoder and decoder")
    encoder =
      parts.contains(.encoder) ? try ResidualVAEEncoder(weights, configuration: configuration, compute: compute) : nil
    decoder =
      parts.contains(.decoder) ? try ResidualVAEDecoder(weights, configuration: configuration, compute: compute) : nil
    numericsClass = compute.numericsClass
  }

  /// Decodes latents [gh·gw, zDim].
  public func decode(_ latents: Tensor, grid: TokenGrid, probe: Probe) -> Tensor {
    guard let decoder else { preconditionFailure("the autoencoder was loaded without its decoder") }
    return decoder(LatentPacking.unpack(latents, grid, patch: Self.patch), probe: probe)
  }

  /// Encodes an image with transparency.
  public func encode(_ pixels: Tensor, noise: Tensor?, probe: Probe) -> Tensor {
    guard let encoder else { preconditionFailure("the autoencoder was loaded without its encoder") }
    return encoder(pixels, noise: noise, probe: probe)
  }
}
