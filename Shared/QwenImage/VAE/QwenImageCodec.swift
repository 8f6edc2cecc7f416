import ClusterCore
import Diffusion
import Kernels
import TensorCore
import Weights

/// The autoencoder, or one half of it. A call of the half that was not loaded traps.
public struct QwenImageCodec: LatentCodec {
  private let encoder: VAEEncoder?
  private let decoder: VAEDecoder?

  /// Names everything that results depend on besides weights and inputs.
  public let numericsClass: String
  /// Channels of images.
  public let imageChannels: Int

  /// Reads the weights of the halves in `parts`, of which there is one at least; the other's tensors may be missing.
  ///
  /// - Parameter compute: in fp32.
  /// - Throws: `WeightsError` naming the file and tensor that is missing, misshapen or unexpected.
  public init(
    _ weights: ComponentWeights, configuration: VAEConfiguration, compute: Compute, parts: CodecParts
  ) throws(WeightsError) {
    precondition(!parts.isEmpty, "an autoencoder without encoder and decoder")
    encoder =
      parts.contains(.encoder) ? try VAEEncoder(weights, configuration: configuration, compute: compute) : nil
    decoder =
      parts.contains(.decoder) ? try VAEDecoder(weights, configuration: configuration, compute: compute) : nil
    numericsClass = compute.numericsClass
    imageChannels = configuration.inputChannels
  }

  /// Decodes packed latents [gh·gw, 4 · zDim].
  public func decode(_ latents: Tensor, grid: TokenGrid, probe: Probe) -> Tensor {
    guard let decoder else { preconditionFailure("the autoencoder was loaded without its decoder") }
    return decoder(LatentPacking.unpack(latents, grid, patch: QwenImageFamily.patch), probe: probe)
  }

  /// Encodes an image.
  public func encode(_ pixels: Tensor, noise: Tensor?, probe: Probe) -> Tensor {
    guard let encoder else { preconditionFailure("the autoencoder was loaded without its encoder") }
    return encoder(pixels, noise: noise, probe: probe)
  }
}
