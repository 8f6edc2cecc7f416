import ClusterCore
import TensorCore

/// Images ↔ latents: the autoencoder.
public protocol LatentCodec: Sendable {
  /// Names everything that results depend on besides weights and inputs.
  var numericsClass: String { get }

  /// Decodes latents as the denoising loop leaves them.
  ///
  /// - Parameters:
  ///   - latents: packed latents, fp32.
  ///   - grid: how the tokens lie in the image.
  ///   - probe: receives intermediates under the reference's names.
  /// - Returns: pixels [height, width, channels] in [-1, 1], fp32.
  func decode(_ latents: Tensor, grid: TokenGrid, probe: Probe) -> Tensor
}
