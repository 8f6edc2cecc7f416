import ClusterCore
import TensorCore

/// Images ↔ latents: the autoencoder.
public protocol LatentCodec: Sendable {
  /// Names everything that results depend on besides weights and inputs.
  var numericsClass: String { get }

  /// Channels of images: 3, or 4 with transparency.
  var imageChannels: Int { get }

  /// Decodes latents as the denoising loop leaves them.
  ///
  /// - Parameters:
  ///   - latents: packed latents, fp32.
  ///   - grid: how the tokens lie in the image.
  ///   - probe: receives intermediates under the reference's names.
  /// - Returns: pixels [height, width, channels] in [-1, 1], fp32.
  func decode(_ latents: Tensor, grid: TokenGrid, probe: Probe) -> Tensor

  /// Encodes an image. Traps unless the codec was loaded with ``CodecParts/encoder``.
  ///
  /// - Parameters:
  ///   - pixels: [height, width, channels] in [-1, 1], fp32; sides are multiples of a token's edge.
  ///   - noise: [channels, h, w], normal numbers that the posterior is sampled with; nil: its mean is taken.
  ///   - probe: receives intermediates under the reference's names.
  /// - Returns: normalised latents [channels, h, w], fp32: what the denoising loop works with, before packing.
  func encode(_ pixels: Tensor, noise: Tensor?, probe: Probe) -> Tensor
}

/// The halves of an autoencoder.
public struct CodecParts: OptionSet, Sendable {
  /// One bit for each half.
  public let rawValue: Int
  /// See the property.
  public init(rawValue: Int) { self.rawValue = rawValue }

  /// Images → latents.
  public static let encoder = CodecParts(rawValue: 1)
  /// Latents → images.
  public static let decoder = CodecParts(rawValue: 2)
}

extension LatentCodec {
  /// Without transparency.
  public var imageChannels: Int { 3 }
}
